"""torchvision's names for ResNets (and all their kin, whose names timm shares), MobileNetV2, VGG and what comes from torchvision anyway.

Also those of pytorch_resnet_cifar10, which has torchvision's style with a last layer called `linear`. A backbone alone has the same names without the
classifier; what it lacks keeps its name, and must be named as `missing` when it is loaded.
"""
from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial

from torch import Tensor, nn

from saccade.layers.cifar_resnet import CifarResNet
from saccade.layers.deeplab_vgg import DeepLabVGG16
from saccade.models.classifier import ImageClassifier
from saccade.weights.key_map import KeyMap, Tensors
from saccade.weights.maps import timm

_VGG_LINEAR = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
# The members of timm's inverted residuals -> torchvision's places in `conv`, with and without expansion.
_EXPANDED = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}
_SEPARABLE = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
_MOBILENET_ENDS = {
    "conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": "features.18.0", "bn2": "features.18.1", "classifier": "classifier.1",
}
_MOBILENET_FIRST = (1, 2, 4, 7, 11, 14, 17)  # torchvision's number of the first block of each of timm's stages


def names(module: nn.Module) -> timm.NameTable:
    """Our keys -> torchvision's, for an `ImageClassifier` or a backbone; other networks keep timm's names."""
    if isinstance(module, DeepLabVGG16):
        return {key: _deeplab_vgg(key) for key in module.state_dict()}
    backbone = module.backbone if isinstance(module, ImageClassifier) else module
    table = timm.names(module)
    if isinstance(backbone, CifarResNet):
        return {ours: f"linear.{theirs[3:]}" if theirs.startswith("fc.") else theirs for ours, theirs in table.items()}
    family = str(getattr(backbone, "name", ""))
    if family.startswith("mobilenetv2_"):
        return {ours: _mobilenet(theirs) for ours, theirs in table.items()}
    if family.startswith("vgg"):
        return {ours: _vgg(theirs) for ours, theirs in table.items()}
    return table


def _mobilenet(name: str) -> str:
    block = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        layer, _, leaf = name.rpartition(".")
        return f"{_MOBILENET_ENDS.get(layer, layer)}.{leaf}"
    stage, number, member, leaf = block.groups()
    places = _SEPARABLE if stage == "0" else _EXPANDED
    return f"features.{_MOBILENET_FIRST[int(stage)] + int(number)}.conv.{places[member]}.{leaf}"


def _vgg(name: str) -> str:
    layer, _, leaf = name.rpartition(".")
    return f"{_VGG_LINEAR.get(layer, layer)}.{leaf}"


def _deeplab_vgg(name: str) -> str:
    """torchvision pools before the fifth block, DeepLab does not: from there on its numbers are one lower."""
    _, number, leaf = name.split(".")
    return f"features.{int(number) + 1}.{leaf}" if int(number) >= 23 else name


def from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under torchvision's names; VGG's hidden layers become linear ones again."""
    renamed = timm.from_saccade_by(names, tensors, module)
    return {key: value.flatten(1) if key.startswith("classifier.") and value.ndim == 4 else value for key, value in renamed.items()}


def recognises(keys: Collection[str]) -> bool:
    """Whether these look like a torchvision network, or one of timm's that has the same names."""
    residual = any(key.startswith(("layer1.0.", "stage2.0.")) for key in keys) and any(key.startswith("conv1.") for key in keys)
    return residual or any(re.match(r"features\.\d+\.(weight|\d+\.weight|conv\.)", key) for key in keys)


KEY_MAP = KeyMap("torchvision", recognises, partial(timm.to_saccade_by, names), from_saccade)
