"""Matching, hard negative mining and the MultiBox loss."""
from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from saccade.layers.multibox import Match, Truth, match_priors, mine_hard_negatives, multibox_losses, pad_truth
from saccade.layers.priors import make_priors
from saccade.structures import Annotations

PRIORS = make_priors(64, [(8, 8), (4, 4), (2, 2)], [8, 16, 32], [16, 32, 64], [[2], [2, 3], [2]])
SETTINGS = {"center_variance": 0.1, "size_variance": 0.2, "negative_ratio": 3.0}


def objects(*boxes: tuple[float, float, float, float], **more: Tensor) -> Annotations:
    return Annotations(boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=torch.arange(len(boxes)), **more)


def random_objects(count: int, seed: int) -> Annotations:
    generator = torch.Generator().manual_seed(seed)
    low, size = torch.rand(count, 2, generator=generator) * 40, torch.rand(count, 2, generator=generator) * 24 + 2
    return Annotations(boxes=torch.cat([low, low + size], 1), labels=torch.randint(0, 5, (count,), generator=generator))


def truth_of(*targets: Annotations) -> Truth:
    return pad_truth(targets, (64, 64), torch.device("cpu"))


def match_one_image(boxes: Tensor, labels: Tensor, priors: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The definition, with a loop over objects."""
    iou = box_iou(boxes, box_convert(priors, "cxcywh", "xyxy"))
    best, taken = iou.max(0)
    for number in range(len(boxes)):
        favourite = iou[number].argmax()
        taken[favourite], best[favourite] = number, 2
    return torch.where(best >= threshold, labels[taken] + 1, 0), boxes[taken]


def test_matching_a_batch_equals_the_definition_for_each_image() -> None:
    targets = [random_objects(count, seed) for seed, count in enumerate((1, 7, 30))]
    match = match_priors(truth_of(*targets), PRIORS, 0.5)
    for number, target in enumerate(targets):
        assert target.boxes is not None and target.labels is not None
        labels, boxes = match_one_image(target.boxes / 64, target.labels, PRIORS, 0.5)
        assert torch.equal(match.labels[number], labels)
        assert torch.equal(match.boxes[number][labels > 0], boxes[labels > 0])


def test_an_object_that_overlaps_no_prior_by_half_still_has_one() -> None:
    match = match_priors(truth_of(objects((30, 31, 34, 32))), PRIORS, 0.5)
    assert (match.labels == 1).sum() == 1


def test_the_later_of_two_objects_wins_a_prior() -> None:
    box = (9.0, 9.0, 15.0, 15.0)
    match = match_priors(truth_of(objects(box, box)), PRIORS, 0.99)
    assert match.labels.unique().tolist() == [0, 2]


def test_crowds_boxes_without_area_and_padding_are_nobodys_target() -> None:
    crowd = objects((0, 0, 30, 30), (40, 40, 60, 60), crowd=torch.tensor([True, False]))
    flat = objects((5, 5, 5, 20), (9, 9, 8, 8))
    truth = truth_of(crowd, flat, Annotations(), objects(), random_objects(4, 0))
    assert truth.real.sum(1).tolist() == [1, 0, 0, 0, 4]
    labels = match_priors(truth, PRIORS, 0.5).labels
    assert labels[0].unique().tolist() == [0, 2]
    assert labels[1:4].sum() == 0


@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_mining_keeps_the_worst_negatives_of_each_image(ratio: float) -> None:
    loss = torch.rand(3, 200, generator=torch.Generator().manual_seed(0))
    positive = torch.zeros(3, 200, dtype=torch.bool)
    positive[0, :7], positive[1, 50:51] = True, True
    kept = mine_hard_negatives(loss, positive, ratio)
    assert kept.sum(1).tolist() == [7 * (1 + ratio), 1 + ratio, 0]
    negatives = kept & ~positive
    assert loss[0][negatives[0]].min() >= loss[0][~kept[0]].max()


def test_losses_equal_the_definition() -> None:
    generator = torch.Generator().manual_seed(1)
    targets = [random_objects(5, 1), random_objects(2, 2)]
    match = match_priors(truth_of(*targets), PRIORS, 0.5)
    logits, offsets = torch.randn(2, len(PRIORS), 6, generator=generator), torch.randn(2, len(PRIORS), 4, generator=generator)
    losses = multibox_losses(logits, offsets, match, PRIORS, **SETTINGS)
    positives, classification, regression = 0, 0.0, 0.0
    for image in range(2):
        labels = match.labels[image]
        positive = labels > 0
        cross_entropy = torch.nn.functional.cross_entropy(logits[image], labels, reduction="none")
        classification += cross_entropy[positive].sum() + cross_entropy[~positive].topk(3 * int(positive.sum())).values.sum()
        wanted, prior = box_convert(match.boxes[image], "xyxy", "cxcywh")[positive], PRIORS[positive]
        encoded = torch.cat([(wanted[:, :2] - prior[:, :2]) / prior[:, 2:] / 0.1, (wanted[:, 2:] / prior[:, 2:]).log() / 0.2], 1)
        difference = (offsets[image][positive] - encoded).abs()
        regression += torch.where(difference < 1, difference**2 / 2, difference - 0.5).sum()
        positives += int(positive.sum())
    assert torch.allclose(losses["cls_loss"], classification / positives, rtol=1e-5)
    assert torch.allclose(losses["reg_loss"], regression / positives, rtol=1e-5)


def test_a_batch_without_objects_has_zero_losses_and_zero_gradients() -> None:
    logits, offsets = torch.randn(2, len(PRIORS), 6, requires_grad=True), torch.randn(2, len(PRIORS), 4, requires_grad=True)
    losses = multibox_losses(logits, offsets, match_priors(truth_of(objects(), Annotations()), PRIORS, 0.5), PRIORS, **SETTINGS)
    assert {name: value.item() for name, value in losses.items()} == {"reg_loss": 0.0, "cls_loss": 0.0}
    sum(losses.values()).backward()
    for tensor in (logits, offsets):
        assert tensor.grad is not None and torch.equal(tensor.grad, torch.zeros_like(tensor))


def test_an_image_without_objects_changes_nothing() -> None:
    logits, offsets = torch.randn(2, len(PRIORS), 6), torch.randn(2, len(PRIORS), 4)
    match = match_priors(truth_of(random_objects(3, 0), objects()), PRIORS, 0.5)
    both = multibox_losses(logits, offsets, match, PRIORS, **SETTINGS)
    alone = multibox_losses(logits[:1], offsets[:1], Match(match.labels[:1], match.boxes[:1]), PRIORS, **SETTINGS)
    assert all(math.isclose(float(both[name]), float(alone[name]), rel_tol=1e-6) for name in both)


def test_five_hundred_objects_of_one_pixel_are_matched() -> None:
    low = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) * 63
    match = match_priors(truth_of(Annotations(boxes=torch.cat([low, low + 1], 1), labels=torch.zeros(500, dtype=torch.int64))), PRIORS, 0.5)
    losses = multibox_losses(torch.randn(1, len(PRIORS), 2), torch.randn(1, len(PRIORS), 4), match, PRIORS, **SETTINGS)
    assert (match.labels > 0).sum() > 50 and all(value.isfinite() for value in losses.values())
