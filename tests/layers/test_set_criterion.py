"""The losses of matched sets."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou, sigmoid_focal_loss

from saccade.errors import NumericError
from saccade.layers import set_criterion
from saccade.layers.set_criterion import SetCriterion, mask_losses
from saccade.layers.set_matching import SetTruth
from saccade.recipes import build

LAYERS, QUERIES, LOGITS, SIZE = 3, 15, 7, (24, 32)


def random_truth(*counts: int, masks: bool = False) -> SetTruth:
    generator = torch.Generator().manual_seed(sum(counts))
    total, numbers = sum(counts), torch.tensor(counts)
    sizes = torch.rand(total, 2, generator=generator) * 0.5 + 0.01
    boxes = torch.cat([torch.rand(total, 2, generator=generator) * (1 - sizes) + sizes / 2, sizes], 1)
    labels = torch.randint(0, LOGITS - 1, (total,), generator=generator)
    pixels = torch.rand(total, *SIZE, generator=generator) > 0.6 if masks else None
    return SetTruth(labels, boxes, torch.arange(len(counts)).repeat_interleave(numbers), numbers, pixels)


def random_outputs(images: int, masks: bool = False, logits: int = LOGITS) -> dict[str, Any]:
    """What heads give, and the leaves that gradients reach."""
    generator = torch.Generator().manual_seed(images)
    outputs = {
        "logits": (torch.randn(LAYERS, images, QUERIES, logits, generator=generator) * 2).requires_grad_(),
        "raw": torch.randn(LAYERS, images, QUERIES, 4, generator=generator).requires_grad_(),
    }
    outputs["boxes"] = outputs["raw"].sigmoid()
    if masks:
        outputs["masks"] = (torch.randn(images, QUERIES, 6, 8, generator=generator) * 2).requires_grad_()
    return outputs


def textbook_losses(outputs: dict[str, Any], truth: SetTruth, criterion: SetCriterion) -> dict[str, Tensor]:
    """Layer by layer, image by image, as the paper says it."""
    count = max(len(truth.labels), 1)
    terms: dict[str, Tensor] = {}
    for layer in range(LAYERS):
        suffix = "" if layer == LAYERS - 1 else f"_{layer}"
        surprise, weight, l1, giou, focal, dice = (torch.zeros(()) for _ in range(6))
        for image in range(len(truth.counts)):
            own = truth.image == image
            labels, boxes = truth.labels[own], truth.boxes[own]
            logits, got = outputs["logits"][layer, image], outputs["boxes"][layer, image]
            overlap = generalized_box_iou(box_convert(got, "cxcywh", "xyxy"), box_convert(boxes, "cxcywh", "xyxy"))
            cost = -criterion.cost_class * logits.softmax(-1)[:, labels] + criterion.cost_bbox * torch.cdist(got, boxes, p=1)
            query, target = linear_sum_assignment((cost - criterion.cost_giou * overlap).detach())
            wanted = torch.full((QUERIES,), LOGITS - 1)
            wanted[query] = labels[target]
            weights = torch.ones(LOGITS)
            weights[-1] = criterion.eos_coef
            surprise = surprise + (weights[wanted] * F.cross_entropy(logits, wanted, reduction="none")).sum()
            weight = weight + weights[wanted].sum()
            l1 = l1 + (got[query] - boxes[target]).abs().sum()
            giou = giou + (1 - overlap[query, target]).sum()
            if "masks" in outputs and not suffix:
                assert truth.masks is not None
                full = F.interpolate(outputs["masks"][image, query][:, None], size=SIZE, mode="bilinear")[:, 0]
                mask = truth.masks[own][target].float()
                focal = focal + sigmoid_focal_loss(full, mask).flatten(1).mean(1).sum()
                p = full.sigmoid()
                dice = dice + (1 - (2 * (p * mask).sum((1, 2)) + 1) / (p.sum((1, 2)) + mask.sum((1, 2)) + 1)).sum()
        terms[f"loss_ce{suffix}"] = criterion.weight_ce * surprise / weight
        terms[f"loss_bbox{suffix}"] = criterion.weight_bbox * l1 / count
        terms[f"loss_giou{suffix}"] = criterion.weight_giou * giou / count
        if "masks" in outputs and not suffix:
            terms |= {"loss_mask": criterion.weight_mask * focal / count, "loss_dice": criterion.weight_dice * dice / count}
    return terms


def numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in terms.items()}


def gradients(terms: dict[str, Tensor], outputs: dict[str, Any]) -> dict[str, Tensor]:
    leaves = {name: value for name, value in outputs.items() if value.is_leaf}
    total = torch.stack(list(terms.values())).sum()
    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values()), retain_graph=True), strict=True))


@pytest.mark.parametrize(
    "criterion",
    [SetCriterion(), SetCriterion(eos_coef=0.4, cost_class=2, cost_bbox=3, cost_giou=1, weight_ce=2, weight_bbox=4, weight_mask=3, weight_dice=0.5)],
    ids=["paper", "other weights"],
)
def test_losses_and_gradients_equal_the_textbook(criterion: SetCriterion) -> None:
    truth, outputs = random_truth(6, 0, 1, 11, masks=True), random_outputs(4, masks=True)
    got, expected = criterion.losses(outputs, truth), textbook_losses(outputs, truth, criterion)
    assert numbers(got) == pytest.approx(numbers(expected), rel=1e-5)
    for (name, gradient), wanted in zip(gradients(got, outputs).items(), gradients(expected, outputs).values(), strict=True):
        assert torch.allclose(gradient, wanted, atol=1e-6, rtol=1e-4), name


def test_only_the_last_layer_is_taught_where_there_is_only_one() -> None:
    outputs = {name: value[-1:] for name, value in random_outputs(2).items()}
    assert list(SetCriterion().losses(outputs, random_truth(2, 3))) == ["loss_ce", "loss_bbox", "loss_giou"]


def test_a_batch_without_objects_has_zero_box_and_mask_losses_and_gradients_everywhere() -> None:
    truth, outputs = random_truth(0, 0, masks=True), random_outputs(2, masks=True)
    terms = SetCriterion().losses(outputs, truth)
    assert all((value > 0) == name.startswith("loss_ce") for name, value in numbers(terms).items())
    found = gradients(terms, outputs)  # raises where a head is not reached
    assert not found["raw"].any() and not found["masks"].any() and found["logits"].abs().sum() > 0


def test_nothing_counts_where_there_is_no_object_and_no_query_without_one_counts() -> None:
    outputs = random_outputs(1)
    terms = SetCriterion(eos_coef=0.0).losses(outputs, random_truth(0))
    assert set(numbers(terms).values()) == {0.0} and not gradients(terms, outputs)["logits"].any()


def test_one_object_alone_is_taught_to_one_query_a_layer() -> None:
    truth, outputs = random_truth(1), random_outputs(1)
    found = gradients(SetCriterion().losses(outputs, truth), outputs)
    assert ((found["raw"] != 0).any(-1).sum((1, 2)) == 1).all()


def test_box_losses_are_divided_by_the_mean_number_of_objects_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, outputs = random_truth(4, 2), random_outputs(2)
    alone = numbers(SetCriterion().losses(outputs, truth))
    monkeypatch.setattr(set_criterion, "mean_over_processes", lambda value: (value + 12) / 2)  # as if another process had 12
    shared = numbers(SetCriterion().losses(outputs, truth))
    assert shared == pytest.approx({name: value * (1 if "ce" in name else 6 / 9) for name, value in alone.items()}, rel=1e-6)


def test_objects_beyond_the_queries_still_count_in_the_divisor() -> None:
    truth, outputs = random_truth(40), random_outputs(1)
    matches = SetCriterion().match(outputs, truth)
    last = matches.of_layer(LAYERS - 1)
    l1 = (outputs["boxes"].detach()[-1, 0, last.query] - truth.boxes[last.target]).abs().sum()
    assert numbers(SetCriterion(weight_bbox=1).losses(outputs, truth, matches=matches))["loss_bbox"] == pytest.approx(float(l1) / 40, rel=1e-5)


def test_given_matches_are_used_and_are_those_found_otherwise() -> None:
    truth, outputs = random_truth(4, 2), random_outputs(2)
    criterion = SetCriterion()
    matches = criterion.match(outputs, truth)
    assert numbers(criterion.losses(outputs, truth, matches=matches)) == numbers(criterion.losses(outputs, truth))
    forced = criterion.match(outputs, truth, forced=torch.tensor([[0, QUERIES - 1]]), forbidden=torch.arange(QUERIES).expand(2, -1) < 5)
    assert forced.query.min() >= 5
    assert criterion.losses(outputs, truth, matches=forced)["loss_bbox"] > criterion.losses(outputs, truth)["loss_bbox"]


def test_the_focal_loss_teaches_absent_classes_to_every_query() -> None:
    truth, outputs = random_truth(5, 0, 2), random_outputs(3, logits=LOGITS - 1)
    criterion = SetCriterion(class_loss="focal", weight_ce=2)
    matches = criterion.match(outputs, truth)
    got = numbers(criterion.losses(outputs, truth, matches=matches))
    for layer in range(LAYERS):
        own = matches.of_layer(layer)
        wanted = torch.zeros(3, QUERIES, LOGITS - 1)
        for image, query, target in zip(own.image, own.query, own.target, strict=True):
            wanted[image, query] = F.one_hot(truth.labels[target], LOGITS - 1).float()
        expected = 2 * sigmoid_focal_loss(outputs["logits"].detach()[layer], wanted, reduction="sum") / 7
        assert got["loss_ce" if layer == LAYERS - 1 else f"loss_ce_{layer}"] == pytest.approx(float(expected), rel=1e-5)


def test_mask_losses_are_the_same_when_computed_in_parts() -> None:
    truth, outputs = random_truth(5, 3, masks=True), random_outputs(2, masks=True)
    matches = SetCriterion().match(outputs, truth).of_layer(LAYERS - 1)
    whole, parts = (torch.stack(mask_losses(outputs["masks"], truth, matches, at_once)) for at_once in (2**24, 3 * SIZE[0] * SIZE[1]))
    assert torch.allclose(whole, parts)
    gradient = [torch.autograd.grad(sums.sum(), outputs["masks"])[0] for sums in (whole, parts)]
    assert torch.allclose(*gradient, atol=1e-7)


def test_masks_without_truth_are_refused() -> None:
    with pytest.raises(ValueError, match="masks=True"):
        SetCriterion().losses(random_outputs(1, masks=True), random_truth(2))


def test_losses_are_float32_under_autocast() -> None:
    truth, outputs = random_truth(4, 2, masks=True), random_outputs(2, masks=True)
    low = {name: value.detach().bfloat16().requires_grad_() for name, value in outputs.items() if name != "raw"}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = SetCriterion().losses(low, truth)
    plain = SetCriterion().losses({name: value.float() for name, value in low.items()}, truth)
    assert all(value.dtype == torch.float32 for value in terms.values())
    assert numbers(terms) == numbers(plain)


def test_predictions_that_are_not_finite_stop_naming_the_sample() -> None:
    truth, outputs = random_truth(4, 2), random_outputs(2)
    outputs["boxes"] = torch.where(torch.arange(2)[:, None, None] == 1, float("nan"), outputs["boxes"])
    with pytest.raises(NumericError, match="objects of town 9 are not finite at decoder layer 1 of 3: its L1 term in 30 of 30 values, its GIoU"):
        SetCriterion().losses(outputs, truth, ["town 8", "town 9"])


def test_figures_count_wrong_classes_and_queries_that_say_something() -> None:
    truth = random_truth(2, 1)
    logits = torch.zeros(1, 2, QUERIES, LOGITS)
    logits[..., -1] = 1  # all say nothing,
    logits[0, 0, :5, 0] = 2  # but five queries in the first image
    outputs = {"logits": logits, "boxes": torch.full((1, 2, QUERIES, 4), 0.5)}
    matches = SetCriterion().match(outputs, truth)
    right = int((logits[0, matches.image, matches.query].argmax(-1) == truth.labels[matches.target]).sum())
    figures = SetCriterion().figures(outputs, truth, matches)
    assert figures["cardinality_error"] == pytest.approx((abs(5 - 2) + abs(0 - 1)) / 2)
    assert figures["class_error"] == pytest.approx(100 - 100 * right / 3)


def test_figures_of_sigmoids_count_classes_above_one_half() -> None:
    truth = random_truth(2, 1)
    logits = torch.full((1, 2, QUERIES, LOGITS - 1), -1.0)
    logits[0, 0, :5, 0] = 1
    outputs = {"logits": logits, "boxes": torch.full((1, 2, QUERIES, 4), 0.5)}
    criterion = SetCriterion(class_loss="focal")
    assert criterion.figures(outputs, truth, criterion.match(outputs, truth))["cardinality_error"] == pytest.approx((abs(5 - 2) + abs(0 - 1)) / 2)


def test_recipes_name_it() -> None:
    assert build({"type": "SetCriterion", "class_loss": "focal", "weight_ce": 2.0}) == SetCriterion(class_loss="focal", weight_ce=2.0)
