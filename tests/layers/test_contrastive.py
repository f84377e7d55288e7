"""Quasi-dense tracking's losses: the closed form is the double sum, the mined loss counts what its definition says."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saccade.layers.contrastive import cosine_loss, instance_targets, multi_positive_loss, pairwise_cosines

torch.manual_seed(0)
SCORES = 4 * torch.randn(12, 40)
TARGETS = torch.rand(12, 40) < 0.1
TARGETS[3] = False


def by_definition(scores: Tensor, targets: Tensor) -> Tensor:
    """The mean over the rows with a positive of log(1 + sum over all pairs), pair by pair, in float64."""
    losses = []
    for row, positive in zip(scores.double(), targets, strict=True):
        if positive.any():
            losses.append(torch.log1p((row[~positive][None] - row[positive][:, None]).exp().sum()))
    return torch.stack(losses).mean()


def test_the_closed_form_is_the_sum_over_all_pairs_of_positives_and_negatives() -> None:
    assert multi_positive_loss(SCORES, TARGETS).item() == pytest.approx(by_definition(SCORES, TARGETS).item(), rel=1e-5)


def test_its_gradient_is_that_of_the_definition() -> None:
    ours, theirs = SCORES.clone().requires_grad_(), SCORES.double().requires_grad_()
    multi_positive_loss(ours, TARGETS).backward()
    by_definition(theirs, TARGETS).backward()
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-6)


def test_rows_without_a_positive_do_not_count() -> None:
    keep = TARGETS.any(1)
    assert not keep.all()
    torch.testing.assert_close(multi_positive_loss(SCORES, TARGETS), multi_positive_loss(SCORES[keep], TARGETS[keep]))


@pytest.mark.parametrize("shape", [(5, 30), (0, 30), (5, 0), (0, 0)])
def test_nothing_to_match_costs_nothing_and_has_a_gradient(shape: tuple[int, int]) -> None:
    scores = torch.randn(shape, requires_grad=True)
    loss = multi_positive_loss(scores, torch.zeros(shape, dtype=torch.bool)) + cosine_loss(scores, torch.zeros(shape, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and scores.grad is not None and not scores.grad.any()


def test_a_row_of_positives_alone_costs_nothing() -> None:
    assert multi_positive_loss(SCORES[:1], torch.ones(1, 40, dtype=torch.bool)).item() == 0


def test_large_scores_do_not_overflow() -> None:
    scores = torch.tensor([[3e4, -3e4]], requires_grad=True)
    loss = multi_positive_loss(scores, torch.tensor([[False, True]]))
    loss.backward()
    assert loss.item() == pytest.approx(6e4) and scores.grad is not None and scores.grad.isfinite().all()


def test_of_the_negatives_the_hardest_three_per_positive_count() -> None:
    cosines = torch.tensor([[0.9, 0.8, 0.7, 0.5, 0.3, 0.05, -0.4]])
    targets = torch.tensor([[1, 0, 0, 0, 0, 0, 0]])
    kept = [(0.9 - 1) ** 2, 0.7 ** 2, 0.6 ** 2, 0.4 ** 2]  # negatives lose the margin of 0.1
    assert cosine_loss(cosines, targets).item() == pytest.approx(sum(kept) / 4, rel=1e-5)


def test_few_negatives_all_count_and_cosines_below_the_margin_cost_nothing() -> None:
    cosines, targets = torch.tensor([[1.0, 0.1, -1.0, 0.05]]), torch.tensor([[1, 0, 0, 0]])
    assert cosine_loss(cosines, targets).item() == 0
    assert cosine_loss(torch.tensor([[0.5, 0.5]]), torch.tensor([[1, 0]])).item() == pytest.approx((0.25 + 0.16) / 2)


def test_objects_match_by_id_and_negative_ids_match_nothing() -> None:
    found = instance_targets(torch.tensor([0, -1, 5, 7]), torch.tensor([5, 0, -1]))
    assert found.tolist() == [[False, True, False], [False, False, False], [True, False, False], [False, False, False]]


def test_cosines_do_not_depend_on_lengths() -> None:
    keys, references = torch.randn(3, 8), torch.randn(4, 8)
    torch.testing.assert_close(pairwise_cosines(3 * keys, references / 7), pairwise_cosines(keys, references))
    assert pairwise_cosines(keys, keys).diagonal().tolist() == pytest.approx([1, 1, 1])
