"""CLEAR MOT (Bernardin and Stiefelhagen, Evaluating Multiple Object Tracking Performance, 2008), as TrackEval counts it.

A true object keeps its partner of the frame before where both are there and overlap enough; the rest is matched by overlap. Frames without true or
without found boxes do not end a partnership. sMOTA, MOTAL and MODA are variants of MOTA.
"""
from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from saccade.metrics.mot.assignment import Groups, alone, contests
from saccade.metrics.mot.pairs import EPSILON
from saccade.metrics.mot.prepared import Prepared

_KEEP_PARTNER = 1000.0


@dataclass(frozen=True)
class ClearCounts:
    """What adds up over videos and classes: matches, misses, false alarms, switches, tracks by how much of them was found, gaps, frames, and the sum
    of the matches' overlaps."""

    tp: int = 0
    fn: int = 0
    fp: int = 0
    switches: int = 0
    mostly_tracked: int = 0
    partly_tracked: int = 0
    mostly_lost: int = 0
    fragments: int = 0
    frames: int = 0
    overlap: float = 0.0

    def __add__(self, other: ClearCounts) -> ClearCounts:
        return ClearCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def figures(self) -> dict[str, float]:
        """TrackEval's fields by their names there, without the prefix `CLR_`."""
        objects, tracks = max(1, self.tp + self.fn), max(1, self.mostly_tracked + self.partly_tracked + self.mostly_lost)
        logarithm = float(np.log10(self.switches)) if self.switches > 0 else 0.0
        return {
            "MOTA": (self.tp - self.fp - self.switches) / objects,
            "MOTP": self.overlap / max(1, self.tp),
            "MODA": (self.tp - self.fp) / objects,
            "Re": self.tp / objects,
            "Pr": self.tp / max(1, self.tp + self.fp),
            "F1": self.tp / max(1.0, self.tp + 0.5 * self.fn + 0.5 * self.fp),
            "MTR": self.mostly_tracked / tracks,
            "PTR": self.partly_tracked / tracks,
            "MLR": self.mostly_lost / tracks,
            "sMOTA": (self.overlap - self.fp - self.switches) / objects,
            "MOTAL": (self.tp - self.fp - logarithm) / objects,
            "FP_per_frame": self.fp / max(1, self.frames),
            "MOTP_sum": self.overlap,
            "TP": self.tp, "FN": self.fn, "FP": self.fp, "IDSW": self.switches, "MT": self.mostly_tracked, "PT": self.partly_tracked,
            "ML": self.mostly_lost, "Frag": self.fragments, "Frames": self.frames,
        }

    def figures_of_one_video(self) -> dict[str, float]:
        """As `figures`; a video without true objects has only false alarms, zeros, and MLR 1, whatever was found in it."""
        figures = self.figures()
        if self.tp + self.fn == 0:
            figures = {**dict.fromkeys(figures, 0.0), "MLR": 1.0, "FP": self.fp}
        return figures


def clear_counts(data: Prepared, iou_threshold: float = 0.5) -> ClearCounts:
    """The counts of one class of one video. A video without any true or any found box has 0 frames, as in TrackEval."""
    if not len(data.found_ids):
        return ClearCounts(fn=len(data.ids), mostly_lost=data.num_ids)
    if not len(data.ids):
        return ClearCounts(fp=len(data.found_ids))
    before = _row_before(data)
    partner, overlap = _partners(data, before, iou_threshold)
    matched = partner >= 0
    tp = int(matched.sum())
    seen = np.bincount(data.ids, minlength=data.num_ids)
    tracked = np.bincount(data.ids[matched], minlength=data.num_ids) / seen
    mostly, at_least_partly = int((tracked > 0.8).sum()), int((tracked >= 0.2).sum())
    continued = matched & (before >= 0) & matched[before]
    starts = np.bincount(data.ids[matched & ~continued], minlength=data.num_ids)
    return ClearCounts(
        tp=tp, fn=len(data.ids) - tp, fp=len(data.found_ids) - tp, switches=_switches(data.ids[matched], partner[matched]),
        mostly_tracked=mostly, partly_tracked=at_least_partly - mostly, mostly_lost=data.num_ids - at_least_partly,
        fragments=int(np.maximum(starts - 1, 0).sum()), frames=data.num_frames, overlap=float(overlap.sum()),
    )


def _row_before(data: Prepared) -> np.ndarray:
    """(n,): the row of the same object in the last frame that has true and found boxes, -1 where it is not there."""
    active = np.intersect1d(data.frame, data.found_frame)
    place = np.searchsorted(active, data.frame)
    judged = np.isin(data.frame, active)
    rows = np.flatnonzero(judged)
    order = rows[np.lexsort((place[rows], data.ids[rows]))]
    follows = (np.diff(data.ids[order]) == 0) & (np.diff(place[order]) == 1)
    before = np.full(len(data.ids), -1)
    before[order[1:][follows]] = order[:-1][follows]
    return before


def _partners(data: Prepared, before: np.ndarray, iou_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the found id that each true row is matched with, -1 for none; and the overlaps of the matches."""
    near = data.pairs.take(data.pairs.overlap >= iou_threshold - EPSILON)
    near = near.take(near.overlap > EPSILON)
    chosen = alone(near.truth, near.found, len(data.ids), len(data.found_ids))
    partner = np.full(len(data.ids), -1)
    partner[near.truth[chosen]] = data.found_ids[near.found[chosen]]
    groups = Groups.of(near.truth, near.found, chosen, len(data.ids), len(data.found_ids))
    for contest in contests(near.truth, near.found, groups, data.frame, data.found_frame):  # in order, for each frame needs the partners before
        earlier, found_ids = before[near.truth[contest.own]], data.found_ids[near.found[contest.own]]
        keeps = (earlier >= 0) & (partner[earlier] == found_ids)
        best = contest.winners(_KEEP_PARTNER * keeps + near.overlap[contest.own])
        chosen[best] = True
        partner[near.truth[best]] = data.found_ids[near.found[best]]
    return partner, near.overlap[chosen]


def _switches(ids: np.ndarray, partners: np.ndarray) -> int:
    """How often the partner of an object differs from its last one; rows are sorted by frame."""
    order = np.argsort(ids, kind="stable")
    return int(((np.diff(ids[order]) == 0) & (np.diff(partners[order]) != 0)).sum())
