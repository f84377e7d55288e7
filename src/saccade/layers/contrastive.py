"""Losses on the similarities of objects in two pictures, as quasi-dense tracking learns them (Pang et al. 2021, arXiv:2006.06664, section 3.1).

Rows are objects of a key picture, columns objects of a reference picture, `targets` says which show the same one. `multi_positive_loss` contrasts
every positive of a row with every negative of it; `cosine_loss` pulls cosines to 1 and 0 (spec tracking.md, section 4). Left out: a temperature, and
random choice of the negatives of the second loss, which no published setting uses.
"""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_NEVER = -1e9  # stands for minus infinity; its exponential is exactly 0, and so are its gradients


def multi_positive_loss(similarities: Tensor, targets: Tensor) -> Tensor:
    """Mean over the rows that have a positive of log(1 + sum over their positives p and negatives n of exp(s_n - s_p)); 0 where no row has one.

    `similarities` (K, R) float, `targets` (K, R) bool or 0/1. The double sum is a product of two sums, so no K x R x R tensor is needed: the row's
    loss is softplus(logsumexp of s_n + logsumexp of -s_p).
    """
    scores, positive = similarities.float(), targets.bool()
    if scores.numel() == 0:
        return scores.sum()
    rows = positive.any(1)
    negatives = scores.masked_fill(positive, _NEVER).logsumexp(1)  # (K,)
    positives = (-scores).masked_fill(~positive, _NEVER).logsumexp(1)
    losses = F.softplus(negatives + positives)  # 0 in rows without a positive
    return losses.sum() / rows.sum().clamp(min=1)


def cosine_loss(
    cosines: Tensor, targets: Tensor, *, negatives_per_positive: float = 3.0, positive_margin: float = 0.0, negative_margin: float = 0.1
) -> Tensor:
    """Mean squared difference of `cosines` (K, R), less the margin of their kind and cut to 0..1, from `targets` (K, R) 0/1.

    Of the negatives the `negatives_per_positive` times the number of positives with the largest errors count, over the whole matrix; so without
    positives nothing does, and the loss is 0.
    """
    positive = targets.bool()
    margins = torch.where(positive, positive_margin, negative_margin)
    errors = (cosines.float() - margins).clamp(0, 1).sub(positive.float()).square()
    count = int(positive.sum())
    wanted = int(negatives_per_positive * count)
    if count == 0:
        return errors.sum() * 0.0
    if positive.numel() - count <= wanted:
        return errors.mean()
    hardest = errors.detach().masked_fill(positive, -1.0).flatten().topk(wanted).indices
    return errors[positive.flatten().index_fill(0, hardest, True).view_as(positive)].mean()


def pairwise_cosines(keys: Tensor, references: Tensor) -> Tensor:
    """(K, R) cosines of the angles between the rows of `keys` (K, D) and `references` (R, D)."""
    return F.normalize(keys, dim=1) @ F.normalize(references, dim=1).T


def instance_targets(key_ids: Tensor, reference_ids: Tensor) -> Tensor:
    """(K, R) bool: which objects are the same. Ids below 0 belong to no object and match nothing."""
    return (key_ids[:, None] == reference_ids) & (key_ids[:, None] >= 0)
