"""Assignments with limits against exhaustive search and the extended matrix."""
from __future__ import annotations

import itertools

import numpy as np
import pytest

from saccade.tracking.assignment import match_below, match_overlaps, others, overlaps
from tracking import textbook


@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (6, 3), (0, 3), (3, 0)])
def test_a_limited_assignment_is_that_of_the_extended_matrix(shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    for _ in range(30):
        costs = draw.uniform(0, 1, shape)
        costs[draw.random(shape) < 0.2] = np.inf
        rows, columns = match_below(costs, 0.6)
        assert list(zip(rows, columns, strict=True)) == textbook.limited_pairs(costs, 0.6)


def test_a_limited_assignment_costs_least() -> None:
    draw = np.random.default_rng(1)
    costs, limit = draw.uniform(0, 1, (4, 4)), 0.5
    rows, columns = match_below(costs, limit)
    every = (list(zip(chosen, order, strict=True)) for k in range(5) for chosen in itertools.combinations(range(4), k)
             for order in itertools.permutations(range(4), k))
    least = min(sum(costs[i, j] - limit for i, j in pairs) for pairs in every)
    assert (costs[rows, columns] - limit).sum() == pytest.approx(least)


def test_overlaps_that_are_one_to_one_need_no_assignment() -> None:
    # The largest total would be the two of 0.3, both below the limit: nothing would be left.
    iou = np.array([[0.32, 0.30], [0.30, 0.0]])
    assert [x.tolist() for x in match_overlaps(iou, 0.31)] == [[0], [0]]


def test_overlaps_equal_the_textbook_and_are_nothing_where_a_box_is_none() -> None:
    draw = np.random.default_rng(2)
    corner = draw.uniform(0, 50, (9, 2))
    boxes = np.concatenate([corner, corner + draw.uniform(1, 40, (9, 2))], 1)
    np.testing.assert_allclose(overlaps(boxes[:4], boxes[4:]), textbook.table(list(boxes[:4]), list(boxes[4:]), textbook.iou), atol=1e-12)
    assert (overlaps(np.full((1, 4), np.nan), boxes) == 0).all()


def test_others_are_those_not_taken() -> None:
    assert others(5, np.array([3, 0])).tolist() == [1, 2, 4] and others(0, np.zeros(0, dtype=np.int64)).tolist() == []
