"""VOC average precision, by area and by eleven points (Everingham et al., The PASCAL VOC Challenge, 2010).

Matching: a detection belongs to the true object of its class that it overlaps most; below the threshold it is a false positive, on a `difficult`
object it counts neither way, and only the best-scored detection of an object is a true positive. Area: under the precision envelope; eleven points:
mean of the best precision at recall 0, .1 to 1 or more (the figure of VOC2007). Leaves out the devkit's confidence intervals.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from saccade.metrics.detection_state import DetectionRecord, DetectionState
from saccade.structures import Annotations, Meta, Prediction

_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Curve:
    """One class at one threshold: precision and recall after each counted or ignored detection, best first; recall is None without true objects."""

    precision: np.ndarray
    recall: np.ndarray | None

    def area(self) -> float:
        """Area under the precision envelope, nan without true objects."""
        if self.recall is None:
            return float("nan")
        recall = np.concatenate([[0.0], self.recall, [1.0]])
        envelope = np.maximum.accumulate(np.concatenate([[0.0], self.precision, [0.0]])[::-1])[::-1]
        return float(np.sum(np.diff(recall) * envelope[1:]))

    def eleven_points(self) -> float:
        """Mean of the best precision at recalls of at least 0, .1 … 1, nan without true objects."""
        if self.recall is None:
            return float("nan")
        return float(self.best_precision(np.arange(0.0, 1.1, 0.1)).mean())

    def best_precision(self, recalls: np.ndarray) -> np.ndarray:
        """The best precision at each of `recalls` or more, 0 where it is never reached."""
        envelope = np.concatenate([np.maximum.accumulate(self.precision[::-1])[::-1], [0.0]])
        return envelope[np.searchsorted(self.recall if self.recall is not None else np.zeros(0), recalls)]


class VocDetection:
    """The figures `voc/mAP` (area) and `voc/mAP07` (eleven points), 0..1, at the first of `iou_thresholds`; at further ones `voc/mAP@0.7` and so on.

    The mean runs over the classes that have true objects which are not difficult; without any it is nan. `pixel_inclusive` adds 1 to x2 and y2 of all
    boxes before they are compared, as the devkit and lufficc/SSD do with their whole-pixel corners; saccade's boxes are half-open and need it only
    where a model was trained on boxes that were not converted. Crowd objects count as difficult ones.
    """

    def __init__(self, *, classes: Sequence[str], iou_thresholds: Sequence[float] = (0.5,), pixel_inclusive: bool = False) -> None:
        if not iou_thresholds:
            raise ValueError("iou_thresholds is empty; name at least one, such as 0.5")
        self.classes, self.iou_thresholds, self.pixel_inclusive = tuple(classes), tuple(iou_thresholds), pixel_inclusive
        self._state = DetectionState(len(self.classes), keep_masks=False)

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Annotations], metas: Sequence[Meta]) -> None:
        """Adds images; all boxes in original pixels. Errors as of `DetectionState.update`."""
        self._state.update(predictions, targets, metas)

    def merge(self, other: Self) -> None:
        """Adds another process's images."""
        self._state.merge(other._state)

    def reset(self) -> None:
        """Forgets everything."""
        self._state.reset()

    def curves(self) -> dict[float, list[Curve]]:
        """The curve of every class by IoU threshold."""
        matches = _match(self._state.ordered(), 1.0 if self.pixel_inclusive else 0.0)
        return {threshold: _curves(matches, threshold, len(self.classes)) for threshold in self.iou_thresholds}

    def compute(self) -> dict[str, float]:
        """The figures by name."""
        figures = {}
        for threshold, curves in self.curves().items():
            suffix = "" if threshold == self.iou_thresholds[0] else f"@{threshold:g}"
            figures[f"voc/mAP{suffix}"] = _mean([curve.area() for curve in curves])
            figures[f"voc/mAP07{suffix}"] = _mean([curve.eleven_points() for curve in curves])
        return figures

    def details(self) -> dict[str, Any]:
        """`{"voc": {"per_class": columns, "pr_curves": …, "convention": text}}` with plain lists; None where a class has no true objects.

        `per_class`: `classes`, `objects` (not difficult), `AP`, `AP07` (with `@0.7` for further thresholds). `pr_curves`: `recall` (101), `classes`,
        `precision`: by IoU threshold one row of 101 values a class, the envelope as COCO draws it.
        """
        labels = [r.true_labels[~(r.difficult | r.crowd)] for r in self._state.ordered()]
        objects = np.bincount(np.concatenate(labels).astype(int) if labels else np.zeros(0, int), minlength=len(self.classes)).tolist()
        columns: dict[str, list[Any]] = {"classes": list(self.classes), "objects": objects}
        curves = self.curves()
        for threshold, of_threshold in curves.items():
            suffix = "" if threshold == self.iou_thresholds[0] else f"@{threshold:g}"
            columns[f"AP{suffix}"] = [_known(curve.area()) for curve in of_threshold]
            columns[f"AP07{suffix}"] = [_known(curve.eleven_points()) for curve in of_threshold]
        drawn = {f"{threshold:g}": [_drawn(curve) for curve in of_threshold] for threshold, of_threshold in curves.items()}
        convention = "1 added to x2 and y2 before boxes are compared" if self.pixel_inclusive else "half-open boxes, nothing added to x2 and y2"
        pr_curves = {"recall": _RECALLS.tolist(), "classes": list(self.classes), "precision": drawn}
        return {"voc": {"per_class": columns, "pr_curves": pr_curves, "convention": convention}}


@dataclass(frozen=True)
class Matches:
    """Detections of all images: score, label, overlap with their best true object and its index (-1: none); the objects' labels and exempt flags."""

    score: np.ndarray
    label: np.ndarray
    overlap: np.ndarray
    best: np.ndarray
    true_label: np.ndarray
    exempt: np.ndarray


def _match(records: Sequence[DetectionRecord], pixel: float) -> Matches:
    starts = np.concatenate([[0], np.cumsum([len(r.true_labels) for r in records])]).astype(int)
    overlaps, best = [], []
    for record, start in zip(records, starts[:-1], strict=True):  # images; objects of one are compared at once
        table = np.where(record.labels[:, None] == record.true_labels[None], _overlaps(record.boxes, record.true_boxes, pixel), -1.0)
        if table.shape[1]:
            index = table.argmax(1)
            overlaps.append(table[np.arange(len(table)), index])
            best.append(np.where(overlaps[-1] >= 0, index + start, -1))
        else:
            overlaps.append(np.full(len(table), -1.0))
            best.append(np.full(len(table), -1))
    return Matches(
        score=_joined([r.scores for r in records]).astype(np.float64),
        label=_joined([r.labels for r in records]).astype(np.int64),
        overlap=_joined(overlaps),
        best=_joined(best).astype(np.int64),
        true_label=_joined([r.true_labels for r in records]).astype(np.int64),
        exempt=_joined([r.difficult | r.crowd for r in records]).astype(bool),
    )


def _overlaps(found: np.ndarray, truth: np.ndarray, pixel: float) -> np.ndarray:
    """Intersection over union (n, m) of boxes (n, 4) and (m, 4), `pixel` added to the lower right corners."""
    a, b = found.astype(np.float64), truth.astype(np.float64)
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) + pixel - np.maximum(a[:, None, :2], b[None, :, :2])
    inside = np.where((size > 0).all(2), size.prod(2), 0.0)
    union = (a[:, 2:] - a[:, :2] + pixel).prod(1)[:, None] + (b[:, 2:] - b[:, :2] + pixel).prod(1)[None] - inside
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def _curves(matches: Matches, threshold: float, num_classes: int) -> list[Curve]:
    order = np.argsort(-matches.score, kind="stable")
    label = matches.label[order]
    hit = np.where(matches.overlap[order] >= threshold, matches.best[order], -1)
    first = np.zeros(len(hit), dtype=bool)
    objects, positions = np.unique(hit, return_index=True)
    first[positions[objects >= 0]] = True
    exempt = np.zeros(len(hit), dtype=bool)
    exempt[hit >= 0] = matches.exempt[hit[hit >= 0]]
    right, wrong = first & ~exempt, ~first & ~exempt
    counted = np.bincount(matches.true_label[~matches.exempt], minlength=num_classes)
    curves = []
    for k in range(num_classes):
        of_class = label == k
        true_positives, false_positives = np.cumsum(right[of_class]), np.cumsum(wrong[of_class])
        total = true_positives + false_positives
        precision = np.divide(true_positives, total, out=np.zeros(len(total)), where=total > 0)
        curves.append(Curve(precision, true_positives / counted[k] if counted[k] else None))
    return curves


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0)


def _mean(values: list[float]) -> float:
    defined = [value for value in values if value == value]
    return float(np.mean(defined)) if defined else float("nan")


def _known(value: float) -> float | None:
    return None if value != value else value


def _drawn(curve: Curve) -> list[float] | None:
    return None if curve.recall is None else curve.best_precision(_RECALLS).tolist()
