"""Panoptic quality (Kirillov et al., Panoptic Segmentation, CVPR 2019, section 4), counted as COCO's panopticapi counts it.

A predicted and a true segment of one class match where their overlap, void pixels left out of the union, exceeds one half; at most one partner can.
PQ = sum of the matches' overlaps / (TP + FP / 2 + FN / 2) = SQ * RQ, for every class, then averaged over the classes that occur. A predicted segment
without a partner that lies mostly on void or on a crowd region of its class is no error; crowd regions themselves are neither found nor missed. Of
several crowd regions of one class in an image the last counts, as in panopticapi.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor

from saccade.errors import DataError
from saccade.metrics.images import ImageKey, check_labels, check_lengths, in_order, key_of, named
from saccade.structures import Annotations, Meta, Panoptic, Prediction
from saccade.structures.panoptic import UNLISTED, segment_rows


@dataclass(frozen=True)
class ImageCounts:
    """What an image adds, one row for each class that occurs in it: label, sum of overlaps, true and false positives, false negatives; whether the
    class is a thing, and whether the truth says so (else the prediction does)."""

    label: np.ndarray
    overlap: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    thing: np.ndarray
    in_truth: np.ndarray


@dataclass(frozen=True)
class QualityTable:
    """One value a class (K): qualities in 0..1 (0 where undefined), counts, whether it is a thing, and whether it occurs (has any TP, FP or FN)."""

    pq: np.ndarray
    sq: np.ndarray
    rq: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    things: np.ndarray
    occurs: np.ndarray


class PanopticQuality:
    """The figures `panoptic/PQ`, `SQ`, `RQ` over all classes, and the same over things (`panoptic/PQ_things`, ...) and over stuff
    (`panoptic/PQ_stuff`, ...), each 0..1, nan where no such class occurs.

    `classes` name the labels of the segments. Which of them are things, the segments say themselves.
    """

    def __init__(self, *, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._images: dict[ImageKey, ImageCounts] = {}

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Annotations], metas: Sequence[Meta]) -> None:
        """Adds images, both maps in original pixels.

        Raises DataError where the truth has no panoptic map, sizes differ, labels lie outside the classes, or a map has an id that its segments lack
        (for predictions also a segment without pixels).
        """
        check_lengths(len(predictions), len(targets), len(metas))
        for prediction, target, meta in zip(predictions, targets, metas, strict=True):
            if not isinstance(prediction, Panoptic):
                raise TypeError(f"panoptic quality takes Panoptic, not {type(prediction).__name__}")
            if key_of(meta) not in self._images:
                self._images[key_of(meta)] = self._count(prediction, target, meta)

    def _count(self, found: Panoptic, target: Annotations, meta: Meta) -> ImageCounts:
        truth = target.panoptic
        if truth is None:
            raise DataError(f"The truth of {named(meta)} has no panoptic map, so panoptic quality can't be computed; use a data set that has one.")
        if found.segment_map.shape != truth.segment_map.shape:
            raise DataError(f"The panoptic map predicted for {named(meta)} has the size {tuple(found.segment_map.shape)}, its truth "
                            f"{tuple(truth.segment_map.shape)} (height, width); predictions must be in original pixels.")
        for panoptic, whose in ((found, "prediction"), (truth, "truth")):
            check_labels(np.array([s.label for s in panoptic.segments], dtype=np.int64), len(self.classes), meta, whose)
        return count_image(found, truth, named(meta))

    def merge(self, other: Self) -> None:
        """Adds another process's images that are not here yet."""
        self._images = other._images | self._images

    def reset(self) -> None:
        """Forgets everything."""
        self._images = {}

    def table(self) -> QualityTable:
        """The qualities of every class."""
        images = [self._images[key] for key in in_order(self._images)]
        return quality_table(images, len(self.classes))

    def compute(self) -> dict[str, float]:
        """The figures by name."""
        table, figures = self.table(), {}
        for suffix, rows in (("", table.occurs), ("_things", table.occurs & table.things), ("_stuff", table.occurs & ~table.things)):
            for name, column in (("PQ", table.pq), ("SQ", table.sq), ("RQ", table.rq)):
                figures[f"panoptic/{name}{suffix}"] = float(column[rows].mean()) if rows.any() else float("nan")
        return figures

    def details(self) -> dict[str, Any]:
        """`{"panoptic": {"per_class": columns}}` with plain lists: `classes`, `thing`, `PQ`, `SQ`, `RQ` (None where the class does not occur), `TP`,
        `FP`, `FN`."""
        table = self.table()
        columns: dict[str, list[Any]] = {"classes": list(self.classes), "thing": table.things.tolist()}
        for name, column in (("PQ", table.pq), ("SQ", table.sq), ("RQ", table.rq)):
            columns[name] = [value if occurs else None for value, occurs in zip(column.tolist(), table.occurs.tolist(), strict=True)]
        columns |= {"TP": table.tp.tolist(), "FP": table.fp.tolist(), "FN": table.fn.tolist()}
        return {"panoptic": {"per_class": columns}}


def quality_table(images: Sequence[ImageCounts], num_classes: int) -> QualityTable:
    """The qualities of every class from what the images add."""
    label = _joined([image.label for image in images]).astype(np.int64)

    def total(values: list[np.ndarray]) -> np.ndarray:
        return np.bincount(label, weights=_joined(values).astype(np.float64), minlength=num_classes)

    overlap = total([i.overlap for i in images])
    tp, fp, fn = (total([getattr(i, name) for i in images]).astype(np.int64) for name in ("tp", "fp", "fn"))
    true_votes, found_votes = total([i.thing & i.in_truth for i in images]), total([i.thing for i in images])
    errors = tp + 0.5 * fp + 0.5 * fn
    occurs = errors > 0
    return QualityTable(
        pq=np.divide(overlap, errors, out=np.zeros(num_classes), where=occurs),
        sq=np.divide(overlap, tp, out=np.zeros(num_classes), where=tp > 0),
        rq=np.divide(tp, errors, out=np.zeros(num_classes), where=occurs),
        tp=tp, fp=fp, fn=fn,
        things=np.where(total([i.in_truth for i in images]) > 0, true_votes > 0, found_votes > 0),
        occurs=occurs,
    )


def count_image(found: Panoptic, truth: Panoptic, name: str) -> ImageCounts:
    """Matches the segments of one image (both maps of one size) and counts by class; `name` is the image's, for the DataError of `update`."""
    n, m = len(found.segments), len(truth.segments)
    table = _overlaps(found, truth, name)  # (m + 1, n + 1) pixels; the first row and column are void
    true_label, found_label = (np.array([s.label for s in p.segments], dtype=np.int64) for p in (truth, found))
    crowd = np.array([s.is_crowd for s in truth.segments], dtype=bool)
    true_area, found_area, on_void = table.sum(1)[1:], table.sum(0)[1:], table[0, 1:]
    if n and not found_area.all():
        empty = found.segments[int(found_area.argmin())].id
        raise DataError(f"The prediction for {name} lists the segment {empty}, which has no pixel in its map; leave such segments out.")
    shared = table[1:, 1:]
    union = found_area[None] + true_area[:, None] - shared - on_void[None]
    same = (true_label[:, None] == found_label[None]) & ~crowd[:, None]
    overlap = np.divide(shared, union, out=np.zeros((m, n)), where=union > 0)
    matches = same & (overlap > 0.5)
    forgiven = on_void.astype(np.float64)
    if crowd.any():
        region = np.full(max(true_label.max(initial=-1), found_label.max(initial=-1)) + 1, -1)
        region[true_label[crowd]] = np.flatnonzero(crowd)  # of several the last
        of_class = region[found_label]
        forgiven += np.where(of_class >= 0, shared[of_class, np.arange(n)], 0)
    wrong = ~matches.any(0) & (forgiven <= 0.5 * found_area)
    missed = ~matches.any(1) & ~crowd
    labels = np.unique(np.concatenate([true_label, found_label]))
    rows, columns = matches.nonzero()
    count = len(labels)
    at_match, at_true, at_found = (np.searchsorted(labels, v) for v in (true_label[rows], true_label, found_label))
    in_truth = np.bincount(at_true, minlength=count) > 0
    thing = np.zeros(count, dtype=bool)
    thing[at_found] = [s.is_thing for s in found.segments]
    thing[at_true] = [s.is_thing for s in truth.segments]
    return ImageCounts(
        label=labels, overlap=np.bincount(at_match, weights=overlap[rows, columns], minlength=count), tp=np.bincount(at_match, minlength=count),
        fp=np.bincount(at_found[wrong], minlength=count), fn=np.bincount(at_true[missed], minlength=count), thing=thing, in_truth=in_truth,
    )


def _overlaps(found: Panoptic, truth: Panoptic, name: str) -> np.ndarray:
    """(m + 1, n + 1) int64: the pixels that each true and each predicted segment share, void first in both."""
    rows = []
    for panoptic, whose in ((truth, "truth"), (found, "prediction")):
        ids = panoptic.segment_map.as_subclass(Tensor).detach().cpu()
        own = segment_rows(ids, [segment.id for segment in panoptic.segments])
        if (own == UNLISTED).any():
            unlisted = ids[own == UNLISTED].unique().tolist()[:5]
            raise DataError(f"The panoptic map of the {whose} for {name} has the ids {unlisted}, which its segments lack.")
        rows.append(own.numpy() + 1)
    width = len(found.segments) + 1
    counts = np.bincount((rows[0] * width + rows[1]).reshape(-1), minlength=(len(truth.segments) + 1) * width)
    return counts.reshape(-1, width)


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0)
