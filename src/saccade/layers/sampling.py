"""Which of the assigned boxes a two-stage detector or tracker learns from: so many positives, the rest background.

Random, instance-balanced and IoU-balanced choice (Ren et al. 2015; Pang et al. 2019, arXiv:1904.02701) as in mmdetection. All choices are made on
masks, so that images, objects or bins are chosen from in one call. Spec tracking.md 2; image_models.md D2.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from saccade.layers.assigning import NEGATIVE, Assignment

# (candidates (..., n) bool, how many (...) int64) -> (..., n) bool: so many of each row's candidates, or all where there are fewer.
Choice = Callable[[Tensor, Tensor], Tensor]


def choose_randomly(candidates: Tensor, number: Tensor) -> Tensor:
    """A `Choice` with equal chances, by torch's global generator."""
    if candidates.numel() == 0:
        return candidates
    most = min(int(number.max()), candidates.shape[-1])
    if most <= 0:
        return torch.zeros_like(candidates)
    keys = torch.rand(candidates.shape, device=candidates.device).masked_fill_(~candidates, -1.0)
    best = keys.topk(most, dim=-1)
    within = torch.arange(most, device=candidates.device) < number[..., None]
    return torch.zeros_like(candidates).scatter_(-1, best.indices, (best.values >= 0) & within)


def choose_evenly(candidates: Tensor, number: Tensor) -> Tensor:
    """A `Choice` without chance: of c candidates in order, those at positions floor(i * c / number), i = 0 .. number - 1."""
    count = candidates.sum(-1, keepdim=True)
    wanted = number[..., None].clamp(min=0)
    position = candidates.cumsum(-1) - 1  # of each candidate among those of its row
    share = wanted.clamp(min=1)
    first = -(-position * share // count.clamp(min=1))  # the smallest i with i * c / number >= position
    taken = (first < wanted) & (first * count // share == position)
    return candidates & ((count <= wanted) | taken)


class Sampled(NamedTuple):
    """Indices (p,) and (q,) int64 of the chosen positives and negatives, each in order."""

    positive: Tensor
    negative: Tensor


@dataclass(frozen=True)
class Sampler:
    """Chooses up to `number` boxes, of them up to the share `positive_fraction` positive, the others background.

    `negatives_per_positive`: at most so many times as many negatives as positives (or as one, without any). `positives`: "random", or
    "instance_balanced": of every object about as many. `negatives`: "random", or "iou_balanced": overlapping ones first, evenly over three bins of
    overlap, then those that overlap nothing. `choose`: how some are picked among too many. `zeros_apart` false: those without any overlap count as
    overlapping (the original, on its first call). `reference_quirks`: as in the original, what tops up the instance-balanced positives is drawn among
    all of them, so that some come twice and fewer remain.
    """

    number: int
    positive_fraction: float
    negatives_per_positive: float | None = None
    positives: Literal["random", "instance_balanced"] = "random"
    negatives: Literal["random", "iou_balanced"] = "random"
    choose: Choice = choose_randomly
    zeros_apart: bool = True
    reference_quirks: bool = False

    def __call__(self, assignment: Assignment) -> Sampled:
        """The choice among the boxes of one image."""
        positive, negative = self.masks(Assignment(assignment.matched[None], assignment.overlaps[None]))
        return Sampled(positive[0].nonzero().squeeze(1), negative[0].nonzero().squeeze(1))

    def masks(self, assignment: Assignment) -> tuple[Tensor, Tensor]:
        """(positives, negatives), each (N, n) bool, among the boxes of N images; `matched` and `overlaps` (N, n)."""
        matched, overlaps = assignment
        most = int(self.number * self.positive_fraction)
        if self.positives == "random":
            positive = self.choose(matched >= 0, torch.full(matched.shape[:1], most, device=matched.device))
        else:
            positive = torch.stack([balance_instances(row, most, self.choose, self.reference_quirks) for row in matched])
        found = positive.sum(-1)
        left = self.number - found
        if self.negatives_per_positive is not None:
            left = torch.minimum(left, (found.clamp(min=1) * self.negatives_per_positive).long())
        if self.negatives == "random":
            return positive, self.choose(matched == NEGATIVE, left)
        rows = zip(matched, overlaps, left, strict=True)
        return positive, torch.stack([balance_overlaps(m == NEGATIVE, o, n, self.choose, zeros_apart=self.zeros_apart) for m, o, n in rows])


def balance_instances(matched: Tensor, number: int, choose: Choice, reference_quirks: bool = False) -> Tensor:
    """(n,) bool: `number` of the positives of `matched` (n,), of every object at most round(number / objects) + 1 unless others have too few.

    Objects in the order of their indices.
    """
    every = matched >= 0
    if int(every.sum()) <= number:
        return every
    objects = matched[every].unique()
    own = matched == objects[:, None]  # (objects, n)
    share = round(number / len(objects)) + 1
    chosen = choose(own, torch.full((len(objects),), share, device=matched.device))
    total = int(chosen.sum())
    if total < number:
        rest = every if reference_quirks else every & ~chosen.any(0)
        return chosen.any(0) | choose(rest, torch.tensor(number - total, device=matched.device))
    # One choice among all, object after object.
    return choose(chosen.flatten(), torch.tensor(number, device=matched.device)).view_as(chosen).any(0)


def balance_overlaps(
    candidates: Tensor, overlaps: Tensor, number: Tensor, choose: Choice, *, bins: int = 3, zeros_apart: bool = True
) -> Tensor:
    """(n,) bool: `number` of `candidates` (n,), those with an overlap first: a third of them from each third of 0..largest overlap.

    `overlaps` (n,) of all boxes with their nearest object. Where the bins hold too few, others with an overlap follow, then those without.
    """
    if int(candidates.sum()) <= int(number):
        return candidates
    overlapping = candidates & (overlaps > 0) if zeros_apart else candidates
    if int(overlapping.sum()) > int(number):
        edges = torch.arange(bins + 1, device=overlaps.device) * (overlaps.max() / bins)
        within = (overlaps >= edges[:-1, None]) & (overlaps < edges[1:, None]) & overlapping  # (bins, n)
        chosen = choose(within, (number // bins).expand(bins)).any(0)
        return chosen | choose(overlapping & ~chosen, number - chosen.sum())
    return overlapping | choose(candidates & ~overlapping, number - overlapping.sum())
