"""Figures of image classification, one label an image: top-k accuracy, mean class accuracy, precision, recall, F1, support, confusion matrix.

Definitions of mmclassification 0.x (`mmcls/core/evaluation/eval_metrics.py`), as fractions 0..1. Each image leaves five numbers (its label, the rank
and score of that label, the best class and its score), from which every figure at every threshold follows. Leaves out per-class thresholds.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from saccade.errors import DataError, NumericError
from saccade.metrics.images import ImageKey, check_lengths, in_order, key_of, named
from saccade.structures import Annotations, Classification, Meta, Prediction

_EPSILON = float(np.finfo(np.float32).eps)
_MOST_MATRIX_CLASSES = 1000


@dataclass(frozen=True)
class Outcomes:
    """All images, n rows: true label, its rank among the scores (0 = best; equal scores by class index) and score, best class and its score."""

    label: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    best: np.ndarray
    best_score: np.ndarray


@dataclass(frozen=True)
class ClassTable:
    """One value a class: precision, recall, F1 in 0..1 (0 where undefined) and support, the number of its images."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


class ClassificationAccuracy:
    """The figures `classification/top1`, `top5` (the `topk`), `mean_class_accuracy`, `precision`, `recall`, `f1` (means over the classes), all 0..1.

    A k above the number of classes means all of them; the name stays. A prediction counts only where its score is above the threshold (None: always);
    the first of `thresholds` gives the plain names, further ones add `@0.5`. Mean class accuracy runs over the classes that occur, the macro means
    over all classes, absent ones as 0.
    """

    def __init__(self, *, classes: Sequence[str], topk: Sequence[int] = (1, 5), thresholds: Sequence[float | None] = (0.0,)) -> None:
        if not topk or min(topk) < 1 or not thresholds:
            raise ValueError(f"topk needs numbers of at least 1 and thresholds at least one entry; got {topk} and {thresholds}")
        self.classes, self.topk, self.thresholds = tuple(classes), tuple(topk), tuple(thresholds)
        self._rows: dict[ImageKey, tuple[float, ...]] = {}

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Annotations], metas: Sequence[Meta]) -> None:
        """Adds images; raises DataError for a missing, soft or unknown label, NumericError for scores that are not finite."""
        check_lengths(len(predictions), len(targets), len(metas))
        if not predictions:
            return
        labels = torch.tensor([self._label(t, m) for t, m in zip(targets, metas, strict=True)])
        scores = stacked_scores(predictions, len(self.classes), metas)
        true = scores.gather(1, labels[:, None])
        earlier = torch.arange(scores.shape[1])[None] < labels[:, None]
        rank = ((scores > true) | ((scores == true) & earlier)).sum(1)
        best = torch.from_numpy(scores.numpy().argmax(1))  # numpy's rule for ties is the first class; torch gives none
        columns = (labels, rank, true[:, 0], best, scores.gather(1, best[:, None])[:, 0])
        for meta, *row in zip(metas, *(c.tolist() for c in columns), strict=True):
            self._rows.setdefault(key_of(meta), tuple(row))

    def _label(self, target: Annotations, meta: Meta) -> int:
        if target.label is None:
            raise DataError(f"The truth of {named(meta)} has no label, so classification cannot be judged on it.")
        if isinstance(target.label, Tensor) and target.label.numel() != 1:
            raise DataError(f"The label of {named(meta)} is soft or several; evaluate it with MultiLabelClassification.")
        label = int(target.label)
        if not 0 <= label < len(self.classes):
            raise DataError(f"The label of {named(meta)} is {label}, outside the metric's {len(self.classes)} classes (0..{len(self.classes) - 1}).")
        return label

    def merge(self, other: Self) -> None:
        """Adds another process's images that are not here yet."""
        self._rows = other._rows | self._rows

    def reset(self) -> None:
        """Forgets everything."""
        self._rows = {}

    def outcomes(self) -> Outcomes:
        """What is kept of the images."""
        table = np.array([self._rows[key] for key in in_order(self._rows)], dtype=np.float64).reshape(-1, 5)
        return Outcomes(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3].astype(int), table[:, 4])

    def accuracy(self, k: int, threshold: float | None = 0.0) -> float:
        """Share of the images whose label is among the `k` best and scored above `threshold`; nan without images."""
        images = self.outcomes()
        return float(((images.rank < k) & _above(images.score, threshold)).mean()) if len(images.rank) else float("nan")

    def class_table(self, threshold: float | None = 0.0) -> ClassTable:
        """Precision, recall, F1 and support of every class; a best class scored at or below `threshold` is no prediction."""
        images, count = self.outcomes(), len(self.classes)
        counted = _above(images.best_score, threshold)
        predicted = np.bincount(images.best[counted], minlength=count)
        support = np.bincount(images.label, minlength=count)
        right = np.bincount(images.label[counted & (images.best == images.label)], minlength=count)
        precision, recall = right / np.maximum(predicted, 1), right / np.maximum(support, 1)
        return ClassTable(precision, recall, 2 * precision * recall / np.maximum(precision + recall, _EPSILON / 100), support)

    def confusion(self) -> np.ndarray:
        """(K, K) counts: rows are true labels, columns the best classes."""
        images, count = self.outcomes(), len(self.classes)
        return np.bincount(images.label * count + images.best, minlength=count * count).reshape(count, count)

    def compute(self) -> dict[str, float]:
        """The figures by name; nan without images."""
        figures: dict[str, float] = {}
        for number, threshold in enumerate(self.thresholds):
            suffix = "" if number == 0 else f"@{'none' if threshold is None else f'{threshold:g}'}"
            table = self.class_table(threshold)
            occurring = table.support > 0
            figures |= {f"classification/top{k}{suffix}": self.accuracy(k, threshold) for k in self.topk}
            for name, values in {
                "mean_class_accuracy": table.recall[occurring], "precision": table.precision, "recall": table.recall, "f1": table.f1
            }.items():
                figures[f"classification/{name}{suffix}"] = float(values.mean()) if occurring.any() else float("nan")
        return figures

    def details(self) -> dict[str, Any]:
        """`{"classification": {"per_class": columns, "confusion_matrix": …}}` with plain lists, at the first threshold.

        `per_class`: `classes`, `support`, `precision`, `recall`, `f1`. `confusion_matrix`: `classes`, `counts` (rows truth, columns best class); left
        out beyond 1000 classes, where it would be gigabytes of zeros.
        """
        table = self.class_table(self.thresholds[0])
        columns = {"classes": list(self.classes), "support": table.support.tolist(), "precision": table.precision.tolist()}
        columns |= {"recall": table.recall.tolist(), "f1": table.f1.tolist()}
        details: dict[str, Any] = {"per_class": columns}
        if len(self.classes) <= _MOST_MATRIX_CLASSES:
            details["confusion_matrix"] = {"classes": list(self.classes), "counts": self.confusion().tolist()}
        return {"classification": details}


def stacked_scores(predictions: Sequence[Prediction], num_classes: int, metas: Sequence[Meta]) -> Tensor:
    """The scores of classifications (N, K) float64; raises NumericError where one is not finite, DataError for another number of classes."""
    rows = []
    for prediction, meta in zip(predictions, metas, strict=True):
        if not isinstance(prediction, Classification):
            raise TypeError(f"a classification metric takes Classification, not {type(prediction).__name__}")
        if prediction.scores.shape != (num_classes,):
            shape = tuple(prediction.scores.shape)
            raise DataError(f"The prediction of {named(meta)} has scores of shape {shape}; the metric was made for {num_classes} classes.")
        rows.append(prediction.scores)
    scores = torch.stack(rows).detach().cpu().double()
    finite = scores.isfinite().all(1)
    if not finite.all():
        first = named(metas[int(finite.int().argmin())])
        raise NumericError(f"The scores of {first} are not finite; no figure can be computed. Look at the model's outputs.")
    return scores


def _above(scores: np.ndarray, threshold: float | None) -> np.ndarray:
    return np.ones(len(scores), dtype=bool) if threshold is None else scores > threshold
