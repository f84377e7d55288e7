"""Which detection continues which track: optimal assignments with a limit, and the overlaps that they start from."""
from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from saccade.ops.boxes import pairwise_iou
from saccade.tracking.contract import Flags, Floats, Integers

Pairs = tuple[Integers, Integers]  # rows and columns that belong together, by row


def overlaps(first: Floats, second: Floats) -> Floats:
    """Intersection over union (n, m) of boxes (n, 4) with boxes (m, 4); 0 where a box is not finite."""
    iou = pairwise_iou(torch.from_numpy(np.ascontiguousarray(first)), torch.from_numpy(np.ascontiguousarray(second))).numpy()
    return np.nan_to_num(iou, copy=False)


def same_class(first: Integers, second: Integers, within_class: bool) -> Flags:
    """(n, m): whether two labels may belong to one track: always, or where they are equal."""
    return first[:, None] == second[None, :] if within_class else np.ones((len(first), len(second)), dtype=bool)


def match_below(costs: Floats, limit: float) -> Pairs:
    """Pairs of rows and columns with the least total cost, where leaving a row and a column alone costs `limit` together.

    That is the assignment that the `lapjv` of ByteTrack's code solves with `cost_limit`: no pair costs `limit` or more. `costs` may hold infinities.
    """
    gains = np.minimum(costs - limit, 0.0)
    rows, columns = linear_sum_assignment(gains)
    worth = gains[rows, columns] < 0
    return rows[worth], columns[worth]


def match_gated(costs: Floats, limit: float) -> Pairs:
    """Pairs as DeepSORT makes them: costs above `limit` count as just above it, as many pairs as possible, of which those above are then dropped."""
    rows, columns = linear_sum_assignment(np.minimum(costs, limit + 1e-5))
    worth = costs[rows, columns] <= limit
    return rows[worth], columns[worth]


def match_overlaps(iou: Floats, least: float, bonus: Floats | None = None) -> Pairs:
    """Pairs as SORT makes them: the largest total of overlaps (n, m) (plus `bonus`), of which pairs that overlap less than `least` are dropped.

    Where every row and column has at most one overlap above `least`, and there is one, these are the pairs.
    """
    if iou.size == 0:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing
    above = iou > least
    if above.sum(1).max() == 1 and above.sum(0).max() == 1:
        rows, columns = above.nonzero()
        return rows, columns
    return match_best(iou, least, bonus)


def match_best(iou: Floats, least: float, bonus: Floats | None = None) -> Pairs:
    """Pairs with the largest total of overlaps (n, m) (plus `bonus`), of which those that overlap less than `least` are dropped."""
    rows, columns = linear_sum_assignment(iou if bonus is None else iou + bonus, maximize=True)
    worth = iou[rows, columns] >= least
    return rows[worth], columns[worth]


def others(count: int, taken: Integers) -> Integers:
    """The numbers below `count` that are not in `taken`, ascending."""
    left = np.ones(count, dtype=bool)
    left[taken] = False
    return left.nonzero()[0]
