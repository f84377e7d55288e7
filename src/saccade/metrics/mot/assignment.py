"""One-to-one matching of true and found boxes frame by frame, with the largest sum of scores.

Most boxes of a frame have one candidate that has no other: these pairs are taken for all frames at once. What is left falls into groups that share no
box, nearly always of two or three pairs, which are solved by looking; larger ones by scipy's Hungarian method. Where several matchings of a group are
equally good, the whole frame is solved with its full table, rows and columns in file order, as TrackEval does, so that the choice among equals is the
same.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from saccade.metrics.mot.pairs import EPSILON

_EQUAL = 1e-12
_FEW = 6  # groups of a frame that are solved one by one; more are one table


def match(truth: np.ndarray, found: np.ndarray, score: np.ndarray, frame: np.ndarray, found_frame: np.ndarray) -> np.ndarray:
    """(k,) bool: the pairs that are chosen among `truth` (k,), `found` (k,) row numbers, sorted by truth, with `score` (k,) > 0.

    `frame` (n,) and `found_frame` (m,) are the frames of all rows, sorted.
    """
    chosen = alone(truth, found, len(frame), len(found_frame))
    groups = Groups.of(truth, found, chosen, len(frame), len(found_frame))
    settled = chosen.copy()
    for pairs, won in groups.small(truth, found, score):
        settled[pairs], chosen[pairs] = True, won
    for contest in contests(truth, found, groups.without(settled), frame, found_frame):
        chosen[contest.winners(score[contest.own])] = True
    return chosen


def alone(truth: np.ndarray, found: np.ndarray, num_truth: int, num_found: int) -> np.ndarray:
    """(k,) bool: the pairs both of whose boxes have no other candidate."""
    single: np.ndarray = (np.bincount(truth, minlength=num_truth)[truth] == 1) & (np.bincount(found, minlength=num_found)[found] == 1)
    return single


@dataclass(frozen=True)
class Groups:
    """Pairs that are linked by common boxes: `pairs` (q,) their numbers, group after group in the order of their boxes; `starts` (g,) where each
    group begins among them; `num_rows` and `num_columns` (g,) how many true and found boxes it has."""

    pairs: np.ndarray
    starts: np.ndarray
    num_rows: np.ndarray
    num_columns: np.ndarray

    @classmethod
    def of(cls, truth: np.ndarray, found: np.ndarray, settled: np.ndarray, num_truth: int, num_found: int) -> Groups:
        """The groups of the pairs that are not `settled` (k,)."""
        pairs = np.flatnonzero(~settled)
        size = num_truth + num_found
        links = coo_array((np.ones(len(pairs), dtype=np.int8), (truth[pairs], found[pairs] + num_truth)), shape=(size, size))
        group = connected_components(links, directed=False)[1]  # of every box; numbered by their first true boxes, and so by frames
        of_pair = group[truth[pairs]]
        order = np.argsort(of_pair, kind="stable")
        own = of_pair[order]
        starts = np.flatnonzero(np.diff(own, prepend=-1))
        rows, columns = (np.bincount(part, minlength=group.max(initial=0) + 1)[own[starts]] for part in (group[:num_truth], group[num_truth:]))
        return cls(pairs[order], starts, rows, columns)

    def without(self, settled: np.ndarray) -> Groups:
        """The groups whose pairs are not `settled` (k,)."""
        kept = ~settled[self.pairs[self.starts]]
        sizes = np.diff(self.starts, append=len(self.pairs))
        starts = np.cumsum(sizes[kept]) - sizes[kept]
        return Groups(self.pairs[np.repeat(kept, sizes)], starts, self.num_rows[kept], self.num_columns[kept])

    def small(self, truth: np.ndarray, found: np.ndarray, score: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs and which of them are chosen, for the groups of one box with several candidates and of two true and two found boxes; those where
        several choices are equally good are left out."""
        sizes = np.diff(self.starts, append=len(self.pairs))
        star, square = np.minimum(self.num_rows, self.num_columns) == 1, (self.num_rows == 2) & (self.num_columns == 2)
        for kind, solve in ((star, _stars), (square, _squares)):
            if kind.any():
                pairs, own_sizes = self.pairs[np.repeat(kind, sizes)], sizes[kind]
                starts = np.cumsum(own_sizes) - own_sizes
                won, clear = solve(truth[pairs], found[pairs], score[pairs], starts, own_sizes)
                of_clear = np.repeat(clear, own_sizes)
                yield pairs[of_clear], won[of_clear]


def _stars(truth: np.ndarray, found: np.ndarray, score: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best pair of each group, and (g,) whether it is the only best one."""
    best = np.maximum.reduceat(score, starts)
    near = score >= np.repeat(best - _EQUAL * (1 + best), sizes)
    return near, np.add.reduceat(near.astype(np.int64), starts) == 1


def _squares(truth: np.ndarray, found: np.ndarray, score: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The better diagonal of each group's 2 x 2 table, and (g,) whether it is better."""
    straight = (truth == np.repeat(truth[starts], sizes)) == (found == np.repeat(found[starts], sizes))
    gain = np.add.reduceat(np.where(straight, score, -score), starts)
    return straight == np.repeat(gain > 0, sizes), np.abs(gain) > _EQUAL * (1 + np.abs(gain))


@dataclass(frozen=True)
class Contest:
    """The open pairs of one frame. `own`: where all pairs of the frame lie; `rows` and `columns` of each of them, counted within the frame; `groups`:
    the places within `own` of the open pairs that are linked; `size`: true and found boxes in the frame."""

    own: slice
    rows: np.ndarray
    columns: np.ndarray
    groups: list[list[int]]
    size: tuple[int, int]

    def winners(self, score: np.ndarray) -> np.ndarray:
        """The numbers of the chosen pairs among all; `score` has one value for each pair of the frame."""
        everything = np.array([place for group in self.groups for place in group])
        won: np.ndarray | None
        if len(self.groups) <= _FEW and len(everything) <= 4 * _FEW:
            won = self._by_looking(score)
        else:
            won = _best_of_table(self.rows[everything], self.columns[everything], score[everything])
            won = None if won is None else everything[won]
        if won is None:
            table = np.zeros(self.size)
            table[self.rows, self.columns] = score
            partner = np.full(self.size[0], -1)
            at, to = linear_sum_assignment(-table)
            partner[at] = to
            won = everything[partner[self.rows[everything]] == self.columns[everything]]
        return won + self.own.start

    def _by_looking(self, score: np.ndarray) -> np.ndarray | None:
        rows, columns, values, best = self.rows.tolist(), self.columns.tolist(), score.tolist(), list[int]()
        for group in self.groups:
            won = _best_of_group(group, rows, columns, values)
            if won is None:
                return None
            best += won
        return np.array(best)


def contests(truth: np.ndarray, found: np.ndarray, groups: Groups, frame: np.ndarray, found_frame: np.ndarray) -> Iterator[Contest]:
    """One for each frame that has such groups, in order."""
    pairs, starts = groups.pairs, groups.starts
    if not len(pairs):
        return
    bounds = [*starts.tolist(), len(pairs)]
    numbers = frame[truth[pairs[starts]]]
    firsts_of_frames = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
    frames = numbers[firsts_of_frames]
    rows = np.searchsorted(frame, [frames, frames + 1])
    found_rows = np.searchsorted(found_frame, [frames, frames + 1])
    first_pair, last_pair = np.searchsorted(truth, rows).tolist()
    (row, row_end), (column, column_end) = rows.tolist(), found_rows.tolist()
    group = [*firsts_of_frames.tolist(), len(starts)]
    for i in range(len(frames)):
        own, shift = slice(first_pair[i], last_pair[i]), bounds[group[i]]
        places = (pairs[shift : bounds[group[i + 1]]] - own.start).tolist()
        linked = [places[bounds[g] - shift : bounds[g + 1] - shift] for g in range(group[i], group[i + 1])]
        yield Contest(own, truth[own] - row[i], found[own] - column[i], linked, (row_end[i] - row[i], column_end[i] - column[i]))


def _best_of_group(group: list[int], rows: list[int], columns: list[int], score: list[float]) -> list[int] | None:
    """The chosen ones among the pairs of a group; None where several choices are equally good."""
    own_rows, own_columns = {rows[place] for place in group}, {columns[place] for place in group}
    choices: list[tuple[float, tuple[int, ...]]] = [(score[place], (place,)) for place in group]
    if len(own_rows) > 2 or len(own_columns) > 2:
        if min(len(own_rows), len(own_columns)) > 1:
            row, column, own = (np.array([side[place] for place in group]) for side in (rows, columns, score))
            won = _best_of_table(row, column, own)
            return None if won is None else [group[place] for place in np.flatnonzero(won).tolist()]
    elif len(own_rows) == len(own_columns) == 2:
        choices += [
            (score[a] + score[b], (a, b)) for i, a in enumerate(group) for b in group[i + 1 :] if rows[a] != rows[b] and columns[a] != columns[b]
        ]
    (best, pairs), (second, _) = sorted(choices, reverse=True)[:2]
    return None if best - second <= _EQUAL * (1 + best) else list(pairs)


def _best_of_table(row: np.ndarray, column: np.ndarray, score: np.ndarray) -> np.ndarray | None:
    """(k,) bool: the chosen ones among pairs with `row`, `column` and `score` (k,); None where several choices are equally good."""
    (num_rows, row), (num_columns, column) = _ranked(row), _ranked(column)
    table = np.zeros((num_rows, num_columns))
    table[row, column] = score
    at, to = linear_sum_assignment(table, maximize=True)
    column_partner, row_partner = np.full(num_rows, -1), np.full(num_columns, -1)
    column_partner[at], row_partner[to] = to, at
    won: np.ndarray = column_partner[row] == column
    # What each other pair would gain, with what its boxes' partners could then have together, against what is lost.
    lost = ~won
    other_column, other_row = column_partner[row[lost]], row_partner[column[lost]]
    kept = np.where(other_column >= 0, table[row[lost], other_column], 0) + np.where(other_row >= 0, table[other_row, column[lost]], 0)
    gained = score[lost] + np.where((other_column >= 0) & (other_row >= 0), table[other_row, other_column], 0)
    ordered = np.sort(score)
    # Longer exchanges that change nothing do not happen among different scores, but for numbers made up for it.
    equal = (kept - gained <= _EQUAL * (1 + gained)).any() or (ordered[1:] - ordered[:-1] <= EPSILON).any()
    return None if equal else won


def _ranked(numbers: np.ndarray) -> tuple[int, np.ndarray]:
    """How many different numbers there are, and the rank of each."""
    there = np.zeros(numbers.max() + 1, dtype=bool)
    there[numbers] = True
    rank = np.cumsum(there) - 1
    return int(rank[-1]) + 1, rank[numbers]
