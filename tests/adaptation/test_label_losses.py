"""Losses against labels that may be wrong: their definitions, and nothing where nothing is known."""
from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from saccade.adaptation.label_losses import label_cross_entropy, reverse_cross_entropy, soft_cross_entropy, symmetric_cross_entropy
from saccade.adaptation.terms.distillation import distillation
from saccade.adaptation.terms.spread import spread
from saccade.adaptation.terms.structure_consistency import structure_consistency

LOGITS = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 5, (2, 4, 6), generator=torch.Generator().manual_seed(1))
LABELS[0, :2] = 255


def test_cross_entropy_counts_labelled_pixels() -> None:
    torch.testing.assert_close(label_cross_entropy(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, ignore_index=255))
    weights = torch.rand(2, 4, 6)
    single = F.cross_entropy(LOGITS, LABELS, ignore_index=255, reduction="none")
    torch.testing.assert_close(label_cross_entropy(LOGITS, LABELS, weights), (single * weights).sum() / (LABELS != 255).sum())


def test_reverse_cross_entropy_is_a_multiple_of_what_is_not_the_label() -> None:
    known = LABELS != 255
    right = LOGITS.softmax(1).gather(1, LABELS.clamp(max=4)[:, None])[:, 0][known]
    assert float(reverse_cross_entropy(LOGITS, LABELS)) == pytest.approx(9.21034 * float((1 - right).mean()), rel=1e-5)
    torch.testing.assert_close(
        symmetric_cross_entropy(LOGITS, LABELS, alpha=0.3, beta=0.7),
        0.3 * label_cross_entropy(LOGITS, LABELS) + 0.7 * reverse_cross_entropy(LOGITS, LABELS),
    )


def test_a_soft_label_that_is_certain_is_a_hard_one() -> None:
    known = LABELS != 255
    certain = F.one_hot(LABELS.masked_fill(~known, 0), 5).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(soft_cross_entropy(LOGITS, certain, known), label_cross_entropy(LOGITS, LABELS))


def test_without_any_label_losses_are_zero_and_have_a_gradient() -> None:
    nothing = torch.full_like(LABELS, 255)
    for loss in (label_cross_entropy, reverse_cross_entropy, symmetric_cross_entropy):
        logits = LOGITS.clone().requires_grad_()
        value = loss(logits, nothing)
        value.backward()
        assert value.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_even_probabilities_have_the_least_spread_loss() -> None:
    even = torch.zeros(1, 5, 2, 2)
    assert float(spread(even, "kld")) == pytest.approx(math.log(5)) and float(spread(even, "entropy")) == pytest.approx(-math.log(5))
    for kind in ("kld", "entropy"):
        assert spread(LOGITS, kind) > spread(even, kind)  # type: ignore[arg-type]


def test_networks_that_agree_have_nothing_to_distil() -> None:
    assert distillation(LOGITS, LOGITS + 3).abs().max() < 1e-6
    assert distillation(LOGITS, LOGITS.flip(1)).min() > 0


def test_published_distillation_has_the_gradient_of_an_agreement() -> None:
    student, other = LOGITS.clone().requires_grad_(), LOGITS.flip(1)
    (published,) = torch.autograd.grad(distillation(student, other, reference_quirks=True).mean(), student)
    (agreement,) = torch.autograd.grad(-(student.softmax(1) * other.softmax(1)).mean(), student)
    torch.testing.assert_close(published, agreement)


def test_structure_is_compared_where_known_and_among_classes_with_a_prototype() -> None:
    student, teacher = LOGITS.abs(), LOGITS.flip(1).abs()
    known = torch.ones(2, 4, 6, dtype=torch.bool)
    known[0] = False
    whole = structure_consistency(student, teacher, known)
    torch.testing.assert_close(whole, structure_consistency(student[1:], teacher[1:], known[1:]))
    torch.testing.assert_close(structure_consistency(student, teacher, known, reference_quirks=True), whole / 5)
    teacher[:, 2] = student[:, 2] = float("inf")
    four = structure_consistency(student, teacher, known)
    rest = [0, 1, 3, 4]
    torch.testing.assert_close(four, structure_consistency(student[:, rest], teacher[:, rest], known))
    assert structure_consistency(student, torch.full_like(teacher, float("inf")), known).item() == 0
    assert structure_consistency(teacher, teacher, known).item() == pytest.approx(0, abs=1e-6)
