"""Key names of ADVENT's networks (github.com/valeoai/ADVENT): AdaptSegNet's, but the main head is `layer6` also where it is the only one."""
from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from saccade.weights.key_map import KeyMap, Tensors
from saccade.weights.maps.adaptsegnet import MAIN, renamed, to_saccade


def from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under the original's names."""
    return renamed(tensors, module, MAIN)


def recognises(keys: Collection[str]) -> bool:
    """Whether these are the keys of a network of ADVENT with one head; those with two are AdaptSegNet's."""
    return f"{MAIN}.conv2d_list.0.weight" in keys


KEY_MAP = KeyMap("advent", recognises, to_saccade, from_saccade)
