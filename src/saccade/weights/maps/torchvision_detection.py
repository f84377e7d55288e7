"""Names and layouts of torchvision's `fasterrcnn_resnet50_fpn` (version 1), image_models.md D5, D7; and of its files from before version 0.12.

Their background is the first class and has box deltas of its own, which nothing reads and nothing trains; ours is the last and has none. Released
weights have a logit for each COCO id up to 90. Left out: the second version's norms and convolutions, masks, keypoints, RetinaNet.
"""
from __future__ import annotations

import re
from collections.abc import Collection

import torch
from torch import Tensor, nn

from saccade.weights.key_map import KeyMap, Tensors, renamed

# Our names, without the prefix of the detector -> theirs.
_RENAMES = (
    (r"backbone\.body\.", r"backbone.body."),
    (r"neck\.lateral\.(\d+)\.", r"backbone.fpn.inner_blocks.\1.0."),
    (r"neck\.output\.(\d+)\.", r"backbone.fpn.layer_blocks.\1.0."),
    (r"rpn_head\.conv\.", r"rpn.head.conv.0.0."),
    (r"rpn_head\.logits\.", r"rpn.head.cls_logits."),
    (r"rpn_head\.deltas\.", r"rpn.head.bbox_pred."),
    (r"box_head\.hidden\.0\.", r"roi_heads.box_head.fc6."),
    (r"box_head\.hidden\.1\.", r"roi_heads.box_head.fc7."),
    (r"box_head\.logits\.", r"roi_heads.box_predictor.cls_score."),
    (r"box_head\.deltas\.", r"roi_heads.box_predictor.bbox_pred."),
)
_LOGITS, _DELTAS = "roi_heads.box_predictor.cls_score.", "roi_heads.box_predictor.bbox_pred."


def torchvision_name(key: str) -> str:
    """torchvision's name for a key of `FasterRCNN` or of its detector alone; other keys stay as they are."""
    return renamed(key, _RENAMES, "detector.")


def to_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under our names and in our order of classes; keys that torchvision's detector does not have keep theirs."""
    ours = {torchvision_name(key): key for key in module.state_dict()}
    counters = {key for key in tensors if key.endswith(".num_batches_tracked") and key not in ours}  # frozen norms have none
    present = {_recent(key): value for key, value in tensors.items() if key not in counters}
    return {ours.get(key, key): _background_last(key, value) for key, value in present.items()}


def from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under torchvision's names and in its order of classes; the background's deltas are zeros."""
    renamed = {torchvision_name(key): value for key, value in tensors.items()}
    return {key: _background_first(key, value) for key, value in renamed.items()}


def recognises(keys: Collection[str]) -> bool:
    """Whether these are the keys of a Faster R-CNN of torchvision, and of nothing with more heads."""
    return f"{_LOGITS}weight" in keys and "rpn.head.cls_logits.weight" in keys and not any(key.startswith("roi_heads.mask") for key in keys)


def _recent(key: str) -> str:
    """The present name of a key of older files."""
    key = re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", key)
    return re.sub(r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1", key)


def _background_last(key: str, value: Tensor) -> Tensor:
    if key.startswith(_LOGITS):
        return value.roll(-1, 0)
    return value[4:] if key.startswith(_DELTAS) else value


def _background_first(key: str, value: Tensor) -> Tensor:
    if key.startswith(_LOGITS):
        return value.roll(1, 0)
    return torch.cat([torch.zeros_like(value[:4]), value]) if key.startswith(_DELTAS) else value


KEY_MAP = KeyMap("torchvision_detection", recognises, to_saccade, from_saccade)
