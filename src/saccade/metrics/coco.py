"""COCO average precision and recall for boxes and masks: the twelve figures of Lin et al., Microsoft COCO (2014).

Equal to pycocotools; -1 means that there was nothing to find. The evaluation itself is in `coco_evaluation`. Leaves out keypoints, LVIS's rules and
panoptic quality.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np

from saccade.errors import DataError
from saccade.metrics.coco_evaluation import MAX_DETECTIONS, RECALLS, Objects, Tables, evaluate
from saccade.metrics.detection_state import DetectionRecord, DetectionState, RunLengths
from saccade.structures import Annotations, Meta, Prediction

Kind = Literal["bbox", "segm"]


class CocoDetection:
    """The figures `coco/AP`, `AP50`, `AP75`, `APs`, `APm`, `APl`, `AR1`, `AR10`, `AR100`, `ARs`, `ARm`, `ARl`, each 0..1 or -1; the same under
    `coco/segm/` where predictions and truth have masks.

    `class_agnostic` ignores the labels (COCO's useCats = 0): a detection may match any object. Crowd objects are ignored as COCO does. The areas of
    the annotations decide about small, medium and large; those of the boxes (masks) where there are none. COCO has no `difficult` objects: such
    ones count as any other.
    """

    def __init__(self, *, classes: Sequence[str], class_agnostic: bool = False) -> None:
        self.classes, self.class_agnostic = tuple(classes), class_agnostic
        self._state = DetectionState(len(self.classes), keep_masks=True)
        self._tables: dict[Kind, Tables] | None = None

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Annotations], metas: Sequence[Meta]) -> None:
        """Adds images; all boxes in original pixels. Errors as of `DetectionState.update`."""
        self._state.update(predictions, targets, metas)
        self._tables = None

    def merge(self, other: Self) -> None:
        """Adds another process's images."""
        self._state.merge(other._state)
        self._tables = None

    def reset(self) -> None:
        """Forgets everything."""
        self._state.reset()
        self._tables = None

    def tables(self) -> dict[Kind, Tables]:
        """The precision, recall and score tables of boxes ("bbox") and, where there are masks, of masks ("segm"); kept until the next update."""
        if self._tables is None:
            records = self._state.ordered()
            kinds: list[Kind] = ["bbox", "segm"] if _has_masks(records) else ["bbox"]
            categories = 1 if self.class_agnostic else len(self.classes)
            self._tables = {kind: evaluate(*self._objects(records, kind), categories, kind) for kind in kinds}
        return self._tables

    def compute(self) -> dict[str, float]:
        """The figures by name."""
        figures: dict[str, float] = {}
        for kind, tables in self.tables().items():
            prefix = "coco/" if kind == "bbox" else "coco/segm/"
            figures |= {prefix + name: value for name, value in summarise(tables).items()}
        return figures

    def details(self) -> dict[str, Any]:
        """`{"coco": {"per_class": columns, "pr_curves": …}, "coco/segm": …}` with plain lists; None where nothing is to be found.

        `per_class`: `classes`, `objects` (true objects that are no crowds) and the twelve figures, one value a class. `pr_curves`: `recall` (101),
        `classes`, `precision`: for the IoU thresholds "0.5", "0.75" and "0.5:0.95" (the mean) one row of 101 values a class.
        """
        records = self._state.ordered()
        labels = np.concatenate([r.true_labels[~r.crowd] for r in records]) if records else np.zeros(0, int)
        classes = ["any"] if self.class_agnostic else list(self.classes)
        objects = [len(labels)] if self.class_agnostic else np.bincount(labels.astype(int), minlength=len(classes)).tolist()
        result = {}
        for kind, tables in self.tables().items():
            rows = [summarise(_one_class(tables, k)) for k in range(len(classes))]
            figures = {name: [_known(row[name]) for row in rows] for name in (rows[0] if rows else ())}
            precision = tables.precision[:, :, :, 0, -1]
            chosen = {"0.5": precision[0], "0.75": precision[5], "0.5:0.95": precision.mean(0)}
            curves = {name: [None if row[0] < 0 else row.tolist() for row in table.T] for name, table in chosen.items()}
            result["coco" if kind == "bbox" else "coco/segm"] = {
                "per_class": {"classes": classes, "objects": objects, **figures},
                "pr_curves": {"recall": RECALLS.tolist(), "classes": classes, "precision": curves},
            }
        return result

    def _objects(self, records: Sequence[DetectionRecord], kind: Kind) -> tuple[Objects, Objects]:
        found = _flat(records, "boxes", "labels", "masks", kind)
        found.score = _joined([r.scores for r in records]).astype(np.float64)
        truth = _flat(records, "true_boxes", "true_labels", "true_masks", kind)
        truth.crowd = _joined([r.crowd for r in records]).astype(bool)
        known = _joined([np.full(len(r.true_labels), np.nan) if r.areas is None else r.areas for r in records]).astype(np.float64)
        truth.area = np.where(np.isnan(known), truth.area, known)
        if self.class_agnostic:  # pycocotools goes through an image category by category, which decides ties
            found, truth = (o.take(np.lexsort((o.category, o.image))) for o in (found, truth))
            found.category, truth.category = np.zeros_like(found.category), np.zeros_like(truth.category)
        return found, truth


def summarise(tables: Tables) -> dict[str, float]:
    """COCO's twelve figures from the tables."""
    precision, recall = tables.precision, tables.recall
    areas = {"s": 1, "m": 2, "l": 3}
    return {
        "AP": _mean(precision[:, :, :, 0, -1]),
        "AP50": _mean(precision[0, :, :, 0, -1]),
        "AP75": _mean(precision[5, :, :, 0, -1]),
        **{f"AP{name}": _mean(precision[:, :, :, area, -1]) for name, area in areas.items()},
        **{f"AR{count}": _mean(recall[:, :, 0, m]) for m, count in enumerate(MAX_DETECTIONS)},
        **{f"AR{name}": _mean(recall[:, :, area, -1]) for name, area in areas.items()},
    }


def _mean(table: np.ndarray) -> float:
    defined = table[table > -1]
    return float(defined.mean()) if len(defined) else -1.0


def _known(value: float) -> float | None:
    return None if value < 0 else value


def _one_class(tables: Tables, k: int) -> Tables:
    return Tables(tables.precision[:, :, k : k + 1], tables.recall[:, k : k + 1], tables.scores[:, :, k : k + 1])


def _has_masks(records: Sequence[DetectionRecord]) -> bool:
    return any(r.masks is not None for r in records) and any(r.true_masks is not None for r in records)


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0)


def _flat(records: Sequence[DetectionRecord], boxes: str, labels: str, masks: str, kind: Kind) -> Objects:
    corners = _joined([getattr(r, boxes) for r in records]).astype(np.float64).reshape(-1, 4)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    category = _joined([getattr(r, labels) for r in records]).astype(np.int64)
    image = np.repeat(np.arange(len(records)), [len(getattr(r, labels)) for r in records])
    area = sides[:, 2] * sides[:, 3]
    runs: RunLengths | None = None
    if kind == "segm":
        from faster_coco_eval.core.mask import area as mask_area

        runs = []
        for record in records:
            of_image = getattr(record, masks)
            if of_image is None and len(getattr(record, labels)):
                whose = "truth" if masks == "true_masks" else "prediction"
                raise DataError(f"The {whose} of {record.name} has objects without masks, others have masks; such a mixture cannot be judged.")
            runs += of_image or []
        area = np.asarray(mask_area(runs), dtype=np.float64) if runs else np.zeros(0)
    zeros = np.zeros(len(category))
    return Objects(image, category, area, zeros, zeros.astype(bool), sides, runs)
