"""Losses of classifiers: cross-entropy (smoothed, weighted, with soft labels), binary cross-entropy, focal and asymmetric loss for several labels.

Definitions of mmclassification 0.x (`mmcls/models/losses/`): each sums over the classes and takes the mean over the images, class weights do not
change the divisor. All take logits (N, K) and labels as (N,) int64 or as (N, K) float, and compute in float32. Left out: Seesaw loss.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.structures.ranges import NonNegativeFloat, PositiveFloat, Probability


class CrossEntropy(nn.Module):
    """Softmax cross-entropy, times `weight`.

    `label_smoothing` e makes the target (1 - e) y + e / K ("original", Szegedy et al. 2016), or (y + e / K) / (1 + e) ("classy_vision").
    `class_weight`: one factor a class, for its part of the sum.
    """

    def __init__(
        self, *, label_smoothing: Probability = 0.0, smoothing: Literal["original", "classy_vision"] = "original",
        class_weight: Sequence[float] | None = None, weight: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        self.label_smoothing, self.smoothing, self.weight = label_smoothing, smoothing, weight
        self.class_weight = None if class_weight is None else torch.tensor(class_weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of `logits` (N, K) and `labels`, (N,) indices or (N, K) distributions."""
        smoothing = self.label_smoothing / (1 + self.label_smoothing) if self.smoothing == "classy_vision" else self.label_smoothing
        factors = None if self.class_weight is None else self.class_weight.to(logits.device)
        if labels.ndim == 2 or smoothing == 0:
            labels = labels if labels.ndim == 1 else labels.float()
            if labels.ndim == 2 and smoothing:
                labels = (1 - smoothing) * labels + smoothing / logits.shape[1]
            return self.weight * F.cross_entropy(logits.float(), labels, factors, reduction="none").mean()
        target = (1 - smoothing) * one_hot(labels, logits.shape[1]) + smoothing / logits.shape[1]
        return self.weight * F.cross_entropy(logits.float(), target, factors, reduction="none").mean()


class BinaryCrossEntropy(nn.Module):
    """Cross-entropy of one sigmoid a class, times `weight`; several classes may hold.

    `pos_weight` and `class_weight`: one factor a class, for what holds, and for both. `label_smoothing` e makes the target (1 - 2 e) y + e.
    """

    def __init__(
        self, *, pos_weight: Sequence[float] | None = None, class_weight: Sequence[float] | None = None, label_smoothing: Probability = 0.0,
        weight: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        self.label_smoothing, self.weight = label_smoothing, weight
        self.pos_weight = None if pos_weight is None else torch.tensor(pos_weight)
        self.class_weight = None if class_weight is None else torch.tensor(class_weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of `logits` (N, K) and `labels`, (N, K) in 0..1 or (N,) indices."""
        target = (1 - 2 * self.label_smoothing) * one_hot(labels, logits.shape[1]) + self.label_smoothing
        positive, factors = (None if w is None else w.to(logits.device) for w in (self.pos_weight, self.class_weight))
        loss = F.binary_cross_entropy_with_logits(logits.float(), target, factors, pos_weight=positive, reduction="none")
        return self.weight * loss.sum(1).mean()


class SigmoidFocal(nn.Module):
    """Focal loss (Lin et al. 2017) of one sigmoid a class: alpha_t (1 - p_t)^gamma BCE, times `weight`."""

    def __init__(self, *, gamma: NonNegativeFloat = 2.0, alpha: Probability = 0.25, weight: PositiveFloat = 1.0) -> None:
        super().__init__()
        self.gamma, self.alpha, self.weight = gamma, alpha, weight

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of `logits` (N, K) and `labels`, (N, K) in 0..1 or (N,) indices."""
        logits, target = logits.float(), one_hot(labels, logits.shape[1])
        probability = logits.sigmoid()
        wrong = (1 - probability) * target + probability * (1 - target)
        balance = self.alpha * target + (1 - self.alpha) * (1 - target)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * balance * wrong**self.gamma
        return self.weight * loss.sum(1).mean()


class AsymmetricLoss(nn.Module):
    """Asymmetric loss for several labels (Ben-Baruch et al. 2021, eq. 7), times `weight`.

    Negatives are focused more strongly (`gamma_negative`) than positives (`gamma_positive`), and their probabilities are lowered by `clip` first.
    """

    def __init__(
        self, *, gamma_positive: NonNegativeFloat = 0.0, gamma_negative: NonNegativeFloat = 4.0, clip: Probability = 0.05, weight: PositiveFloat = 1.0
    ) -> None:
        super().__init__()
        self.gamma_positive, self.gamma_negative, self.clip, self.weight = gamma_positive, gamma_negative, clip, weight

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of `logits` (N, K) and `labels`, (N, K) in 0..1 or (N,) indices."""
        target, probability = one_hot(labels, logits.shape[1]), logits.float().sigmoid()
        right = (1 - probability + self.clip).clamp(max=1) * (1 - target) + probability * target
        focus = (1 - right) ** (self.gamma_positive * target + self.gamma_negative * (1 - target))
        return self.weight * (-(right.clamp(min=1e-8).log()) * focus).sum(1).mean()


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """`labels` as (N, `num_classes`) float32; what has two dimensions already is only converted."""
    return labels.float() if labels.ndim == 2 else F.one_hot(labels, num_classes).float()
