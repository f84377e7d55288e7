"""The tables that tracking metrics work on: one row an object and frame, (frame, id, box, class), for the truth and for what a tracker found."""
from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Tracks:
    """Rows sorted by frame, in their own order within one: `frame` (n,) int64, `ids` (n,) int64, `boxes` (n, 4) float64 xyxy, `labels` (n,) int64."""

    frame: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, rows: np.ndarray) -> Self:
        """The rows that a mask or an index names, which must leave them sorted by frame."""
        return replace(self, **{name: getattr(self, name)[rows] for name in self._columns()})

    def by_frame(self) -> Self:
        """The same sorted by frame, rows of one frame in the order that they had."""
        return self if (np.diff(self.frame) >= 0).all() else self.take(np.argsort(self.frame, kind="stable"))

    def _columns(self) -> list[str]:
        return [f.name for f in fields(self) if f.name != "regions"]

    @classmethod
    def empty(cls) -> Self:
        """No rows."""
        whole = np.zeros(0, dtype=np.int64)
        return cls(whole, whole, np.zeros((0, 4)), whole)


@dataclass(frozen=True)
class Regions:
    """Areas in which nothing is judged: `frame` (r,) and `boxes` (r, 4) xyxy."""

    frame: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))


@dataclass(frozen=True)
class Truth(Tracks):
    """True objects. Only `counted` (n,) ones are to be found; a found box that falls to a `distractor` (n,) counts neither way; other rows take part
    in the matching before and excuse nothing. An unmatched found box that lies by more than half within a region counts neither way."""

    counted: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    distractor: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    regions: Regions = field(default_factory=Regions)


@dataclass(frozen=True)
class Sequence:
    """One video: its name, how many frames it has (the last one's number, at least), and both tables."""

    name: str
    num_frames: int
    truth: Truth
    found: Tracks
