"""Losses of segmentation networks against labels that may be wrong: (N, C, h, w) logits, (N, h, w) labels with 255 where nothing is known.

Symmetric cross-entropy: Wang et al. 2019, arXiv:1908.06112, with ProDA's numbers (Zhang et al. 2021, `models/adaptation_modelv2.py:rce`). Every loss
is the mean over the pixels that have a label, and 0 where none has.
"""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.structures import IGNORE

_LEAST_PROBABILITY, _LEAST_LABEL = 1e-7, 1e-4


def label_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy against hard labels; with `weights` (N, h, w) the weighted sum over the number of pixels with a label (DACS)."""
    losses = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    return mean_where(losses if weights is None else losses * weights, labels != IGNORE)


def soft_cross_entropy(logits: Tensor, probabilities: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy against `probabilities` (N, C, h, w) where `known` (N, h, w)."""
    return mean_where(-(probabilities * logits.float().log_softmax(1)).sum(1), known)


def reverse_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with prediction and label in each other's place: -sum of p log(one-hot), both limited from below (to 1e-7 and 1e-4).

    That is 9.21 (1 - p of the label) but for the limits: a loss that does not grow without bound where a label is wrong.
    """
    known = labels != IGNORE
    probabilities = logits.float().softmax(1).clamp(min=_LEAST_PROBABILITY, max=1.0)
    others = probabilities.sum(1) - probabilities.gather(1, labels.masked_fill(~known, 0)[:, None])[:, 0]
    return mean_where(-torch.tensor(_LEAST_LABEL).log().item() * others, known)


def symmetric_cross_entropy(logits: Tensor, labels: Tensor, *, alpha: float = 0.1, beta: float = 1.0) -> Tensor:
    """`alpha` cross-entropy + `beta` reverse cross-entropy."""
    return alpha * label_cross_entropy(logits, labels) + beta * reverse_cross_entropy(logits, labels)


def mean_where(values: Tensor, known: Tensor) -> Tensor:
    """The mean of `values` where `known`; 0, with a gradient, where nothing is."""
    return values.masked_fill(~known, 0.0).sum() / known.sum().clamp(min=1)
