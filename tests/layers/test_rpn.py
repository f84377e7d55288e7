"""The first stage: proposals as of a loop over images and levels, and losses by hand."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from saccade.layers.anchors import cell_anchors, grid_anchors
from saccade.layers.box_coder import decode_deltas, encode_deltas
from saccade.layers.rpn import RPNTargets, flat_deltas, flat_logits, rpn_losses, select_proposals

SIZES = torch.tensor([[60.0, 90.0], [64.0, 96.0]])


def maps(seed: int = 0) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    grids = ((8, 12), (4, 6))
    logits = [torch.randn(2, 3, *grid, generator=generator) for grid in grids]
    deltas = [torch.randn(2, 12, *grid, generator=generator) * 0.3 for grid in grids]
    anchors = [grid_anchors(cell_anchors(2 * s, (0.5, 1.0, 2.0)), grid, (s, s)) for grid, s in zip(grids, (8, 16), strict=True)]
    return logits, deltas, anchors


@pytest.mark.parametrize(("clip", "per_level", "total", "min_size"), [(True, 50, 40, 0.0), (False, 500, 400, 12.0)])
def test_proposals_are_those_of_a_loop_over_images_and_levels(clip: bool, per_level: int, total: int, min_size: float) -> None:
    logits, deltas, anchors = maps()
    found = select_proposals(logits, deltas, anchors, SIZES, per_level=per_level, total=total, iou_threshold=0.6, min_size=min_size, clip=clip)
    for image, (boxes, scores) in enumerate(found):
        parts = []
        for level, (own_logits, own_deltas, own_anchors) in enumerate(zip(logits, deltas, anchors, strict=True)):
            score, order = own_logits[image].permute(1, 2, 0).flatten().sigmoid().sort(descending=True)
            box = decode_deltas(own_deltas[image].permute(1, 2, 0).reshape(-1, 4)[order[:per_level]], own_anchors[order[:per_level]])
            if clip:
                height, width = SIZES[image]
                box = torch.stack([box[:, 0].clamp(0, width), box[:, 1].clamp(0, height), box[:, 2].clamp(0, width), box[:, 3].clamp(0, height)], 1)
            large = ((box[:, 2:] - box[:, :2]) > min_size).all(1)
            parts.append((box[large], score[:per_level][large], torch.full((int(large.sum()),), level)))
        box, score, level_of = (torch.cat(part) for part in zip(*parts, strict=True))
        kept = batched_nms(box, score, level_of, 0.6)[:total]
        torch.testing.assert_close(boxes, box[kept])
        torch.testing.assert_close(scores, score[kept])


def test_anchors_that_are_not_inside_are_never_proposed_and_broken_outputs_propose_nothing() -> None:
    logits, deltas, anchors = maps()
    settings = {"per_level": 500, "total": 500, "iou_threshold": 1.0, "clip": False}
    inside = [torch.zeros(2, len(a), dtype=torch.bool) for a in anchors]
    inside[1][0, 5] = True
    found = select_proposals(logits, deltas, anchors, SIZES, inside=inside, **settings)  # type: ignore[arg-type]
    assert [len(boxes) for boxes, _ in found] == [1, 0]
    broken = [d * float("nan") for d in deltas]
    assert [len(b) for b, _ in select_proposals(logits, broken, anchors, SIZES, **settings)] == [0, 0]  # type: ignore[arg-type]


@pytest.mark.parametrize("at_least_one", [True, False])
@pytest.mark.parametrize("beta", [0.0, 1 / 9])
def test_losses_are_sums_over_the_number_of_samples(beta: float, at_least_one: bool) -> None:
    logits, deltas, anchors = maps(1)
    count = sum(map(len, anchors))
    generator = torch.Generator().manual_seed(3)
    positive = torch.rand(2, count, generator=generator) < 0.02
    positive[1] = False
    negative = (torch.rand(2, count, generator=generator) < 0.1) & ~positive
    joined = torch.cat(anchors)
    boxes = (joined + torch.randn(joined.shape, generator=generator)).expand(2, -1, -1)
    cls, box = rpn_losses(logits, deltas, anchors, RPNTargets(positive, negative, boxes), box_beta=beta, at_least_one=at_least_one)
    number = int(positive.sum() + negative.sum()) + (1 if at_least_one else 0)  # the second picture has no positive
    scores, steps = torch.cat([flat_logits(x) for x in logits], 1), torch.cat([flat_deltas(x) for x in deltas], 1)
    sampled = positive | negative
    expected = F.binary_cross_entropy_with_logits(scores[sampled], positive[sampled].float(), reduction="sum") / number
    wanted = encode_deltas(boxes, joined.expand(2, -1, -1))
    distance = F.smooth_l1_loss(steps, wanted, beta=beta, reduction="none") if beta else (steps - wanted).abs()
    assert cls.shape == box.shape == (2,)
    torch.testing.assert_close(cls.sum(), expected)
    torch.testing.assert_close(box.sum(), distance[positive].sum() / number)
    first = len(anchors[0])
    torch.testing.assert_close(box[0], distance[:, :first][positive[:, :first]].sum() / number)


def test_without_samples_losses_are_zero_with_gradients() -> None:
    logits, deltas, anchors = maps()
    leaves = [x.requires_grad_() for x in (*logits, *deltas)]
    none = torch.zeros(2, sum(map(len, anchors)), dtype=torch.bool)
    cls, box = rpn_losses(logits, deltas, anchors, RPNTargets(none, none, torch.zeros(2, none.shape[1], 4)), at_least_one=False)
    (cls.sum() + box.sum()).backward()
    assert not cls.any() and not box.any() and all(x.grad is not None and not x.grad.any() for x in leaves)
