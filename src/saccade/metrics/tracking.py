"""Tracking figures of a data set: HOTA, CLEAR MOT and identity, equal to TrackEval's (the definitions are in `metrics.mot`).

Frames come one by one, in any order and from any process; the figures are computed at the end, video by video.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor

from saccade.errors import DataError, NumericError
from saccade.metrics.images import check_labels, check_lengths, check_objects, named
from saccade.metrics.mot import tracks as mot
from saccade.metrics.mot.evaluation import Counts, class_average, count, pooled
from saccade.metrics.mot.hota import AVERAGED, THRESHOLDS
from saccade.structures import Annotations, Detections, Meta, Prediction
from saccade.structures.ranges import PositiveFloat

VideoKey = tuple[str, str]  # data set, video
_HEADLINE = ("HOTA", "DetA", "AssA", "LocA", "DetRe", "DetPr", "AssRe", "AssPr", "MOTA", "MOTP", "IDF1", "IDP", "IDR", "Re", "Pr", "IDSW", "FP", "FN",
             "MT", "PT", "ML", "Frag")


@dataclass(frozen=True)
class _Frame:
    """One frame: found boxes (n, 4), ids and labels; true ones (m, 4), ids, labels, flags."""

    boxes: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    true_boxes: np.ndarray
    true_ids: np.ndarray
    true_labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray


class MotTracking:
    """The figures `mot/HOTA`, `DetA`, `AssA`, `LocA` (means over 19 thresholds), `MOTA`, `MOTP`, `IDF1`, `IDSW`, `FP`, `FN`, `MT`, `ML`, `Frag`, ...

    They are pooled over all videos and classes; with several classes those under `mot/class_average/` are means over the classes that occur.
    `iou_threshold` is that of CLEAR and identity. Predictions need `track_ids`, frames `meta.video` and `meta.frame`. True objects that are
    `difficult` are distractors: what falls to them counts neither way, as MOTChallenge has it. Crowd objects are regions in which unmatched
    predictions do not count, as BDD100K has it. `class_agnostic` ignores the labels.
    """

    def __init__(self, *, classes: Sequence[str], iou_threshold: PositiveFloat = 0.5, class_agnostic: bool = False) -> None:
        self.classes, self.iou_threshold, self.class_agnostic = tuple(classes), float(iou_threshold), class_agnostic
        self._videos: dict[VideoKey, dict[int, _Frame]] = {}
        self._counts: dict[str, dict[str, Counts]] | None = None

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Annotations], metas: Sequence[Meta]) -> None:
        """Adds frames; all boxes in original pixels. A frame that comes again does not count.

        Raises `NumericError` for scores or boxes that are not finite, `DataError` for frames without video, truth without track ids, and ids that
        come twice in a frame.
        """
        check_lengths(len(predictions), len(targets), len(metas))
        self._counts = None
        for prediction, target, meta in zip(predictions, targets, metas, strict=True):
            if not isinstance(prediction, Detections):
                raise TypeError(f"a tracking metric takes Detections, not {type(prediction).__name__}")
            if meta.video is None or meta.frame is None:
                raise DataError(f"The {named(meta)} belongs to no video, so tracks cannot be judged on it. Evaluate on a data set of videos.")
            key = (meta.dataset, meta.video)
            if meta.frame not in self._videos.get(key, {}):
                self._videos.setdefault(key, {})[meta.frame] = self._checked(_frame(prediction, target, meta), meta)

    def merge(self, other: Self) -> None:
        """Adds the frames of another process that are not here yet."""
        self._counts = None
        for key, frames in other._videos.items():
            self._videos[key] = frames | self._videos.get(key, {})

    def reset(self) -> None:
        """Forgets everything."""
        self._videos, self._counts = {}, None

    def counts(self) -> dict[str, dict[str, Counts]]:
        """The counts of each video for each class (or for "any"); kept until the next update."""
        if self._counts is None:
            labels: list[tuple[str, int | None]] = [("any", None)] if self.class_agnostic else [(name, k) for k, name in enumerate(self.classes)]
            self._counts = {s.name: {name: count(s, label, self.iou_threshold) for name, label in labels} for s in self._sequences()}
        return self._counts

    def compute(self) -> dict[str, float]:
        """The figures by name; nan where no frame came."""
        by_video = self.counts()
        if not by_video:
            return {f"mot/{name}": float("nan") for name in _HEADLINE}
        by_class = {name: pooled(video[name] for video in by_video.values()) for name in next(iter(by_video.values()))}
        whole = pooled(by_class.values()).figures()
        figures = {f"mot/{name}": float(whole[name]) for name in _HEADLINE}
        if len(by_class) > 1:
            average = class_average(by_class)
            figures |= {f"mot/class_average/{name}": float(average[name]) for name in _HEADLINE}
        return figures

    def details(self) -> dict[str, Any]:
        """`{"mot": {"per_class": columns, "per_video": columns, "curves": …}}` with plain lists.

        `per_video` are the figures of each video, all classes pooled; `curves` HOTA and its parts (19 values each) over the thresholds `alpha`.
        """
        by_video = self.counts()
        names = list(next(iter(by_video.values()), {}))
        by_class = {name: pooled(video[name] for video in by_video.values()) for name in names}
        whole = pooled(by_class.values())
        rows = [whole_video.figures(of_one_video=True) for whole_video in (pooled(video.values()) for video in by_video.values())]
        class_rows = [counts.figures() for counts in by_class.values()]
        curves = whole.hota.figures()
        return {"mot": {
            "per_class": {"classes": names, **{name: [float(row[name]) for row in class_rows] for name in _HEADLINE}},
            "per_video": {"videos": list(by_video), **{name: [float(row[name]) for row in rows] for name in _HEADLINE}},
            "curves": {"alpha": THRESHOLDS.tolist(), **{name: np.asarray(curves[name]).tolist() for name in AVERAGED}},
        }}

    def _sequences(self) -> Iterator[mot.Sequence]:
        several = len({dataset for dataset, _ in self._videos}) > 1
        for (dataset, video), frames in sorted(self._videos.items()):
            name = f"{dataset}/{video}" if several else video
            numbers = sorted(frames)
            yield _sequence(name, numbers, [frames[n] for n in numbers])

    def _checked(self, frame: _Frame, meta: Meta) -> _Frame:
        """`frame` itself. Raises `DataError` for labels that do not exist and for ids that come twice (in one class, where these are told apart)."""
        check_labels(frame.labels, len(self.classes), meta, "prediction")
        check_labels(frame.true_labels, len(self.classes), meta, "truth")
        judged = ~frame.crowd & ~frame.difficult
        for ids, labels, whose in ((frame.ids, frame.labels, "prediction"), (frame.true_ids[judged], frame.true_labels[judged], "truth")):
            rows = np.column_stack([ids, np.zeros_like(labels) if self.class_agnostic else labels])
            known, counts = np.unique(rows, axis=0, return_counts=True)
            if (counts > 1).any():
                twice = known[counts > 1][0, 0]
                raise DataError(f"The {whose} for {named(meta)} has the track id {twice} more than once; a frame has every track once.")
        return frame


def _sequence(name: str, numbers: list[int], frames: list[_Frame]) -> mot.Sequence:
    """One video's tables; frames are numbered from 1 in their order."""
    index = np.arange(1, len(numbers) + 1)
    true_frame = np.repeat(index, [len(f.true_ids) for f in frames])
    boxes, ids, labels, crowd, difficult = (
        np.concatenate([getattr(f, column) for f in frames]) for column in ("true_boxes", "true_ids", "true_labels", "crowd", "difficult")
    )
    objects = ~crowd
    truth = mot.Truth(
        true_frame[objects], ids[objects], boxes[objects], labels[objects], counted=~difficult[objects], distractor=difficult[objects],
        regions=mot.Regions(true_frame[crowd], boxes[crowd]),
    )
    found = mot.Tracks(
        np.repeat(index, [len(f.ids) for f in frames]), np.concatenate([f.ids for f in frames]), np.concatenate([f.boxes for f in frames]),
        np.concatenate([f.labels for f in frames]),
    )
    return mot.Sequence(name, len(numbers), truth, found)


def _frame(found: Detections, truth: Annotations, meta: Meta) -> _Frame:
    check_objects(truth, meta)
    if found.track_ids is None and len(found):
        raise DataError(f"The prediction for {named(meta)} has no track ids; track the detections (`saccade track`) before they are judged.")
    if truth.boxes is None or truth.labels is None or (truth.track_ids is None and len(truth.labels)):
        raise DataError(f"The truth of {named(meta)} has no track ids (or no boxes), so tracks cannot be judged on it; use a tracking data set.")
    count = len(truth.labels)
    none, nobody = np.zeros(count, dtype=bool), np.zeros(0, dtype=np.int64)
    boxes, scores = _array(found.boxes), _array(found.scores)
    if not np.isfinite(scores).all() or not np.isfinite(boxes).all():
        what = "scores" if not np.isfinite(scores).all() else "boxes"
        raise NumericError(f"The tracks in {named(meta)} have non-finite {what}; no figure can be computed. Look at the model's outputs.")
    return _Frame(
        boxes=boxes.astype(np.float64).reshape(-1, 4),
        ids=nobody if found.track_ids is None else _array(found.track_ids).astype(np.int64),
        labels=_array(found.labels).astype(np.int64),
        true_boxes=_array(truth.boxes).astype(np.float64).reshape(-1, 4),
        true_ids=nobody if truth.track_ids is None else _array(truth.track_ids).astype(np.int64),
        true_labels=_array(truth.labels).astype(np.int64),
        crowd=none if truth.crowd is None else _array(truth.crowd).astype(bool),
        difficult=none if truth.difficult is None else _array(truth.difficult).astype(bool),
    )


def _array(tensor: Tensor) -> np.ndarray:
    value = tensor.detach().cpu()
    return value.float().numpy() if value.dtype.is_floating_point and value.dtype.itemsize < 4 else value.numpy()
