"""One-to-one matching of true and found boxes frame by frame, with the largest sum of scores.

Most boxes of a frame have one candidate that has no other: these pairs are taken for all frames at once. What is left of a frame is a small table for
scipy's Hungarian method. Where several matchings are equally good, the frame is solved again with its full table, rows and columns in file order, as
TrackEval does, so that the choice among equals is the same.
"""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment

from saccade.metrics.mot.pairs import EPSILON

_EQUAL = 1e-12


def match(truth: np.ndarray, found: np.ndarray, score: np.ndarray, frame: np.ndarray, found_frame: np.ndarray) -> np.ndarray:
    """(k,) bool: the pairs that are chosen among `truth` (k,), `found` (k,) row numbers, sorted by truth, with `score` (k,) > 0.

    `frame` (n,) and `found_frame` (m,) are the frames of all rows, sorted.
    """
    chosen = alone(truth, found, len(frame), len(found_frame))
    for own, still_open in contested(truth, chosen, frame):
        chosen[own] |= best_of_frame(truth[own], found[own], score[own], still_open, frame, found_frame)
    return chosen


def alone(truth: np.ndarray, found: np.ndarray, num_truth: int, num_found: int) -> np.ndarray:
    """(k,) bool: the pairs both of whose boxes have no other candidate."""
    single: np.ndarray = (np.bincount(truth, minlength=num_truth)[truth] == 1) & (np.bincount(found, minlength=num_found)[found] == 1)
    return single


def contested(truth: np.ndarray, settled: np.ndarray, frame: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """For each frame that has pairs which are not `settled`, in order: where its pairs lie, and the mask of the open ones among them."""
    still_open = ~settled
    frames = frame[truth]
    for number in np.unique(frames[still_open]):
        own = slice(*np.searchsorted(frames, [number, number + 1]))
        yield own, still_open[own]


def best_of_frame(
    truth: np.ndarray, found: np.ndarray, score: np.ndarray, still_open: np.ndarray, frame: np.ndarray, found_frame: np.ndarray
) -> np.ndarray:
    """(k,) bool: the chosen ones of the pairs `still_open` (k,) among the pairs (k,) of one frame; the others are alone."""
    rows, row = np.unique(truth[still_open], return_inverse=True)
    columns, column = np.unique(found[still_open], return_inverse=True)
    table = np.zeros((len(rows), len(columns)))
    table[row, column] = score[still_open]
    at, to = linear_sum_assignment(table, maximize=True)
    # Longer exchanges that change nothing do not happen among different scores, but for numbers made up for it.
    if (np.diff(np.sort(score[still_open])) <= _EQUAL).any() or _others_as_good(table, at, to):
        number = frame[truth[0]]
        first, last = np.searchsorted(frame, [number, number + 1])
        first_found, last_found = np.searchsorted(found_frame, [number, number + 1])
        table = np.zeros((last - first, last_found - first_found))
        table[truth - first, found - first_found] = score
        at, to = linear_sum_assignment(-table)
        row, column = truth[still_open] - first, found[still_open] - first_found
    partner = np.full(len(table), -1)
    partner[at] = to
    best = np.zeros(len(truth), dtype=bool)
    best[still_open] = partner[row] == column
    return best


def _others_as_good(table: np.ndarray, at: np.ndarray, to: np.ndarray) -> bool:
    """Whether exchanging two partners, or one for a free box, changes nothing in the sum though it changes who is matched (scores above zero)."""
    scores = table[at, to]
    crossed = table[np.ix_(at, to)]
    other = crossed + crossed.T
    loss = scores[:, None] + scores[None] - other
    np.fill_diagonal(loss, np.inf)
    if ((loss <= _EQUAL * (1 + other)) & (other > EPSILON)).any():
        return True
    free_rows, free_columns = np.ones(table.shape[0], dtype=bool), np.ones(table.shape[1], dtype=bool)
    free_rows[at], free_columns[to] = False, False
    to_column, to_row = table[np.ix_(at, np.flatnonzero(free_columns))], table[np.ix_(np.flatnonzero(free_rows), to)]
    return bool(
        ((scores[:, None] - to_column <= _EQUAL * (1 + to_column)) & (to_column > EPSILON)).any()
        or ((scores[None] - to_row <= _EQUAL * (1 + to_row)) & (to_row > EPSILON)).any()
    )
