"""What every tracker of the house is: detections of one frame in, the same with track ids out, independent of the model that found them.

A tracker is streaming: it sees each frame once, in order, and its memory does not grow with the video. Track ids count from 1 (as MOTChallenge
wants) and are never given twice between two calls of `reset`.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saccade.errors import InputError, NumericError
from saccade.structures import Detections

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Tracker(ABC):
    """Follows objects through one video at a time; settings are keyword arguments of the subclasses."""

    last_frame: int | None = None

    @abstractmethod
    def update(self, detections: Detections, frame_index: int) -> Detections:
        """The detections of the frame `frame_index` that belong to a track, with `track_ids`; boxes in pixels of the original image.

        Frames come in ascending order; numbers that are left out count as frames without detections. Detections without an area are passed over.
        Raises ValueError for a frame that is not after the last one, NumericError for boxes or scores that are not finite.
        """

    @abstractmethod
    def reset(self) -> None:
        """Forget everything: the next frame is the first of another video, and ids count from the beginning."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that the tracker remembers, as numbers and tensors; the settings are not part of it."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave, of a tracker with the same settings."""

    def _enter(self, frame_index: int) -> int:
        """How many frames were left out before `frame_index`, which becomes the last one."""
        if self.last_frame is not None and frame_index <= self.last_frame:
            raise ValueError(f"frame {frame_index} after frame {self.last_frame}: frames come in ascending order; call reset() before another video")
        missing = 0 if self.last_frame is None else frame_index - self.last_frame - 1
        self.last_frame = frame_index
        return missing


@dataclass
class Rows:
    """Arrays with one row a track (or a detection); subclasses name them. Rows keep their order."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def keep(self, rows: Flags | Integers) -> Self:
        """Those that `rows` names, by flags or indices."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def join(self, others: Self) -> Self:
        """These, then the `others`."""
        return replace(self, **{f.name: np.concatenate([getattr(self, f.name), getattr(others, f.name)]) for f in fields(self)})

    def tensors(self) -> dict[str, Tensor]:
        """A copy of the arrays as tensors."""
        return {f.name: torch.from_numpy(np.array(getattr(self, f.name))) for f in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """From what `tensors` gave."""
        return cls(**{name: np.array(value.numpy()) for name, value in tensors.items()})


@dataclass
class Observed(Rows):
    """The detections of one frame as arrays: `rows` (n,) are their places among those given, `boxes` (n, 4), `scores` (n,), `labels` (n,)."""

    rows: Integers
    boxes: Floats
    scores: Floats
    labels: Integers

    @classmethod
    def of(cls, detections: Detections, frame_index: int) -> Observed:
        """Those with an area. Raises NumericError where a box or score is not finite."""
        boxes = detections.boxes.detach().cpu().double().numpy().reshape(-1, 4)
        given = detections.scores.detach().cpu()
        # A score of 0.6 must not pass a threshold of 0.6 because it became longer, so single precision stays.
        scores = (given if given.dtype == torch.float64 else given.float()).numpy()
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise NumericError(f"frame {frame_index}: the detections have boxes or scores that are not finite, so they can't be tracked")
        rows = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
        return cls(rows, boxes[rows], scores[rows], detections.labels.cpu().numpy()[rows])

    @classmethod
    def none(cls) -> Observed:
        """A frame without detections."""
        return cls.of(Detections.empty(), 0)


@dataclass
class Found(Rows):
    """What a tracker says of one frame: detection `rows`, their track `ids`, `boxes` (n, 4) and `labels`."""

    rows: Integers
    ids: Integers
    boxes: Floats
    labels: Integers

    def of(self, detections: Detections) -> Detections:
        """Those of `detections`, in their order, with track ids and the tracker's boxes and labels."""
        order = np.argsort(self.rows)
        chosen = detections[torch.from_numpy(self.rows[order]).to(detections.boxes.device)]
        device, dtype = chosen.boxes.device, chosen.boxes.dtype
        boxes, labels, ids = (torch.from_numpy(values[order]) for values in (self.boxes, self.labels, self.ids))
        return replace(chosen, boxes=boxes.to(device, dtype), labels=labels.to(device), track_ids=ids.to(device))


def needed_embeddings(detections: Detections, tracker: str) -> Tensor:
    """The embeddings (n, D) of the detections. Raises InputError where there are none."""
    if detections.embeddings is None:
        raise InputError(
            f"{tracker} compares appearance, and these detections carry no embeddings; take a model that gives some (QDTrack) or a tracker of "
            "motion alone: SORT, ByteTrack or OCSORT"
        )
    return detections.embeddings
