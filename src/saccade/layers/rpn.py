"""The region proposal network (Ren et al. 2015, arXiv:1506.01497) on a pyramid: where objects may be, whatever they are.

A small convolution scores and moves the anchors of every level. `select_proposals` keeps the best boxes of each image; `RPNTargets` and `rpn_losses`
train it on a sample of the anchors. Spec image_models.md D2, D7; tracking.md 2, 3. Left out: other numbers of convolutions than one.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.layers.box_coder import decode_deltas, encode_deltas
from saccade.ops.suppression import best_per_image, suppress_in_groups

Levels = Sequence[Tensor]
EqualScores = Literal["anchor", "logit"]


class RPNHead(nn.Module):
    """Features (N, C, h, w) a level to logits (N, A, h, w) and deltas (N, 4A, h, w), whose channels 4a .. 4a + 3 belong to anchor a."""

    def __init__(self, *, channels: int = 256, anchors: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.logits = nn.Conv2d(channels, anchors, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors, 1)
        for name, parameter in self.named_parameters():
            nn.init.normal_(parameter, std=0.01 if name.endswith("weight") else 0.0)

    def forward(self, features: Levels) -> tuple[list[Tensor], list[Tensor]]:
        """(logits, deltas), one of each a level."""
        hidden = [F.relu(self.conv(feature)) for feature in features]
        return [_pointwise(self.logits, h) for h in hidden], [_pointwise(self.deltas, h) for h in hidden]


def _pointwise(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """A 1x1 convolution as a matrix product: with so few output channels the gradient of the convolution takes up to 60 times as long on the CPU."""
    return F.linear(maps.permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias).permute(0, 3, 1, 2)


def flat_logits(logits: Tensor) -> Tensor:
    """(N, A, h, w) to (N, h * w * A), in the order of the anchors, float32."""
    return logits.permute(0, 2, 3, 1).flatten(1).float()


def flat_deltas(deltas: Tensor) -> Tensor:
    """(N, 4A, h, w) to (N, h * w * A, 4), in the order of the anchors, float32."""
    return deltas.permute(0, 2, 3, 1).reshape(len(deltas), -1, 4).float()


@torch.no_grad()
def select_proposals(
    logits: Levels, deltas: Levels, anchors: Levels, sizes: Tensor, *, per_level: int, total: int, iou_threshold: float, min_size: float = 0.0,
    clip: bool = True, limit_both: bool = True, inside: Levels | None = None, equal_scores: EqualScores = "anchor",
    reference_quirks: bool = False,
) -> list[tuple[Tensor, Tensor]]:
    """(boxes (p, 4), scores (p,)) of every image, best first, p <= `total`.

    Of each level the best `per_level` boxes are decoded, clipped to `sizes` (N, 2) (height, width) if `clip`, dropped unless both sides exceed
    `min_size`, and freed of those that overlap a better one of their level by more than `iou_threshold`. `anchors`: (h * w * A, 4) a level;
    `inside` (N, h * w * A) bool a level: anchors that may be chosen. `equal_scores`: among boxes whose logits differ but whose scores are rounded to
    the same, the first anchor wins, or the largest logit.
    """
    boxes, scores, allowed = [], [], []
    counts = []
    for level, (own_logits, own_deltas, own_anchors) in enumerate(zip(logits, deltas, anchors, strict=True)):
        flat = flat_logits(own_logits)
        if inside is not None:
            flat = flat.masked_fill(~inside[level], float("-inf"))
        best = flat.topk(min(per_level, flat.shape[1]), dim=1).indices
        if equal_scores == "anchor":
            best = best.sort(dim=1).values
        steps = flat_deltas(own_deltas).gather(1, best[..., None].expand(-1, -1, 4))
        boxes.append(decode_deltas(steps, own_anchors[best], limit_both=limit_both))
        chosen = flat.gather(1, best)
        scores.append(chosen.sigmoid())
        allowed.append(chosen > float("-inf"))
        counts.append(best.shape[1])
    box, score = torch.cat(boxes, 1), torch.cat(scores, 1)  # (N, P, 4), (N, P)
    level_of = torch.repeat_interleave(torch.tensor(counts, device=box.device))
    if clip:
        box = clip_to_sizes(box, sizes)
    keep = ((box[..., 2:] - box[..., :2]) > min_size).all(-1) & torch.cat(allowed, 1)
    image, place = keep.nonzero(as_tuple=True)
    box, score = box[image, place], score[image, place]
    kept = suppress_in_groups(box, score, image * len(counts) + level_of[place], iou_threshold, reference_quirks=reference_quirks)
    return [(box[index], score[index]) for index in best_per_image(kept, image, len(sizes), total)]


def clip_to_sizes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """`boxes` (N, P, 4) with all corners moved into their image of `sizes` (N, 2) (height, width)."""
    return torch.minimum(boxes.clamp(min=0), sizes.to(boxes.dtype).flip(1).repeat(1, 2)[:, None])


class RPNTargets(NamedTuple):
    """What the anchors of a batch learn: `positive` and `negative` (N, n) bool, the sampled ones; `boxes` (N, n, 4), the object of each positive."""

    positive: Tensor
    negative: Tensor
    boxes: Tensor


def rpn_losses(
    logits: Levels, deltas: Levels, anchors: Levels, targets: RPNTargets, *, box_beta: float = 0.0, at_least_one: bool = True
) -> tuple[Tensor, Tensor]:
    """(cross-entropy, box loss), each (levels,), over the number of sampled anchors of the batch.

    `box_beta`: of smooth L1; 0 is L1. `at_least_one`: every image counts at least one positive and one negative (mmdetection).
    """
    counts = [len(own) for own in anchors]
    level_of = torch.repeat_interleave(torch.tensor(counts, device=targets.positive.device))
    number = [(mask.sum(1).clamp(min=1) if at_least_one else mask.sum(1)).sum() for mask in (targets.positive, targets.negative)]
    normaliser = (number[0] + number[1]).clamp(min=1)
    scores = torch.cat([flat_logits(own) for own in logits], 1)
    image, place = (targets.positive | targets.negative).nonzero(as_tuple=True)
    entropy = F.binary_cross_entropy_with_logits(scores[image, place], targets.positive[image, place].float(), reduction="none")
    cls_loss = scores.new_zeros(len(counts)).index_add(0, level_of[place], entropy)
    image, place = targets.positive.nonzero(as_tuple=True)
    steps = torch.cat([flat_deltas(own) for own in deltas], 1)[image, place]
    wanted = encode_deltas(targets.boxes[image, place], torch.cat(list(anchors))[place])
    box_loss = scores.new_zeros(len(counts)).index_add(0, level_of[place], box_distance(steps, wanted, box_beta).sum(1))
    return cls_loss / normaliser, box_loss / normaliser


def box_distance(deltas: Tensor, wanted: Tensor, beta: float) -> Tensor:
    """Element by element |difference|, for `beta` > 0 squared / (2 beta) where that is below `beta`."""
    return F.smooth_l1_loss(deltas, wanted, beta=beta, reduction="none") if beta else F.l1_loss(deltas, wanted, reduction="none")
