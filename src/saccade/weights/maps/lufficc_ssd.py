"""Key names of lufficc/SSD (v1.2.0) for all its SSD models, and of the ImageNet files that its backbones start from.

The table is made from the module at hand: for each of our keys, the original's name. So both directions are the same table. Applied to a backbone
alone, the names are those of its ImageNet file: `vgg16_reducedfc.pth` (numbers only), MobileNetV2 and V3 (`features.*`), EfficientNet (`_blocks.*`).
"""
from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor, nn

from saccade.models.ssd import SSD
from saccade.models.ssd_backbones.efficientnet import SSDEfficientNetB3
from saccade.models.ssd_backbones.mobilenet_v3 import SSDMobileNetV3
from saccade.models.ssd_backbones.vgg import SSDVGG16
from saccade.weights.key_map import KeyMap, Tensors

_HEADS = {"class_heads": "cls_headers", "box_heads": "reg_headers"}
# timm's names within a block of EfficientNet -> the original's, for blocks with and without expansion.
_EXPANDED = {
    "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1", "se.conv_reduce": "_se_reduce",
    "se.conv_expand": "_se_expand", "conv_pwl": "_project_conv", "bn3": "_bn2",
}
_PLAIN = {
    "conv_dw": "_depthwise_conv", "bn1": "_bn1", "se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand",
    "conv_pw": "_project_conv", "bn2": "_bn2",
}


def names(module: nn.Module) -> dict[str, str]:
    """Our keys -> the original's, for an `SSD` or one of its backbones; keys of other modules keep their names."""
    if not isinstance(module, SSD):
        return _backbone_names(module)
    table = {f"backbone.{ours}": f"backbone.{theirs}" for ours, theirs in _backbone_names(module.backbone, inside=True).items()}
    return table | {key: _head_name(key) for key in module.state_dict() if key not in table}


def to_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under our names; keys that the original does not have keep theirs."""
    ours = {theirs: ours for ours, theirs in names(module).items()}
    return {ours.get(key, key): value for key, value in tensors.items()}


def from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under the original's names."""
    theirs = names(module)
    return {theirs.get(key, key): value for key, value in tensors.items()}


def recognises(keys: Collection[str]) -> bool:
    """Whether these are the keys of a whole lufficc/SSD model."""
    return any(key.startswith("box_head.predictor.cls_headers.") for key in keys)


def _head_name(key: str) -> str:
    heads, level, rest = key.split(".", 2)
    separable = ".conv" if rest[0].isdigit() else ""
    return f"box_head.predictor.{_HEADS[heads]}.{level}{separable}.{rest}"


def _backbone_names(backbone: nn.Module, inside: bool = False) -> dict[str, str]:
    keys = list(backbone.state_dict())
    if isinstance(backbone, SSDVGG16):
        return {key: _vgg_name(key, "vgg." if inside else "") for key in keys}
    if isinstance(backbone, SSDMobileNetV3):
        return {key: _mobilenet_v3_name(key, backbone) for key in keys}
    if isinstance(backbone, SSDEfficientNetB3):
        first = _first_blocks(backbone)
        return {key: _efficientnet_name(key, first) for key in keys}
    return {key: key for key in keys}  # MobileNetV2 has torchvision's names on both sides


def _vgg_name(key: str, prefix: str) -> str:
    extra = re.fullmatch(r"extras\.(\d+)\.(0|2)\.(weight|bias)", key)
    if extra is not None:  # their extras are one flat list of convolutions
        return f"extras.{2 * int(extra[1]) + int(extra[2]) // 2}.{extra[3]}"
    return prefix + key.removeprefix("features.") if key.startswith("features.") else key


def _mobilenet_v3_name(key: str, backbone: SSDMobileNetV3) -> str:
    parts = re.fullmatch(r"((?:features|extras)\.\d+)\.(expand|depthwise|squeeze|project)\.(\w+)\.(\w+)", key)
    if parts is None:
        return key
    block, layer, inner, leaf = parts.groups()
    expands = not isinstance(backbone.get_submodule(block).expand, nn.Identity)
    if layer == "squeeze":
        return f"{block}.conv.{5 if expands else 3}.fc.{0 if inner == 'reduce' else 2}.{leaf}"
    offset = {"expand": 0, "depthwise": 3 if expands else 0, "project": 7 if expands else 4}[layer]
    return f"{block}.conv.{offset + int(inner)}.{leaf}"


def _first_blocks(backbone: SSDEfficientNetB3) -> list[int]:
    """The number of the first block of every stage, counted through all stages."""
    lengths = [len(stage) for stage in backbone.trunk.body.blocks]
    return [sum(lengths[:stage]) for stage in range(len(lengths))]


def _efficientnet_name(key: str, first: list[int]) -> str:
    key = key.removeprefix("trunk.body.")
    if key.startswith("conv_stem."):
        return f"_{key}"
    if key.startswith("bn1."):
        return f"_bn0.{key.removeprefix('bn1.')}"
    parts = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)\.(\w+)", key)
    if parts is None:
        return key
    stage, block, layer, leaf = parts.groups()
    inner = (_PLAIN if stage == "0" else _EXPANDED)[layer]
    return f"_blocks.{first[int(stage)] + int(block)}.{inner}.{leaf}"


KEY_MAP = KeyMap("lufficc_ssd", recognises, to_saccade, from_saccade)
