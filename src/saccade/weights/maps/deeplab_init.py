"""Key names of the file that AdaptSegNet and ADVENT start from, `DeepLab_resnet_pretrained_imagenet.pth`: a backbone behind `Scale.`.

Its `layer5` is a head of 21 classes which nothing of ours is, and which both programs leave out; so it is left out here, too.
"""
from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from saccade.weights.key_map import KeyMap, Tensors
from saccade.weights.maps import adaptsegnet

_PREFIX, _HEAD = "Scale.", "Scale.layer5."


def to_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under our names, without the head of 21 classes."""
    return adaptsegnet.to_saccade({key.removeprefix(_PREFIX): value for key, value in tensors.items() if not key.startswith(_HEAD)}, module)


def from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under the file's names."""
    return {_PREFIX + key: value for key, value in adaptsegnet.from_saccade(tensors, module).items()}


def recognises(keys: Collection[str]) -> bool:
    """Whether these are the keys of that file."""
    return f"{_PREFIX}conv1.weight" in keys


KEY_MAP = KeyMap("deeplab_init", recognises, to_saccade, from_saccade)
