"""Which object each anchor or proposal stands for, by overlap (Ren et al. 2015, section 3.1.2; mmdetection's MaxIoUAssigner, torchvision's Matcher).

All boxes and objects at once; only where their table of overlaps would be large it is made some objects at a time. Spec image_models.md D2, D7.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from saccade.ops.boxes import pairwise_iou, pairwise_share

NEGATIVE, IGNORED = -1, -2
_TABLE = 1 << 24  # overlaps held at once: 64 MB


class Assignment(NamedTuple):
    """`matched` (n,) int64: the index of each box's object, NEGATIVE for background, IGNORED for boxes that learn nothing; `overlaps` (n,) with the
    object that a box overlaps most, -1 for boxes in ignored regions.
    """

    matched: Tensor
    overlaps: Tensor


@dataclass(frozen=True)
class MaxIoUAssigner:
    """Gives each box the object that it overlaps most, if by `positive` or more; below `negative` it is background, in between it is ignored.

    `negative` may be an interval (low, high): background is low <= overlap < high. With `low_quality` every object whose best overlap reaches
    `minimum` also takes the boxes that overlap it as much as any does; the last of several such objects wins. `all_ties` false: only the first such
    box. `ties` "own": these boxes become positive but keep the object that they overlap most (torchvision). `ignore_share`: boxes with more than this
    share of their own area in an ignored region are ignored; None: such regions play no role.
    """

    positive: float
    negative: float | tuple[float, float]
    minimum: float = 0.0
    low_quality: bool = True
    all_ties: bool = True
    ties: str = "object"
    ignore_share: float | None = None

    @torch.no_grad()
    def __call__(self, boxes: Tensor, objects: Tensor, ignored: Tensor | None = None) -> Assignment:
        """The assignment of `boxes` (n, 4) to `objects` (g, 4); `ignored` (r, 4) regions. Without objects all boxes are background."""
        best = boxes.new_zeros(len(boxes))
        nearest = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        claimed = torch.full_like(nearest, -1)
        outside = self._outside(boxes, ignored)
        chunk = max(1, _TABLE // max(1, len(boxes)))
        for start in range(0, len(objects) if len(boxes) else 0, chunk):
            iou = pairwise_iou(objects[start:start + chunk], boxes)  # (objects of the chunk, n)
            if outside is not None:
                iou.masked_fill_(outside, -1.0)
            largest, index = iou.max(0)
            better = largest > best if start else torch.ones_like(largest, dtype=torch.bool)
            best, nearest = torch.where(better, largest, best), torch.where(better, index + start, nearest)
            if self.low_quality:
                claimed = torch.maximum(claimed, self._claims(iou, start))
        if outside is not None:
            best = best.masked_fill(outside, -1.0)
        low, high = self.negative if isinstance(self.negative, tuple) else (0.0, self.negative)
        matched = torch.full_like(nearest, IGNORED).masked_fill_((best >= low) & (best < high), NEGATIVE)
        if len(objects) == 0:
            return Assignment(matched, best)
        matched = torch.where(best >= self.positive, nearest, matched)
        if self.low_quality:
            matched = torch.where(claimed >= 0, nearest if self.ties == "own" else claimed, matched)
        return Assignment(matched, best)

    def _outside(self, boxes: Tensor, ignored: Tensor | None) -> Tensor | None:
        if self.ignore_share is None or ignored is None or len(ignored) == 0:
            return None
        return pairwise_share(boxes, ignored).amax(1) > self.ignore_share

    def _claims(self, iou: Tensor, first: int) -> Tensor:
        """(n,) the last object of the table `iou` (objects, n) that claims each box, counted from `first`; -1 where none does."""
        largest = iou.amax(1, keepdim=True)
        claims = iou == largest
        if not self.all_ties:
            claims = torch.zeros_like(claims).scatter_(1, iou.argmax(1, keepdim=True), True)
        claims &= largest >= self.minimum
        order = torch.arange(first, first + len(iou), device=iou.device)[:, None]
        return torch.where(claims, order, -1).amax(0)
