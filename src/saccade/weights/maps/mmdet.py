"""Names of mmdetection's Faster R-CNN on a ResNet (versions 2 and 3), `image_models.md` D5: `backbone`, `neck`, `rpn_head`, `roi_head.bbox_head`.

Layouts are ours: background last, boxes class by class, features flattened channel by channel. Left out: other heads (masks, cascades, RetinaNet)
and other backbones; files of version 1, whose class layers have the background first.
"""
from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from saccade.weights.key_map import KeyMap, Tensors, renamed

# Our names, without the prefix of the detector -> theirs.
_RENAMES = (
    (r"backbone\.body\.", r"backbone."),
    (r"neck\.lateral\.(\d+)\.", r"neck.lateral_convs.\1.conv."),
    (r"neck\.output\.(\d+)\.", r"neck.fpn_convs.\1.conv."),
    (r"rpn_head\.conv\.", r"rpn_head.rpn_conv."),
    (r"rpn_head\.logits\.", r"rpn_head.rpn_cls."),
    (r"rpn_head\.deltas\.", r"rpn_head.rpn_reg."),
    (r"box_head\.hidden\.(\d+)\.", r"roi_head.bbox_head.shared_fcs.\1."),
    (r"box_head\.logits\.", r"roi_head.bbox_head.fc_cls."),
    (r"box_head\.deltas\.", r"roi_head.bbox_head.fc_reg."),
)


def mmdet_name(key: str) -> str:
    """mmdetection's name for a key of `FasterRCNN` or of its detector alone; other keys stay as they are."""
    return renamed(key, _RENAMES, "detector.")


def to_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under our names; keys that mmdetection's detector does not have keep theirs."""
    ours = {mmdet_name(key): key for key in module.state_dict()}
    counters = {key for key in tensors if key.endswith(".num_batches_tracked") and key not in ours}  # frozen norms have none
    return {ours.get(key, key): value for key, value in tensors.items() if key not in counters}


def from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under mmdetection's names."""
    return {mmdet_name(key): value for key, value in tensors.items()}


def recognises(keys: Collection[str]) -> bool:
    """Whether these are the keys of a two-stage detector of mmdetection, and of no tracker around one."""
    return "rpn_head.rpn_conv.weight" in keys and any(key.startswith("roi_head.bbox_head.") for key in keys)


KEY_MAP = KeyMap("mmdet", recognises, to_saccade, from_saccade)
