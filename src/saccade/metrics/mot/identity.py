"""Identity figures (Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking, 2016).

Whole true tracks are matched one to one with whole found tracks so that the most frames agree. The usual cost matrix with a dummy for every track has
the same best sum as the matching that maximises the common frames, which is a far smaller table.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from saccade.metrics.mot.prepared import Prepared


@dataclass(frozen=True)
class IdentityCounts:
    """Boxes with the right identity, true ones without, found ones without."""

    tp: int = 0
    fn: int = 0
    fp: int = 0

    def __add__(self, other: IdentityCounts) -> IdentityCounts:
        return IdentityCounts(self.tp + other.tp, self.fn + other.fn, self.fp + other.fp)

    def figures(self) -> dict[str, float]:
        """TrackEval's fields by their names there."""
        return {
            "IDF1": self.tp / max(1.0, self.tp + 0.5 * self.fp + 0.5 * self.fn),
            "IDR": self.tp / max(1, self.tp + self.fn),
            "IDP": self.tp / max(1, self.tp + self.fp),
            "IDTP": self.tp, "IDFN": self.fn, "IDFP": self.fp,
        }


def identity_counts(data: Prepared, iou_threshold: float = 0.5) -> IdentityCounts:
    """The counts of one class of one video; a pair of boxes agrees from an overlap of `iou_threshold` on."""
    near = data.pairs.overlap >= iou_threshold
    true_ids, row = np.unique(data.ids[data.pairs.truth[near]], return_inverse=True)
    found_ids, column = np.unique(data.found_ids[data.pairs.found[near]], return_inverse=True)
    together = np.bincount(row * len(found_ids) + column, minlength=len(true_ids) * len(found_ids)).reshape(len(true_ids), len(found_ids))
    tp = int(together[linear_sum_assignment(together, maximize=True)].sum())
    return IdentityCounts(tp, len(data.ids) - tp, len(data.found_ids) - tp)
