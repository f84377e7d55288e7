"""The figures of py-motmetrics, which older papers and MOTChallenge's first boards report; they differ a little from TrackEval's on the same tables.

An object keeps its last partner however long ago that was, if it is there and near enough; the rest is matched so that as many as possible are, then
with the smallest distance (1 - overlap). A switch is a partner other than the last one; `transfer` a found track that goes to another object,
`ascend` a switch to a found track that had no object before, `migrate` a transfer to an object that had no partner before.
"""
from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
from scipy.optimize import linear_sum_assignment

from saccade.metrics.mot.identity import IdentityCounts, identity_counts
from saccade.metrics.mot.prepared import Prepared

_NEVER = 10.0  # the cost of a pair that is not near enough, above that of any table's other pairs


@dataclass(frozen=True)
class MotmetricsCounts:
    """What adds up over videos. Frames without any box do not count; `distance` is the sum over the matches and switches."""

    frames: int = 0
    objects: int = 0
    predictions: int = 0
    unique_objects: int = 0
    matches: int = 0
    switches: int = 0
    false_positives: int = 0
    misses: int = 0
    fragmentations: int = 0
    transfer: int = 0
    ascend: int = 0
    migrate: int = 0
    mostly_tracked: int = 0
    partially_tracked: int = 0
    mostly_lost: int = 0
    distance: float = 0.0
    identity: IdentityCounts = field(default_factory=IdentityCounts)

    def __add__(self, other: MotmetricsCounts) -> MotmetricsCounts:
        return MotmetricsCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def figures(self) -> dict[str, float]:
        """py-motmetrics's columns by their names there; nan where there is nothing to divide by. `motp` is a mean distance."""
        detected = self.matches + self.switches
        wrong = self.misses + self.switches + self.false_positives
        tp, fp, fn = self.identity.tp, self.identity.fp, self.identity.fn
        return {
            "num_frames": self.frames, "num_objects": self.objects, "num_predictions": self.predictions, "num_unique_objects": self.unique_objects,
            "num_matches": self.matches, "num_switches": self.switches, "num_false_positives": self.false_positives, "num_misses": self.misses,
            "num_detections": detected, "num_fragmentations": self.fragmentations, "num_transfer": self.transfer, "num_ascend": self.ascend,
            "num_migrate": self.migrate, "mota": 1 - _share(wrong, self.objects), "motp": _share(self.distance, detected),
            "precision": _share(detected, detected + self.false_positives), "recall": _share(detected, self.objects),
            "idf1": _share(2 * tp, self.objects + self.predictions), "idp": _share(tp, tp + fp), "idr": _share(tp, tp + fn),
            "idtp": tp, "idfp": fp, "idfn": fn,
            "mostly_tracked": self.mostly_tracked, "partially_tracked": self.partially_tracked, "mostly_lost": self.mostly_lost,
        }


def motmetrics_counts(data: Prepared, iou_threshold: float = 0.5) -> MotmetricsCounts:
    """The counts of one video; a pair is near enough from an overlap of `iou_threshold` on."""
    near = data.pairs.take(1 - data.pairs.overlap <= 1 - iou_threshold)
    history = _History()
    partner, frames = np.full(len(data.ids), -1), np.union1d(data.frame, data.found_frame)
    distance = 0.0
    for number in np.unique(data.frame[near.truth]):
        own = slice(*np.searchsorted(data.frame[near.truth], [number, number + 1]))
        chosen = history.match(data.ids[near.truth[own]], data.found_ids[near.found[own]], 1 - near.overlap[own])
        partner[near.truth[own][chosen]] = data.found_ids[near.found[own][chosen]]
        distance += float((1 - near.overlap[own][chosen]).sum())
    matched = partner >= 0
    seen = np.bincount(data.ids, minlength=data.num_ids)
    ratio = np.bincount(data.ids[matched], minlength=data.num_ids) / np.maximum(1, seen)
    mostly, lost = int((ratio >= 0.8).sum()), int((ratio < 0.2).sum())
    detected = int(matched.sum())
    return MotmetricsCounts(
        frames=len(frames), objects=len(data.ids), predictions=len(data.found_ids), unique_objects=data.num_ids, matches=detected - history.switches,
        switches=history.switches, false_positives=len(data.found_ids) - detected, misses=len(data.ids) - detected,
        fragmentations=_fragmentations(data.ids, matched), transfer=history.transfers, ascend=history.ascents, migrate=history.migrations,
        mostly_tracked=mostly, partially_tracked=data.num_ids - mostly - lost, mostly_lost=lost, distance=distance,
        identity=identity_counts(data, iou_threshold),
    )


class _History:
    """Who was matched with whom so far, and what changed."""

    def __init__(self) -> None:
        self.partner: dict[int, int] = {}  # of each object, the last one
        self._taken_by: dict[int, int] = {}  # of each found track, the object that it was last newly matched with
        self._found: set[int] = set()  # found tracks that were matched
        self.switches = self.transfers = self.ascents = self.migrations = 0

    def match(self, truth: np.ndarray, found: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """(k,) bool: the chosen ones of the near pairs (k,) of one frame, sorted by the objects' order in the file."""
        kept = self._kept(truth.tolist(), found.tolist())
        left = ~(np.isin(truth, truth[kept]) | np.isin(found, found[kept]))
        chosen = kept.copy()
        if left.any():
            rows, row = _numbered(truth[left])
            columns, column = _numbered(found[left])
            table = np.full((rows, columns), _NEVER * min(rows, columns))
            table[row, column] = distance[left]
            partner = np.full(rows, -1)
            at, to = linear_sum_assignment(table)
            partner[at] = to
            chosen[np.flatnonzero(left)[partner[row] == column]] = True
        self._found |= set(found[kept].tolist())
        for i in np.flatnonzero(chosen & ~kept):
            self._newly(int(truth[i]), int(found[i]))
        return chosen

    def _kept(self, truth: list[int], found: list[int]) -> np.ndarray:
        kept = np.zeros(len(truth), dtype=bool)
        used: set[int] = set()
        for i, (true_id, found_id) in enumerate(zip(truth, found, strict=True)):
            if self.partner.get(true_id) == found_id and found_id not in used:
                kept[i] = True
                used.add(found_id)
        return kept

    def _newly(self, true_id: int, found_id: int) -> None:
        if true_id in self.partner and self.partner[true_id] != found_id:
            self.switches += 1
            self.ascents += found_id not in self._found
        if self._taken_by.get(found_id, true_id) != true_id:
            self.transfers += 1
            self.migrations += true_id not in self.partner
        self.partner[true_id], self._taken_by[found_id] = found_id, true_id
        self._found.add(found_id)


def _numbered(ids: np.ndarray) -> tuple[int, np.ndarray]:
    """How many different ids there are, and the number of each by first occurrence."""
    known, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return len(known), np.argsort(np.argsort(first))[inverse]


def _fragmentations(ids: np.ndarray, matched: np.ndarray) -> int:
    """How often an object that is found again later gets lost; rows are sorted by frame."""
    order = np.argsort(ids, kind="stable")
    own, tracked = ids[order], matched[order]
    starts = tracked & ~np.concatenate([[False], (np.diff(own) == 0) & tracked[:-1]])[: len(own)]
    return int(np.maximum(np.bincount(own[starts]) - 1, 0).sum()) if len(own) else 0


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
