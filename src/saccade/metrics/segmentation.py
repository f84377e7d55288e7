"""Intersection over union of label maps, from one confusion matrix over all pixels of all images (PASCAL VOC's segmentation figures; Cityscapes').

As ADVENT's `fast_hist` and ProDA's `runningScore` count: rows are true classes, columns predicted ones, pixels without a label (255) are left out.
The IoU of a class is its diagonal entry over its row and column less the diagonal, undefined for a class in neither, and means run over the defined
ones. A reporting subset (13 of SYNTHIA's 16 classes, say) is the mean over its classes' IoU in the matrix of all classes, so that pixels of the
other classes still count as errors. Pixels that a prediction leaves without a class (255, as files of labels may) are misses of their true class. No
map is kept: of each image what remains are the cells of its matrix that are not empty.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from saccade.errors import DataError, InputError
from saccade.metrics.images import ImageKey, check_lengths, key_of, named
from saccade.structures import IGNORE, Annotations, Meta, Prediction, SegmentationMap

_LANES = 8
_LARGEST_SHORT = 32767


@dataclass(frozen=True)
class ClassFigures:
    """One value a class (K): `iou` and `accuracy` (the share of the class's pixels that are found) in 0..1, nan where undefined; `pixels` of it."""

    iou: np.ndarray
    accuracy: np.ndarray
    pixels: np.ndarray


class SegmentationIoU:
    """The figures `iou/mIoU`, `iou/mIoU_<subset>`, `iou/accuracy` (of all pixels), `iou/mean_accuracy` (mean over the classes), `iou/fwIoU` (the mean
    IoU weighted by the classes' pixels) and `iou/class/<name>`, all 0..1; nan where nothing has labels.

    `subsets` are names of groups of classes to report besides; `classes` (at most 255) name the labels. Images without a label map are passed over.
    """

    def __init__(self, *, classes: Sequence[str], subsets: Mapping[str, Sequence[str]] | None = None) -> None:
        if len(classes) > IGNORE:
            raise InputError(f"a label map tells {IGNORE} classes apart at most, for {IGNORE} is a pixel without a label; there are {len(classes)}")
        self.classes = tuple(classes)
        self.subsets = {name: tuple(members) for name, members in (subsets or {}).items()}
        for name, members in self.subsets.items():
            unknown = [member for member in members if member not in self.classes]
            if unknown:
                raise InputError(f"the subset {name!r} names {', '.join(unknown)}, which the classes lack; they are {', '.join(self.classes)}")
        self._images: dict[ImageKey, tuple[np.ndarray, np.ndarray]] = {}
        self._unlabelled: set[ImageKey] = set()

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Annotations], metas: Sequence[Meta]) -> None:
        """Adds images, both maps in original pixels. Raises DataError where their sizes differ or a label lies outside the classes."""
        check_lengths(len(predictions), len(targets), len(metas))
        for prediction, target, meta in zip(predictions, targets, metas, strict=True):
            if not isinstance(prediction, SegmentationMap):
                raise TypeError(f"the IoU of label maps takes SegmentationMap, not {type(prediction).__name__}")
            key = key_of(meta)
            if target.segmentation is None:
                self._unlabelled.add(key)
            elif key not in self._images:
                matrix = confusion_matrix(target.segmentation, prediction.labels, len(self.classes), named(meta)).reshape(-1)
                cells = matrix.nonzero()[0]
                self._images[key] = cells.astype(np.uint16), matrix[cells]

    def merge(self, other: Self) -> None:
        """Adds another process's images that are not here yet."""
        self._images = other._images | self._images
        self._unlabelled |= other._unlabelled

    def reset(self) -> None:
        """Forgets everything."""
        self._images, self._unlabelled = {}, set()

    def confusion(self) -> np.ndarray:
        """(K, K + 1) int64 pixels of all images: rows are true classes, columns predicted ones and, last, none."""
        matrix = np.zeros(len(self.classes) * (len(self.classes) + 1), dtype=np.int64)
        for cells, counts in self._images.values():
            matrix[cells] += counts
        return matrix.reshape(len(self.classes), -1)

    def compute(self) -> dict[str, float]:
        """The figures by name."""
        matrix = self.confusion()
        by_class = class_figures(matrix)
        place = {name: number for number, name in enumerate(self.classes)}
        found, total, known = np.diag(matrix).sum(), matrix.sum(), by_class.pixels > 0
        figures = {"iou/mIoU": _mean(by_class.iou)}
        figures |= {f"iou/mIoU_{name}": _mean(by_class.iou[[place[m] for m in members]]) for name, members in self.subsets.items()}
        figures["iou/accuracy"] = float(found / total) if total else float("nan")
        figures["iou/mean_accuracy"] = _mean(by_class.accuracy)
        figures["iou/fwIoU"] = float((by_class.pixels[known] * by_class.iou[known]).sum() / total) if total else float("nan")
        return figures | {f"iou/class/{name}": float(value) for name, value in zip(self.classes, by_class.iou, strict=True)}

    def details(self) -> dict[str, Any]:
        """`{"iou": {...}}` with plain lists: `per_class` (`classes`, `IoU` and `accuracy`, None where undefined, `pixels`), `confusion_matrix`
        (`classes`, `counts`; rows truth), `images` that have labels and that have none, and a `note` where there is nothing to score."""
        matrix = self.confusion()
        by_class = class_figures(matrix)
        columns: dict[str, list[Any]] = {"classes": list(self.classes)}
        for name, values in (("IoU", by_class.iou), ("accuracy", by_class.accuracy)):
            columns[name] = [None if np.isnan(value) else value for value in values.tolist()]
        details: dict[str, Any] = {
            "per_class": columns | {"pixels": by_class.pixels.tolist()},
            "confusion_matrix": {"classes": list(self.classes), "counts": matrix[:, :-1].tolist()},
            "images": {"labelled": len(self._images), "unlabelled": len(self._unlabelled)},
        }
        if not matrix.any() and (self._images or self._unlabelled):
            what = "no pixel of the labelled images counts" if self._images else f"none of the {len(self._unlabelled)} images has labels"
            details["note"] = f"{what}, so there is nothing to score"
        return {"iou": details}


def class_figures(matrix: np.ndarray) -> ClassFigures:
    """The figures of every class from a confusion matrix (K, K + 1)."""
    right, true, found = np.diag(matrix), matrix.sum(1), matrix.sum(0)[:-1]
    return ClassFigures(_share(right, true + found - right), _share(right, true), true)


def confusion_matrix(truth: Tensor, found: Tensor, num_classes: int, name: str = "the image") -> np.ndarray:
    """(K, K + 1) int64: how many pixels of each true class (rows) are predicted as each class and as none (columns), where the truth is not 255.

    `truth` and `found` (H, W), any integers, on any device. Raises DataError, which names `name`, for maps of different sizes and labels that are
    neither below `num_classes` nor 255.
    """
    if truth.shape != found.shape:
        raise DataError(f"The label map predicted for {name} has the size {tuple(found.shape)}, its truth {tuple(truth.shape)} (height, width); "
                        "predictions must be in original pixels.")
    rows, codes = truth.as_subclass(Tensor).detach().cpu(), _narrow(found)
    if rows.dtype != torch.uint8:
        rows = _narrow(rows)
        if _largest(rows) > IGNORE:
            raise _unknown_labels(truth, num_classes, f"truth of {name}")
    rows = rows.to(torch.uint8) + 1  # 255 becomes 0: row 0 is what is left out
    if _largest(rows) > num_classes:
        raise _unknown_labels(truth, num_classes, f"truth of {name}")
    if _largest(codes) >= num_classes:
        nothing = codes == IGNORE
        if _largest(codes.masked_fill(nothing, 0)) >= num_classes:
            raise _unknown_labels(found, num_classes, f"prediction for {name}")
        codes.masked_fill_(nothing, num_classes)
    # Neighbours are mostly alike, and a processor waits for a counter that it has just written: so pixels side by side have counters of their own.
    width, cells = num_classes + 1, (num_classes + 1) ** 2
    lanes = min(_LANES, max(1, _LARGEST_SHORT // cells))
    offsets = torch.arange(rows.shape[-1]) % lanes * cells
    if cells > _LARGEST_SHORT:
        codes = codes.int()
    codes.add_(rows, alpha=width).add_(offsets.to(codes.dtype))
    counts = torch.bincount(codes.reshape(-1), minlength=lanes * cells).reshape(lanes, width, width).sum(0).numpy()
    return counts[1:]


def _narrow(labels: Tensor) -> Tensor:
    """A copy on the CPU in 16 bits, for the counting waits for memory. No network or file has labels beyond that."""
    return labels.as_subclass(Tensor).detach().to(torch.int16, copy=True).cpu()


def _largest(labels: Tensor) -> int:
    """The largest of narrow labels; below 0 counts as large."""
    values = labels.numpy()
    return int(values.view(f"u{values.itemsize}").max(initial=0))


def _unknown_labels(labels: Tensor, num_classes: int, whose: str) -> DataError:
    wrong = [value for value in labels.unique().tolist() if not (0 <= value < num_classes or value == IGNORE)] or [IGNORE]
    rule = f"{num_classes} classes (0..{num_classes - 1}, and {IGNORE} for pixels without a label)"
    return DataError(f"The {whose} has the labels {wrong[:5]}, but the metric was made for {rule}. Evaluate on data with the classes of the model.")


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
