"""What a detection metric keeps of each image: compact arrays, from which the figures are computed at the end."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor
from torchvision.ops import masks_to_boxes

from saccade.errors import NumericError
from saccade.metrics.images import ImageKey, check_labels, check_lengths, check_objects, in_order, key_of, named
from saccade.structures import Annotations, Detections, Meta, Prediction

RunLengths = list[dict[str, Any]]  # COCO's {"size": [H, W], "counts": bytes}, one an object


@dataclass(frozen=True)
class DetectionRecord:
    """One image: found boxes (n, 4), scores (n,), labels (n,); true boxes (m, 4), labels (m,), flags (m,), areas (m,) or None; masks as run lengths.

    `name` is the image's name for messages. Boxes are (x1, y1, x2, y2) in original pixels, in the dtype they came in (float64 stays float64).
    """

    name: str
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    true_boxes: np.ndarray
    true_labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    areas: np.ndarray | None
    masks: RunLengths | None
    true_masks: RunLengths | None


class DetectionState:
    """The records of a data set by image; the part that all detection metrics share. An image that comes twice counts once."""

    def __init__(self, num_classes: int, keep_masks: bool) -> None:
        self.num_classes, self.keep_masks = num_classes, keep_masks
        self.records: dict[ImageKey, DetectionRecord] = {}

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Annotations], metas: Sequence[Meta]) -> None:
        """Adds images; raises NumericError for scores or boxes that are not finite, DataError for truth without objects or labels."""
        check_lengths(len(predictions), len(targets), len(metas))
        for prediction, target, meta in zip(predictions, targets, metas, strict=True):
            if not isinstance(prediction, Detections):
                raise TypeError(f"a detection metric takes Detections, not {type(prediction).__name__}")
            key = key_of(meta)
            if key not in self.records:
                check_objects(target, meta)
                self.records[key] = _record(prediction, target, meta, self.keep_masks)
                check_labels(self.records[key].labels, self.num_classes, meta, "prediction")
                check_labels(self.records[key].true_labels, self.num_classes, meta, "truth")

    def merge(self, other: Self) -> None:
        """Adds the images of another process that are not here yet."""
        self.records = other.records | self.records

    def ordered(self) -> list[DetectionRecord]:
        """The records in an order that does not depend on how they came."""
        return [self.records[key] for key in in_order(self.records)]

    def reset(self) -> None:
        """Forgets all images."""
        self.records = {}


def _record(found: Detections, truth: Annotations, meta: Meta, keep_masks: bool) -> DetectionRecord:
    boxes, scores = _array(found.boxes), _array(found.scores)
    if not np.isfinite(scores).all() or not np.isfinite(boxes).all():
        what = "scores" if not np.isfinite(scores).all() else "boxes"
        raise NumericError(f"The detections of {named(meta)} have non-finite {what}; no figure can be computed. Look at the model's outputs.")
    assert truth.labels is not None
    count = len(truth.labels)
    true_boxes = truth.boxes if truth.boxes is not None else _boxes_around(truth.masks)
    none = np.zeros(count, dtype=bool)
    return DetectionRecord(
        name=named(meta),
        boxes=boxes,
        scores=scores,
        labels=_array(found.labels),
        true_boxes=_array(true_boxes).reshape(-1, 4),
        true_labels=_array(truth.labels),
        crowd=none if truth.crowd is None else _array(truth.crowd).astype(bool),
        difficult=none if truth.difficult is None else _array(truth.difficult).astype(bool),
        areas=None if truth.areas is None else _array(truth.areas),
        masks=run_lengths(found.masks) if keep_masks and found.masks is not None else None,
        true_masks=run_lengths(truth.masks) if keep_masks and truth.masks is not None else None,
    )


def _array(tensor: Tensor) -> np.ndarray:
    value = tensor.detach().cpu()
    return value.float().numpy() if value.dtype.is_floating_point and value.dtype.itemsize < 4 else value.numpy()


def _boxes_around(masks: Tensor | None) -> Tensor:
    assert masks is not None
    filled = masks.flatten(1).any(1)
    boxes = masks.new_zeros((len(masks), 4)).float()
    if filled.any():  # torchvision's rule is inclusive and refuses empty masks
        boxes[filled] = masks_to_boxes(masks[filled]) + boxes.new_tensor([0, 0, 1, 1])
    return boxes


def run_lengths(masks: Tensor) -> RunLengths:
    """Masks (n, H, W) as COCO's compressed run lengths."""
    from faster_coco_eval.core.mask import encode

    if len(masks) == 0:
        return []
    return encode(np.asfortranarray(masks.detach().cpu().numpy().astype(np.uint8).transpose(1, 2, 0)))
