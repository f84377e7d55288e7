"""Key names of facebookresearch/detr (github.com/facebookresearch/detr), detection and panoptic; spec detr_family.md 2.1 and 2.2.

Models with a mask head keep their detector under `detr.` there; learned position codes are the second part of the backbone.
"""
from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from saccade.weights.key_map import KeyMap, Tensors

_OWN = ("mask_head.", "bbox_attention.")


def to_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under our names."""
    return {_ours(key): value for key, value in tensors.items()}


def from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under the original's names."""
    prefix = "detr." if any(key.startswith(_OWN) for key in tensors) else ""
    return {key if key.startswith(_OWN) else prefix + _theirs(key): value for key, value in tensors.items()}


def recognises(keys: Collection[str]) -> bool:
    """Whether these are the keys of a DETR: its query embeddings and the first part of its backbone."""
    return any(key.endswith("query_embed.weight") for key in keys) and any(key.removeprefix("detr.").startswith("backbone.0.body.") for key in keys)


def _ours(key: str) -> str:
    key = key.removeprefix("detr.")
    if key.startswith("backbone.1."):
        return "positions." + key.removeprefix("backbone.1.")
    if key.startswith("backbone.0."):
        return "backbone." + key.removeprefix("backbone.0.")
    return key.replace(".multihead_attn.", ".cross_attn.")


def _theirs(key: str) -> str:
    if key.startswith("positions."):
        return "backbone.1." + key.removeprefix("positions.")
    if key.startswith("backbone."):
        return "backbone.0." + key.removeprefix("backbone.")
    return key.replace(".cross_attn.", ".multihead_attn.")


KEY_MAP = KeyMap("detr", recognises, to_saccade, from_saccade)
