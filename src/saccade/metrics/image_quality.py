"""How good the prediction of one image is, for picking the best and worst of an evaluation."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from saccade.metrics.panoptic import count_image, quality_table
from saccade.metrics.segmentation import class_figures, confusion_matrix
from saccade.structures import IGNORE, Annotations, Classification, Detections, Panoptic, Prediction, SegmentationMap


def image_quality(prediction: Prediction, target: Annotations) -> float | None:
    """0..1, higher is better; None where the image has no truth of the kind.

    Detections: F1 of those scored above .5 against the objects (crowds left out) at an overlap of .5, 1 where both are empty. Classification: the
    probability of the true class (the mean over the true classes where several hold). Panoptic maps: panoptic quality, label maps: IoU, each the mean
    over the classes that occur in the image.
    """
    if isinstance(prediction, Classification):
        return _of_classification(prediction.scores, target.label)
    if isinstance(prediction, Detections):
        return _of_detections(prediction.above(0.5), target)
    if isinstance(prediction, Panoptic):
        return _of_panoptic(prediction, target.panoptic)
    if isinstance(prediction, SegmentationMap):
        return _of_label_map(prediction.labels, target.segmentation)
    return None


def _of_label_map(found: Tensor, truth: Tensor | None) -> float | None:
    if truth is None:
        return None
    iou = class_figures(confusion_matrix(truth, found, IGNORE)).iou  # as many classes as there can be; those that do not occur are nan
    known = iou[~np.isnan(iou)]
    return float(known.mean()) if len(known) else None


def _of_panoptic(found: Panoptic, truth: Panoptic | None) -> float | None:
    if truth is None:
        return None
    counts = count_image(found, truth, "the image")
    table = quality_table([counts], 1 + int(counts.label.max(initial=-1)))
    return float(table.pq[table.occurs].mean()) if table.occurs.any() else 1.0


def _of_classification(scores: Tensor, label: int | Tensor | None) -> float | None:
    if label is None:
        return None
    if isinstance(label, Tensor) and label.numel() == len(scores):
        holds = label > 0
        return float(scores[holds.to(scores.device)].mean()) if holds.any() else None
    return float(scores[int(label)])


def _of_detections(found: Detections, target: Annotations) -> float | None:
    if target.boxes is None or target.labels is None:
        return None
    truth = target if target.crowd is None else target.select(~target.crowd)
    assert truth.boxes is not None and truth.labels is not None
    if not len(found) or not len(truth.labels):
        return float(len(found) == len(truth.labels))
    overlap = box_iou(found.boxes.cpu().double(), truth.boxes.cpu().as_subclass(Tensor).double())
    overlap[found.labels.cpu()[:, None] != truth.labels.cpu()[None]] = 0
    free = torch.ones(len(truth.labels), dtype=torch.bool)
    matched = 0
    for row in overlap[found.scores.cpu().argsort(descending=True, stable=True)]:  # greedy matching is sequential; above .5 there are few
        best = int((row * free).argmax())
        if row[best] >= 0.5 and free[best]:
            free[best], matched = False, matched + 1
    return 2 * matched / (len(found) + len(truth.labels))
