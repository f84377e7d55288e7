"""Figures of image classification where several classes can hold at once: mean average precision, and precision, recall and F1 by class and overall.

Definitions of mmclassification 0.x (`mmcls/core/evaluation/{mean_ap,multilabel_eval_metrics}.py`), as fractions 0..1. The truth is a vector with
1 for a class that holds, 0 for one that does not, -1 for one that only difficult objects show: average precision leaves those out, the others count
them as 0.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from torch import Tensor

from saccade.errors import DataError
from saccade.metrics.classification import stacked_scores
from saccade.metrics.images import ImageKey, check_lengths, in_order, key_of, named
from saccade.structures import Annotations, Meta, Prediction

_EPSILON = float(np.finfo(np.float32).eps)


class MultiLabelClassification:
    """The figures `multilabel/mAP`, `CP`, `CR`, `CF1` (means over the classes), `OP`, `OR`, `OF1` (over all decisions), 0..1.

    A class is predicted where its score is at least `threshold`, or, with `topk`, where it is among an image's k best.
    """

    def __init__(self, *, classes: Sequence[str], threshold: float = 0.5, topk: int | None = None) -> None:
        self.classes, self.threshold, self.topk = tuple(classes), threshold, topk
        self._rows: dict[ImageKey, tuple[np.ndarray, np.ndarray]] = {}

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Annotations], metas: Sequence[Meta]) -> None:
        """Adds images; raises DataError where the truth is no vector over the classes, NumericError for scores that are not finite."""
        check_lengths(len(predictions), len(targets), len(metas))
        if not predictions:
            return
        scores = stacked_scores(predictions, len(self.classes), metas).numpy()
        for row, target, meta in zip(scores, targets, metas, strict=True):
            if not isinstance(target.label, Tensor) or target.label.shape != (len(self.classes),):
                raise DataError(f"The label of {named(meta)} is no vector over {len(self.classes)} classes; evaluate it with ClassificationAccuracy.")
            self._rows.setdefault(key_of(meta), (row, target.label.detach().cpu().double().numpy()))

    def merge(self, other: Self) -> None:
        """Adds another process's images that are not here yet."""
        self._rows = other._rows | self._rows

    def reset(self) -> None:
        """Forgets everything."""
        self._rows = {}

    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        keys = in_order(self._rows)
        shape = (-1, len(self.classes))
        return np.array([self._rows[k][0] for k in keys]).reshape(shape), np.array([self._rows[k][1] for k in keys]).reshape(shape)

    def average_precision(self) -> np.ndarray:
        """(K,) average precision: the mean over a class's images of the precision down to each; 0 for a class without any."""
        scores, truth = self._tables()
        order = np.argsort(-scores, axis=0, kind="stable")
        truth = np.take_along_axis(truth, order, 0)
        holds = truth == 1
        precision = np.cumsum(holds, 0) * holds / np.maximum(np.cumsum(truth != -1, 0), _EPSILON)
        return precision.sum(0) / np.maximum(holds.sum(0), _EPSILON)

    def _counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Right, predicted and true decisions of every class."""
        scores, truth = self._tables()
        if self.topk is None:
            predicted = scores >= self.threshold
        else:
            predicted = np.zeros(scores.shape, dtype=bool)
            np.put_along_axis(predicted, np.argsort(-scores, axis=1, kind="stable")[:, : self.topk], True, 1)
        holds = truth == 1
        return (predicted & holds).sum(0), predicted.sum(0), holds.sum(0)

    def compute(self) -> dict[str, float]:
        """The figures by name; nan without images."""
        names = ("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1")
        if not self._rows:
            return {f"multilabel/{name}": float("nan") for name in names}
        right, predicted, true = self._counts()
        by_class = float(_share(right, predicted).mean()), float(_share(right, true).mean())
        overall = float(_share(right.sum(), predicted.sum())), float(_share(right.sum(), true.sum()))
        values = (float(self.average_precision().mean()), *by_class, _f1(*by_class), *overall, _f1(*overall))
        return {f"multilabel/{name}": value for name, value in zip(names, values, strict=True)}

    def details(self) -> dict[str, Any]:
        """`{"multilabel": {"per_class": columns}}`: `classes`, `support`, `AP`, `precision`, `recall`, plain lists."""
        if not self._rows:
            return {"multilabel": {"per_class": {"classes": list(self.classes)}}}
        right, predicted, true = self._counts()
        columns = {"support": true, "AP": self.average_precision(), "precision": _share(right, predicted), "recall": _share(right, true)}
        return {"multilabel": {"per_class": {"classes": list(self.classes)} | {name: values.tolist() for name, values in columns.items()}}}


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.maximum(whole, _EPSILON)


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / max(precision + recall, _EPSILON)
