"""Box arithmetic that torchvision does not have: overlaps of batches of boxes, with the references' conventions.

Boxes are (x1, y1, x2, y2) floats, half-open. Conversions between corner and centre form are `torchvision.ops.box_convert`.
"""
from __future__ import annotations

import torch
from torch import Tensor


def pairwise_iou(boxes1: Tensor, boxes2: Tensor, epsilon: float = 0.0) -> Tensor:
    """Intersection over union of every box of `boxes1` (..., n, 4) with every one of `boxes2` (..., m, 4): (..., n, m) in 0..1.

    Leading dimensions broadcast. `epsilon` is added to the union, as some references do; a pair of boxes without area has overlap 0 either way.
    Works in place where it can: the largest intermediate is twice the result.
    """
    first, second = boxes1[..., :, None, :], boxes2[..., None, :, :]
    overlap = (torch.minimum(first[..., 2], second[..., 2]) - torch.maximum(first[..., 0], second[..., 0])).clamp_(min=0)
    overlap *= (torch.minimum(first[..., 3], second[..., 3]) - torch.maximum(first[..., 1], second[..., 1])).clamp_(min=0)
    union = (areas(first) + areas(second)).sub_(overlap).add_(epsilon)
    return overlap.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def generalized_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised overlap (Rezatofighi et al. 2019) of boxes (..., 4) with boxes (..., 4), pair by pair: (...) in -1..1; 1 for equal boxes.

    Leading dimensions broadcast, so that (n, 1, 4) with (m, 4) gives all pairs. A box without area, or whose corners are the wrong way round, counts
    as empty; two boxes without area have 0. Differentiable.
    """
    (left1, top1, right1, bottom1), (left2, top2, right2, bottom2) = boxes1.unbind(-1), boxes2.unbind(-1)
    overlap = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).clamp(min=0)
    overlap = overlap * (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)).clamp(min=0)
    hull = (torch.maximum(right1, right2) - torch.minimum(left1, left2)) * (torch.maximum(bottom1, bottom2) - torch.minimum(top1, top2))
    union = areas(boxes1) + areas(boxes2) - overlap
    tiny = torch.finfo(union.dtype).tiny
    return overlap / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)


def areas(boxes: Tensor) -> Tensor:
    """Areas of boxes (..., 4), 0 for those with negative width or height."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def clip_to_canvas(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) with all corners moved into a picture of `size` (height, width)."""
    height, width = size
    return torch.stack([boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)], -1).flatten(-2)


def pairwise_share(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(n, m): the share of the area of each of `boxes1` (n, 4) that lies within each of `boxes2` (m, 4), in 0..1; 0 for boxes without area."""
    corners = torch.minimum(boxes1[:, None, 2:], boxes2[:, 2:]) - torch.maximum(boxes1[:, None, :2], boxes2[:, :2])
    overlap = corners.clamp_(min=0).prod(-1)
    own = areas(boxes1)
    return overlap / own.clamp(min=torch.finfo(own.dtype).tiny)[:, None]
