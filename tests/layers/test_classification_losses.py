"""Classification losses against their written definitions, computed in float64 with NumPy."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.layers.classification_losses import AsymmetricLoss, BinaryCrossEntropy, CrossEntropy, SigmoidFocal

N, K = 6, 5
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(N, K)) * 2
LABELS = RNG.integers(K, size=N)
SOFT = RNG.dirichlet(np.ones(K), size=N)
SEVERAL = RNG.integers(2, size=(N, K)).astype(np.float64)
FACTORS = [1.0, 2.0, 0.5, 1.0, 3.0]

ONE_HOT = np.eye(K)[LABELS]
LOG_SOFTMAX = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
PROBABILITY = 1 / (1 + np.exp(-LOGITS))


def value(loss: nn.Module, labels: np.ndarray) -> float:
    return float(loss(torch.tensor(LOGITS, dtype=torch.float32), torch.as_tensor(labels)))


def cross_entropy(target: np.ndarray, factors: list[float] | None = None) -> float:
    return float(-(target * LOG_SOFTMAX * (factors or np.ones(K))).sum(1).mean())


def binary(target: np.ndarray, positive: list[float] | None = None) -> np.ndarray:
    return -(np.array(positive or np.ones(K)) * target * np.log(PROBABILITY) + (1 - target) * np.log(1 - PROBABILITY))


def test_cross_entropy_takes_indices_and_distributions() -> None:
    assert value(CrossEntropy(), LABELS) == pytest.approx(cross_entropy(ONE_HOT), rel=1e-5)
    assert value(CrossEntropy(), SOFT) == pytest.approx(cross_entropy(SOFT), rel=1e-5)
    assert value(CrossEntropy(weight=2.5), LABELS) == pytest.approx(2.5 * cross_entropy(ONE_HOT), rel=1e-5)


def test_class_weights_do_not_change_the_divisor() -> None:
    assert value(CrossEntropy(class_weight=FACTORS), LABELS) == pytest.approx(cross_entropy(ONE_HOT, FACTORS), rel=1e-5)
    assert value(CrossEntropy(class_weight=FACTORS), SOFT) == pytest.approx(cross_entropy(SOFT, FACTORS), rel=1e-5)


@pytest.mark.parametrize("labels", ["indices", "distributions"])
@pytest.mark.parametrize(("smoothing", "smooth"), [
    ("original", lambda y: 0.9 * y + 0.1 / K), ("classy_vision", lambda y: (y + 0.1 / K) / 1.1),
])
def test_label_smoothing_has_both_definitions(labels: str, smoothing: str, smooth: Callable[[np.ndarray], np.ndarray]) -> None:
    loss = CrossEntropy(label_smoothing=0.1, smoothing=smoothing)  # type: ignore[arg-type]
    given, target = (LABELS, ONE_HOT) if labels == "indices" else (SOFT, SOFT)
    assert value(loss, given) == pytest.approx(cross_entropy(smooth(target)), rel=1e-5)


def test_binary_cross_entropy_sums_over_classes() -> None:
    assert value(BinaryCrossEntropy(), SEVERAL) == pytest.approx(binary(SEVERAL).sum(1).mean(), rel=1e-5)
    assert value(BinaryCrossEntropy(), LABELS) == pytest.approx(binary(ONE_HOT).sum(1).mean(), rel=1e-5)
    weighted = (binary(SEVERAL, FACTORS) * FACTORS).sum(1).mean()
    assert value(BinaryCrossEntropy(pos_weight=FACTORS, class_weight=FACTORS), SEVERAL) == pytest.approx(weighted, rel=1e-5)
    assert value(BinaryCrossEntropy(label_smoothing=0.1), SEVERAL) == pytest.approx(binary(0.8 * SEVERAL + 0.1).sum(1).mean(), rel=1e-5)


def test_focal_loss_is_its_definition() -> None:
    right = np.where(SEVERAL == 1, PROBABILITY, 1 - PROBABILITY)
    expected = -(np.where(SEVERAL == 1, 0.25, 0.75) * (1 - right) ** 2 * np.log(right)).sum(1).mean()
    assert value(SigmoidFocal(), SEVERAL) == pytest.approx(expected, rel=1e-5)
    assert value(SigmoidFocal(gamma=0.0, alpha=0.5), SEVERAL) == pytest.approx(0.5 * binary(SEVERAL).sum(1).mean(), rel=1e-5)


def test_asymmetric_loss_is_its_definition() -> None:
    shifted = np.maximum(PROBABILITY - 0.05, 0)
    expected = -np.where(SEVERAL == 1, np.log(PROBABILITY), shifted**4 * np.log(1 - shifted)).sum(1).mean()
    assert value(AsymmetricLoss(), SEVERAL) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss", [CrossEntropy(label_smoothing=0.1), BinaryCrossEntropy(), SigmoidFocal(), AsymmetricLoss()], ids=lambda loss: type(loss).__name__
)
def test_half_precision_logits_give_a_finite_float32_loss_and_gradient(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    logits = torch.tensor([[60.0, -60.0, 0.0], [-60.0, 60.0, 1.0]], dtype=torch.bfloat16, requires_grad=True)
    result = loss(logits, torch.tensor([1, 1]))
    result.backward()
    assert result.dtype == torch.float32 and result.isfinite()
    assert logits.grad is not None and logits.grad.isfinite().all()
