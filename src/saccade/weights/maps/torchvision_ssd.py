"""Key names of torchvision's `ssd300_vgg16`.

Its network is that of `SSD(backbone=SSDVGG16())`, layer for layer: same grids, boxes a cell, order of channels and input statistics, so its logits
and offsets are ours. Its settings are others: the sizes of the COCO recipe (21, 45, 99, ... pixels), unused COCO ids among the classes (91 logits
with the background, hence 90 names), boxes clipped before suppression, at most 400 candidates a class and 200 detections. And it clips the sizes of
the priors but not their centres: the 114 priors of the last row and column of the 10 x 10 level lie 4 pixels further out than ours.
`ssdlite320_mobilenet_v3_large` has other taps and extra levels, so there is no map for it.
"""
from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor, nn

from saccade.weights.key_map import KeyMap, Tensors

_HEADS = {"class_heads": "classification_head", "box_heads": "regression_head"}
_CONV5_TO_FC7 = {24: "0.1", 26: "0.3", 28: "0.5", 31: "0.7.1", 33: "0.7.3"}  # layer of `features` -> place in their `extra`


def torchvision_name(key: str) -> str:
    """torchvision's name for one of our keys."""
    heads = re.fullmatch(r"(class_heads|box_heads)\.(\d+\.\w+)", key)
    if heads is not None:
        return f"head.{_HEADS[heads[1]]}.module_list.{heads[2]}"
    if key == "backbone.l2_norm.weight":
        return "backbone.scale_weight"
    layer = re.fullmatch(r"backbone\.features\.(\d+)\.(\w+)", key)
    if layer is not None and int(layer[1]) in _CONV5_TO_FC7:
        return f"backbone.extra.{_CONV5_TO_FC7[int(layer[1])]}.{layer[2]}"
    extra = re.fullmatch(r"backbone\.extras\.(\d+)\.(\d\.\w+)", key)
    return key if extra is None else f"backbone.extra.{int(extra[1]) + 1}.{extra[2]}"


def to_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under our names; keys that torchvision does not have keep theirs."""
    ours = {torchvision_name(key): key for key in module.state_dict()}
    return {ours.get(key, key): value for key, value in tensors.items()}


def from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under torchvision's names."""
    return {torchvision_name(key): value for key, value in tensors.items()}


def recognises(keys: Collection[str]) -> bool:
    """Whether these are the keys of `ssd300_vgg16`."""
    return "backbone.scale_weight" in keys


KEY_MAP = KeyMap("torchvision_ssd", recognises, to_saccade, from_saccade)
