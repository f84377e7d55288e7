"""Targets and losses of single-shot detectors (Liu et al. 2016, section 2.2): matching, hard negative mining, the MultiBox loss.

All of it runs on the device over the whole batch. A picture without boxes has no positive priors, so no negatives either, and adds nothing.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert

from saccade.layers.box_coder import encode_boxes
from saccade.ops.boxes import pairwise_iou
from saccade.ops.distributed import mean_over_processes
from saccade.structures import Annotations


class Truth(NamedTuple):
    """The objects of a batch, padded to the largest number G: `boxes` (N, G, 4) relative corners, `labels` (N, G) int64, `real` (N, G) bool."""

    boxes: Tensor
    labels: Tensor
    real: Tensor


class Match(NamedTuple):
    """What each prior stands for: `labels` (N, P) int64 with 0 for background, else class + 1; `boxes` (N, P, 4) relative corners of the object."""

    labels: Tensor
    boxes: Tensor


def pad_truth(targets: Sequence[Annotations], size: tuple[int, int], device: torch.device) -> Truth:
    """The boxes of `targets` (pixels of an image of `size` (height, width)) in one tensor; crowds and boxes without area are left out."""
    counts = torch.tensor([0 if t.boxes is None else len(t.boxes) for t in targets], device=device)
    most = max([1, *(0 if t.boxes is None else len(t.boxes) for t in targets)])
    there = torch.arange(most, device=device) < counts[:, None]  # (N, G)
    boxes = torch.zeros(len(targets), most, 4, device=device)
    labels = torch.zeros(len(targets), most, dtype=torch.int64, device=device)
    crowd = torch.zeros_like(there)
    known = [t for t in targets if t.boxes is not None]
    if known:
        scale = torch.tensor([size[1], size[0], size[1], size[0]], device=device)
        boxes[there] = torch.cat([t.boxes.float() for t in known if t.boxes is not None]).to(device) / scale
        labels[there] = torch.cat([t.labels for t in known if t.labels is not None]).to(device)
        crowd[there] = torch.cat([_crowd(t) for t in known]).to(device)
    has_area = (boxes[..., 2:] > boxes[..., :2]).all(-1)
    return Truth(boxes, labels, there & has_area & ~crowd)


def _crowd(target: Annotations) -> Tensor:
    assert target.boxes is not None
    return torch.zeros(len(target.boxes), dtype=torch.bool) if target.crowd is None else target.crowd.bool()


def match_priors(truth: Truth, priors: Tensor, iou_threshold: float, epsilon: float = 0.0) -> Match:
    """Each prior takes the object it overlaps most, if by `iou_threshold`; each object takes the prior it overlaps most in any case.

    `priors` (P, 4) as (cx, cy, w, h). An object that comes later wins a prior that two objects claim. `epsilon` is added to the unions.
    """
    iou = pairwise_iou(truth.boxes, box_convert(priors, "cxcywh", "xyxy"), epsilon)  # (N, G, P)
    iou.masked_fill_(~truth.real[..., None], -1.0)
    best, taken = iou.max(1)  # (N, P)
    favourite = iou.argmax(2)  # (N, G): each object's own prior
    order = torch.arange(truth.real.shape[1], device=priors.device).expand_as(favourite).masked_fill(~truth.real, -1)
    claimed = torch.full_like(taken, -1).scatter_reduce_(1, favourite, order, "amax")  # (N, P): the last object that claims it, or -1
    taken = torch.where(claimed >= 0, claimed, taken)
    positive = (claimed >= 0) | (best >= iou_threshold)
    labels = torch.where(positive, truth.labels.gather(1, taken) + 1, 0)
    return Match(labels, truth.boxes.gather(1, taken[..., None].expand(-1, -1, 4)))


def mine_hard_negatives(background_loss: Tensor, positive: Tensor, negative_ratio: float) -> Tensor:
    """Mask (N, P) of the priors that count: the positives and, in each image, the `negative_ratio` times as many worst negatives.

    `background_loss` (N, P): -log p(background); `positive` (N, P) bool.
    """
    wanted = (positive.sum(1, keepdim=True) * negative_ratio).long()
    order = background_loss.masked_fill(positive, float("-inf")).argsort(1, descending=True)
    among_worst = torch.arange(order.shape[1], device=order.device) < wanted
    return positive | torch.zeros_like(positive).scatter_(1, order, among_worst)


def multibox_losses(
    class_logits: Tensor, offsets: Tensor, match: Match, priors: Tensor, *, center_variance: float, size_variance: float, negative_ratio: float
) -> dict[str, Tensor]:
    """`reg_loss`: smooth L1 over the positive priors' offsets; `cls_loss`: cross-entropy over positives and mined negatives.

    `class_logits` (N, P, K + 1) with the background first, `offsets` (N, P, 4). Both are sums over the number of positives of the whole batch (over
    all processes), at least 1; without any positive both are 0 and every gradient is zero but there.
    """
    positive = match.labels > 0
    logits = class_logits.float()
    with torch.no_grad():
        counted = mine_hard_negatives(logits.logsumexp(-1) - logits[..., 0], positive, negative_ratio)
        positives = mean_over_processes(positive.sum().float())
        normaliser = positives.where(positives > 0, 1.0)
    cls_loss = F.cross_entropy(logits[counted], match.labels[counted], reduction="sum")
    boxes = box_convert(match.boxes[positive], "xyxy", "cxcywh")
    wanted = encode_boxes(boxes, priors.expand_as(match.boxes)[positive], center_variance, size_variance)
    reg_loss = F.smooth_l1_loss(offsets.float()[positive], wanted, reduction="sum")
    return {"reg_loss": reg_loss / normaliser, "cls_loss": cls_loss / normaliser}
