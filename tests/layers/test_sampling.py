"""Sampling: how many, of which, and each choice with equal chances."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saccade.layers.assigning import IGNORED, NEGATIVE, Assignment
from saccade.layers.sampling import Sampler, choose_evenly, choose_randomly


def assignment(*counts: int, background: int, ignored: int = 7, overlaps: Tensor | None = None) -> Assignment:
    """`counts` boxes of each object, then background, then ignored ones."""
    matched = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)] + [torch.full((background,), NEGATIVE), torch.full((ignored,), IGNORED)])
    return Assignment(matched, torch.zeros(len(matched)) if overlaps is None else overlaps)


@pytest.mark.parametrize("number", [0, 1, 7, 30, 31, 50])
def test_even_choice_takes_the_places_of_its_definition(number: int) -> None:
    candidates = torch.rand(40, generator=torch.Generator().manual_seed(2)) < 0.8
    places = candidates.nonzero().squeeze(1)
    count = len(places)
    expected = places if count <= number else places[[i * count // number for i in range(number)]]
    assert choose_evenly(candidates, torch.tensor(number)).nonzero().squeeze(1).tolist() == expected.tolist()


def test_random_choice_gives_every_candidate_the_same_chance_and_others_none() -> None:
    torch.manual_seed(5)
    candidates = torch.tensor([True, False, True, True, False, True]).expand(4000, 6)
    chosen = choose_randomly(candidates, torch.full((4000,), 2))
    assert (chosen.sum(1) == 2).all() and not chosen[:, [1, 4]].any()
    assert ((chosen.float().mean(0)[[0, 2, 3, 5]] - 0.5).abs() < 0.04).all()


@pytest.mark.parametrize("choose", [choose_randomly, choose_evenly])
def test_rows_have_their_own_numbers(choose: object) -> None:
    candidates = torch.ones(4, 9, dtype=torch.bool)
    candidates[3] = False
    assert choose(candidates, torch.tensor([0, 3, 20, 5])).sum(1).tolist() == [0, 3, 9, 0]  # type: ignore[operator]
    assert choose(torch.zeros(2, 0, dtype=torch.bool), torch.tensor([1, 2])).shape == (2, 0)  # type: ignore[operator]


def test_positives_fill_up_to_their_share_and_background_the_rest() -> None:
    few = Sampler(40, 0.25)(assignment(4, background=300))
    assert len(few.positive) == 4 and len(few.negative) == 36
    many = Sampler(40, 0.25)(assignment(50, 50, background=300))
    assert len(many.positive) == 10 and len(many.negative) == 30
    limited = Sampler(40, 0.25, negatives_per_positive=3.0)(assignment(4, background=300))
    assert len(limited.negative) == 12
    assert len(Sampler(40, 0.25, negatives_per_positive=3.0)(assignment(background=300)).negative) == 3
    assert (many.positive.diff() > 0).all() and (many.negative.diff() > 0).all()


def test_torchs_seed_decides_the_choice() -> None:
    given, sampler = assignment(30, 40, background=300), Sampler(40, 0.5)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(torch.cat(sampler(given)))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_instance_balance_takes_about_as_many_of_every_object_and_fills_up() -> None:
    torch.manual_seed(0)
    given = assignment(100, 100, 3, background=50)
    found = Sampler(60, 0.5, positives="instance_balanced")(given).positive
    counts = torch.bincount(given.matched[found], minlength=3).tolist()
    assert counts[2] == 3 and min(counts[:2]) >= 11  # at most round(30 / 3) + 1 first, then the rest from anywhere
    assert len(found) == 30  # what the original would miss by drawing some twice


def test_iou_balance_prefers_background_that_overlaps_objects() -> None:
    torch.manual_seed(0)
    overlaps = torch.cat([torch.full((10,), 0.9), torch.rand(20) * 0.2 + 0.05, torch.zeros(200), torch.zeros(7)])
    given = assignment(10, background=220, overlaps=overlaps)
    found = Sampler(40, 0.25, negatives="iou_balanced")(given).negative
    assert len(found) == 30 and set(range(10, 30)) <= set(found.tolist())  # all 20 that overlap, 10 others
    fewer = Sampler(20, 0.5, negatives="iou_balanced")(given).negative
    assert len(fewer) == 10 and (overlaps[fewer] > 0).all()


def test_images_are_sampled_apart_in_one_call() -> None:
    first, second = assignment(30, background=70, ignored=0), assignment(2, background=98, ignored=0)
    both = Assignment(torch.stack([first.matched, second.matched]), torch.stack([first.overlaps, second.overlaps]))
    positive, negative = Sampler(32, 0.5, choose=choose_evenly).masks(both)
    for row, own in enumerate((first, second)):
        expected = Sampler(32, 0.5, choose=choose_evenly)(own)
        assert torch.equal(positive[row].nonzero().squeeze(1), expected.positive)
        assert torch.equal(negative[row].nonzero().squeeze(1), expected.negative)
