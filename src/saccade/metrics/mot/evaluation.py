"""All tracking figures of videos and classes from their tables, and how they are pooled: over videos, over classes, or as a mean of classes."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from saccade.metrics.mot.clear import ClearCounts, clear_counts
from saccade.metrics.mot.hota import AVERAGED, HotaCounts, hota_counts
from saccade.metrics.mot.identity import IdentityCounts, identity_counts
from saccade.metrics.mot.prepared import prepare
from saccade.metrics.mot.tracks import Sequence


@dataclass(frozen=True)
class Counts:
    """Everything that is counted in one video for one class; sums of these are pooled figures, over videos as over classes."""

    hota: HotaCounts = field(default_factory=HotaCounts)
    clear: ClearCounts = field(default_factory=ClearCounts)
    identity: IdentityCounts = field(default_factory=IdentityCounts)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.hota + other.hota, self.clear + other.clear, self.identity + other.identity)

    @property
    def empty(self) -> bool:
        """Whether there was neither a true nor a found box."""
        return bool((self.hota.tp + self.hota.fn + self.hota.fp == 0).all())

    def figures(self, of_one_video: bool = False) -> dict[str, float]:
        """One number a figure: those of HOTA averaged over the thresholds, with CLEAR's and the identity ones.

        `FP` and `FN` are CLEAR's. `of_one_video`: as TrackEval has them for a single video, which differs where that has no true objects.
        """
        hota = self.hota.figures()
        values = {name: float(np.mean(hota[name])) for name in AVERAGED}
        values |= {name: float(value) for name, value in hota.items() if isinstance(value, float)}
        return values | (self.clear.figures_of_one_video() if of_one_video else self.clear.figures()) | self.identity.figures()


def count(sequence: Sequence, label: int | None = None, iou_threshold: float = 0.5) -> Counts:
    """The counts of one video for the class `label`, for all rows together where it is None; `iou_threshold` is that of CLEAR and identity."""
    data = prepare(sequence, label)
    return Counts(hota_counts(data), clear_counts(data, iou_threshold), identity_counts(data, iou_threshold))


def pooled(parts: Iterable[Counts]) -> Counts:
    """The sum: figures over all boxes of all parts."""
    return sum(parts, Counts())


def class_average(counts: Mapping[str, Counts]) -> dict[str, float]:
    """The mean over the classes that have a true or a found box; sums for what is counted. Without any such class all are nan."""
    rows = [part.figures() for part in counts.values() if not part.empty]
    names = Counts().figures()
    counted = {"TP", "FN", "FP", "IDSW", "MT", "PT", "ML", "Frag", "Frames", "IDTP", "IDFN", "IDFP"}
    if not rows:
        return dict.fromkeys(names, float("nan"))
    return {name: float(sum(row[name] for row in rows)) if name in counted else float(np.mean([row[name] for row in rows])) for name in names}
