"""HOTA (Luiten et al., HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking, 2020): detection, association and localisation together.

Boxes are matched once a frame by overlap times the global alignment of their tracks; a match counts at every threshold that its overlap reaches, so
all 19 come from one histogram of the matches. Equal to TrackEval.
"""
from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from saccade.metrics.mot.assignment import match
from saccade.metrics.mot.pairs import EPSILON
from saccade.metrics.mot.prepared import Prepared

THRESHOLDS = np.arange(0.05, 0.99, 0.05)
AVERAGED = ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA", "OWTA")


def _zeros() -> np.ndarray:
    return np.zeros(len(THRESHOLDS))


@dataclass(frozen=True)
class HotaCounts:
    """What adds up over videos and classes, each (19,): matches, misses, false alarms, the sum of the matches' overlaps, and the sums over the
    matches of how much of both tracks, of the true and of the found one they cover."""

    tp: np.ndarray = field(default_factory=_zeros)
    fn: np.ndarray = field(default_factory=_zeros)
    fp: np.ndarray = field(default_factory=_zeros)
    overlap: np.ndarray = field(default_factory=_zeros)
    association: np.ndarray = field(default_factory=_zeros)
    association_recall: np.ndarray = field(default_factory=_zeros)
    association_precision: np.ndarray = field(default_factory=_zeros)

    def __add__(self, other: HotaCounts) -> HotaCounts:
        return HotaCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def figures(self) -> dict[str, np.ndarray | float]:
        """TrackEval's fields by their names there: (19,) each, and the three figures at the lowest threshold."""
        tp, matches = self.tp, np.maximum(1, self.tp)
        detection, association = tp / np.maximum(1, tp + self.fn + self.fp), self.association / matches
        recall = tp / np.maximum(1, tp + self.fn)
        values: dict[str, np.ndarray | float] = {
            "HOTA": np.sqrt(detection * association),
            "DetA": detection,
            "AssA": association,
            "DetRe": recall,
            "DetPr": tp / np.maximum(1, tp + self.fp),
            "AssRe": self.association_recall / matches,
            "AssPr": self.association_precision / matches,
            "LocA": np.maximum(1e-10, self.overlap) / np.maximum(1e-10, tp),
            "OWTA": np.sqrt(recall * association),
            "HOTA_TP": tp, "HOTA_FN": self.fn, "HOTA_FP": self.fp,
        }
        first = {f"{name}(0)": float(np.asarray(values[name])[0]) for name in ("HOTA", "LocA")}
        return values | first | {"HOTALocA(0)": first["HOTA(0)"] * first["LocA(0)"]}


def hota_counts(data: Prepared) -> HotaCounts:
    """The counts of one class of one video."""
    pairs, width = data.pairs, max(1, data.num_found_ids)
    keys, key = np.unique(data.ids[pairs.truth] * width + data.found_ids[pairs.found], return_inverse=True)
    lengths = np.bincount(data.ids, minlength=data.num_ids)[keys // width]
    found_lengths = np.bincount(data.found_ids, minlength=data.num_found_ids)[keys % width]
    chosen = _matches(data, key, len(keys), lengths + found_lengths)
    reached = np.searchsorted(THRESHOLDS - EPSILON, pairs.overlap[chosen], side="right")  # how many thresholds each match reaches
    # Numbers and sums of the matches that reach each threshold: histograms, added up from the highest one down.
    tp = _from_above(np.bincount(reached, minlength=len(THRESHOLDS) + 1))
    overlap = _from_above(np.bincount(reached, weights=pairs.overlap[chosen], minlength=len(THRESHOLDS) + 1))
    steps = np.bincount(key[chosen] * (len(THRESHOLDS) + 1) + reached, minlength=len(keys) * (len(THRESHOLDS) + 1))
    common = _from_above(steps.reshape(len(keys), len(THRESHOLDS) + 1))  # (pairs of tracks, 19)
    length, found_length = lengths[:, None], found_lengths[:, None]
    squares = common * common
    return HotaCounts(
        tp=tp, fn=len(data.ids) - tp, fp=len(data.found_ids) - tp, overlap=overlap,
        association=(squares / np.maximum(1, length + found_length - common)).sum(0),
        association_recall=(squares / np.maximum(1, length)).sum(0),
        association_precision=(squares / np.maximum(1, found_length)).sum(0),
    )


def _matches(data: Prepared, key: np.ndarray, num_keys: int, both_lengths: np.ndarray) -> np.ndarray:
    """(k,) bool: the matched pairs; `key` (k,) numbers the pair of tracks that each belongs to."""
    pairs = data.pairs
    row_sum = np.bincount(pairs.truth, weights=pairs.overlap, minlength=len(data.ids))
    column_sum = np.bincount(pairs.found, weights=pairs.overlap, minlength=len(data.found_ids))
    either = column_sum[pairs.found] + row_sum[pairs.truth] - pairs.overlap
    share = np.divide(pairs.overlap, either, out=np.zeros(len(pairs)), where=either > EPSILON)
    potential = np.bincount(key, weights=share, minlength=num_keys)
    alignment = potential / (both_lengths - potential)
    return match(pairs.truth, pairs.found, alignment[key] * pairs.overlap, data.frame, data.found_frame)


def _from_above(steps: np.ndarray) -> np.ndarray:
    """(..., 19) from (..., 20): how much has reached each threshold or more, given how much reaches exactly 0, 1, ... 19 of them."""
    result: np.ndarray = steps[..., :0:-1].cumsum(-1)[..., ::-1].astype(np.float64)
    return result
