"""The truth of a batch, the costs of matching and the Hungarian core."""
from __future__ import annotations

import logging

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from saccade.errors import DataError, NumericError
from saccade.layers import set_matching
from saccade.layers.set_matching import CostWeights, Matches, SetTruth, cost_terms, match_sets, matching_costs, set_truth
from saccade.ops.boxes import generalized_iou
from saccade.structures import Annotations

CPU = torch.device("cpu")
LAYERS, QUERIES, LOGITS = 3, 20, 8
WEIGHTS = CostWeights()


def random_boxes(*shape: int, seed: int = 0) -> Tensor:
    """Relative (cx, cy, w, h) of boxes inside the image."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.rand(*shape, 2, generator=generator) * 0.5 + 0.01
    return torch.cat([torch.rand(*shape, 2, generator=generator) * (1 - sizes) + sizes / 2, sizes], -1)


def random_truth(*counts: int, seed: int = 1) -> SetTruth:
    total = sum(counts)
    labels = torch.randint(0, LOGITS - 1, (total,), generator=torch.Generator().manual_seed(seed))
    numbers = torch.tensor(counts)
    return SetTruth(labels, random_boxes(total, seed=seed), torch.arange(len(counts)).repeat_interleave(numbers), numbers)


def random_outputs(images: int, seed: int = 2, queries: int = QUERIES) -> tuple[Tensor, Tensor]:
    logits = torch.randn(LAYERS, images, queries, LOGITS, generator=torch.Generator().manual_seed(seed)) * 2
    return logits, random_boxes(LAYERS, images, queries, seed=seed + 1)


def objects(*boxes: tuple[float, float, float, float], **more: Tensor) -> Annotations:
    return Annotations(boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=torch.arange(len(boxes)), **more)


def pairs(matches: Matches) -> list[tuple[int, ...]]:
    return list(zip(*(part.tolist() for part in matches), strict=True))


# The truth


def test_boxes_become_relative_to_the_image_without_its_padding() -> None:
    sizes = torch.tensor([[100, 200], [50, 80]])
    truth = set_truth([objects((20, 10, 60, 50)), objects((0, 0, 80, 50))], sizes, torch.tensor([1, 5]), CPU)
    assert torch.allclose(truth.boxes, torch.tensor([[0.2, 0.3, 0.2, 0.4], [0.5, 0.5, 1.0, 1.0]]))
    assert truth.image.tolist() == [0, 1] and truth.counts.tolist() == [1, 1] and truth.masks is None


def test_labels_become_places_among_the_logits() -> None:
    truth = set_truth([objects((0, 0, 1, 1), (0, 0, 2, 2), (0, 0, 3, 3))], torch.tensor([[9, 9]]), torch.tensor([1, 44, 90]), CPU)
    assert truth.labels.tolist() == [1, 44, 90]


def test_crowds_and_boxes_without_area_are_no_objects() -> None:
    nan, inf = float("nan"), float("inf")
    boxes = ((1, 1, 5, 5), (2, 2, 2, 6), (6, 2, 4, 8), (nan, 1, 5, 5), (1, 1, inf, 5), (3, 3, 4, 4), (0, 0, 9, 9))
    crowd = torch.tensor([False] * 6 + [True])
    masks = torch.zeros(7, 10, 10, dtype=torch.bool)
    masks[5, 3, 3] = True
    truth = set_truth([objects(*boxes, crowd=crowd, masks=masks)], torch.tensor([[10, 10]]), torch.arange(7), CPU, masks=True)
    assert truth.labels.tolist() == [0, 5] and truth.counts.tolist() == [2]
    assert truth.masks is not None and truth.masks.sum((1, 2)).tolist() == [0, 1]


def test_images_without_objects_are_kept_apart() -> None:
    targets = [Annotations(), objects((1, 1, 5, 5)), objects(), objects((1, 1, 2, 2), (3, 3, 4, 4))]
    truth = set_truth(targets, torch.full((4, 2), 10), torch.arange(2), CPU)
    assert truth.counts.tolist() == [0, 1, 0, 2] and truth.image.tolist() == [1, 3, 3]
    nothing = set_truth([Annotations(), objects()], torch.full((2, 2), 10), torch.arange(2), CPU, masks=True, mask_size=(6, 8))
    assert nothing.boxes.shape == (0, 4) and nothing.counts.tolist() == [0, 0]
    assert nothing.masks is not None and nothing.masks.shape == (0, 6, 8)


def test_masks_are_filled_up_to_the_padded_size_object_by_object() -> None:
    small, large = torch.rand(2, 4, 5) > 0.5, torch.rand(3, 7, 6) > 0.5
    crowd = torch.tensor([True, False])
    targets = [objects((0, 0, 1, 1), (0, 0, 2, 2), masks=small, crowd=crowd), objects(*[(0, 0, 1, 1)] * 3, masks=large)]
    truth = set_truth(targets, torch.tensor([[4, 5], [7, 6]]), torch.arange(3), CPU, masks=True, mask_size=(8, 8))
    assert truth.masks is not None and truth.masks.shape == (4, 8, 8)
    assert torch.equal(truth.masks[0, :4, :5], small[1]) and torch.equal(truth.masks[1:, :7, :6], large)
    assert truth.masks.sum() == small[1].sum() + large.sum()


def test_boxes_without_masks_are_refused_where_masks_are_learned() -> None:
    with pytest.raises(DataError, match="Image 1 of the batch has 1 boxes but no masks"):
        set_truth([Annotations(), objects((0, 0, 1, 1))], torch.full((2, 2), 4), torch.arange(1), CPU, masks=True)


# The overlap


def test_generalized_iou_equals_torchvisions_for_all_pairs() -> None:
    first, second = (box_convert(random_boxes(30, seed=s), "cxcywh", "xyxy") for s in (3, 4))
    assert torch.allclose(generalized_iou(first[:, None], second), generalized_box_iou(first, second), atol=1e-6)


def test_boxes_without_area_have_a_finite_overlap_and_gradient() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.6, 0.6, 0.2, 0.2], [0.1, 0.1, 0.1, 0.9]], requires_grad=True)
    overlap = generalized_iou(boxes[:, None], torch.cat([boxes.detach(), torch.tensor([[0.1, 0.1, 0.4, 0.4]])]))
    overlap.sum().backward()
    assert overlap.isfinite().all() and (overlap.abs() <= 1).all()
    assert boxes.grad is not None and boxes.grad.isfinite().all()


# The costs


def textbook_costs(logits: Tensor, boxes: Tensor, truth: SetTruth) -> Tensor:
    """Objects by queries of one image and layer, as in the paper."""
    distance = torch.cdist(boxes, truth.boxes, p=1)
    overlap = generalized_box_iou(box_convert(boxes, "cxcywh", "xyxy"), box_convert(truth.boxes, "cxcywh", "xyxy"))
    return (-logits.softmax(-1)[:, truth.labels] + 5 * distance - 2 * overlap).T


def of_image(truth: SetTruth, image: int) -> SetTruth:
    own = truth.image == image
    return SetTruth(truth.labels[own], truth.boxes[own], torch.zeros_like(truth.image[own]), truth.counts[image : image + 1])


def test_costs_and_matches_equal_the_textbook_image_by_image() -> None:
    truth = random_truth(7, 0, 1, 12)
    logits, boxes = random_outputs(4)
    costs = matching_costs(logits, boxes, truth, WEIGHTS)
    found = pairs(match_sets(costs, truth.counts))
    expected = []
    for layer in range(LAYERS):
        for image in range(4):
            own = of_image(truth, image)
            single = textbook_costs(logits[layer, image], boxes[layer, image], own)
            assert torch.allclose(costs[layer, truth.image == image], single, atol=1e-5)
            start = int(truth.counts[:image].sum())
            target, query = linear_sum_assignment(single)
            expected += sorted((layer, image, q, start + t) for t, q in zip(target.tolist(), query.tolist(), strict=True))
    assert found == expected


def test_an_image_alone_is_matched_as_in_a_batch() -> None:
    truth = random_truth(5, 3)
    logits, boxes = random_outputs(2)
    together = match_sets(matching_costs(logits, boxes, truth, WEIGHTS), truth.counts)
    own = of_image(truth, 1)
    alone = match_sets(matching_costs(logits[:, 1:], boxes[:, 1:], own, WEIGHTS), own.counts)
    here = together.image == 1
    assert torch.equal(together.query[here], alone.query) and torch.equal(together.target[here] - 5, alone.target)


def test_the_focal_cost_is_the_loss_of_presence_less_that_of_absence() -> None:
    truth = random_truth(3)
    logits, boxes = random_outputs(1)
    p = logits[..., :-1].sigmoid()
    expected = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log() - 0.75 * p**2 * -(1 - p + 1e-8).log()
    terms = cost_terms(logits[..., :-1], boxes, truth, "focal")
    assert torch.allclose(terms["class"], expected[:, 0][..., truth.labels].transpose(1, 2), atol=1e-6)


def test_costs_are_float32_without_gradient_even_under_autocast() -> None:
    truth = random_truth(3, 2)
    logits, boxes = random_outputs(2)
    expected = matching_costs(logits.bfloat16(), boxes, truth, WEIGHTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        costs = matching_costs(logits.bfloat16().requires_grad_(), boxes.requires_grad_(), truth, WEIGHTS)
    assert costs.dtype == torch.float32 and not costs.requires_grad
    assert torch.equal(costs, expected)


def test_one_pixel_objects_are_told_apart() -> None:
    centers = torch.tensor([[0.2, 0.2], [0.5, 0.5], [0.8, 0.3]])
    tiny = torch.cat([centers, torch.full((3, 2), 1 / 1333)], 1)
    truth = SetTruth(torch.zeros(3, dtype=torch.int64), tiny, torch.zeros(3, dtype=torch.int64), torch.tensor([3]))
    order = torch.tensor([2, 0, 1])
    matches = match_sets(matching_costs(torch.zeros(1, 1, 3, LOGITS), tiny[order][None, None], truth, WEIGHTS), truth.counts)
    assert matches.target.tolist() == order.tolist()


def test_predicted_boxes_without_area_do_not_stop_matching() -> None:
    truth = random_truth(4)
    logits, boxes = random_outputs(1)
    boxes[..., 2:] = 0
    assert len(match_sets(matching_costs(logits, boxes, truth, WEIGHTS), truth.counts).query) == 4 * LAYERS


# The assignment


def test_a_batch_without_objects_has_no_matches() -> None:
    truth = random_truth(0, 0)
    matches = match_sets(matching_costs(*random_outputs(2), truth, WEIGHTS), truth.counts)
    assert all(part.shape == (0,) and part.dtype == torch.int64 for part in matches)


def test_more_objects_than_queries_match_the_cheapest_and_warn_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_matching, "_warned_of_crowds", False)
    truth = random_truth(300)
    logits, boxes = random_outputs(1, queries=100)
    costs = matching_costs(logits, boxes, truth, WEIGHTS)
    with caplog.at_level(logging.WARNING, "saccade"):
        for _ in range(2):
            matches = match_sets(costs, truth.counts, sample_names=["coco 17"])
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["300 objects for 100 queries in coco 17"]
    for layer in range(LAYERS):
        own = matches.of_layer(layer)
        assert own.query.tolist() == list(range(100)) and len(set(own.target.tolist())) == 100
        best = linear_sum_assignment(costs[layer])
        assert costs[layer, own.target, own.query].sum() == pytest.approx(float(costs[layer][best].sum()), rel=1e-5)


def test_forced_pairs_match_and_forbidden_queries_do_not() -> None:
    truth = random_truth(4, 3)
    costs = matching_costs(*random_outputs(2), truth, WEIGHTS)
    free = match_sets(costs, truth.counts)
    forbidden = torch.zeros(2, QUERIES, dtype=torch.bool)
    forbidden[0, free.query[free.image == 0]] = True  # whatever would match otherwise
    forced = torch.tensor([[5, 19], [0, next(q for q in range(QUERIES) if not forbidden[0, q])]])
    matches = match_sets(costs, truth.counts, forced=forced, forbidden=forbidden)
    assert len(matches.query) == 7 * LAYERS
    assert not forbidden[matches.image, matches.query].any()
    for layer in range(LAYERS):
        own = matches.of_layer(layer)
        query_of = dict(zip(own.target.tolist(), own.query.tolist(), strict=True))
        assert all(query_of[row] == query for row, query in forced.tolist())
    assert pairs(matches) == sorted(pairs(matches))


def test_forced_pairs_leave_the_cheapest_assignment_of_the_rest() -> None:
    """The same as rows and columns of infinite cost but for the pair's own, which is how it is often written."""
    truth = random_truth(5)
    costs = matching_costs(*random_outputs(1), truth, WEIGHTS)
    matches = match_sets(costs, truth.counts, forced=torch.tensor([[2, 7]]))
    barred = costs.clone()
    barred[:, 2], barred[:, :, 7] = 1e6, 1e6
    barred[:, 2, 7] = -1.0
    assert pairs(matches) == pairs(match_sets(barred, truth.counts))


@pytest.mark.parametrize("forced", [[[0, 1], [0, 2]], [[0, 1], [1, 1]], [[0, 3]]], ids=["one object twice", "one query twice", "a forbidden query"])
def test_pairs_that_contradict_each_other_are_refused(forced: list[list[int]]) -> None:
    forbidden = torch.arange(QUERIES)[None] == 3
    with pytest.raises(ValueError, match="distinct"):
        match_sets(torch.zeros(1, 4, QUERIES), torch.tensor([4]), forced=torch.tensor(forced), forbidden=forbidden)


def test_costs_built_elsewhere_are_matched_all_the_same() -> None:
    """Instances of two clips with ten query sequences each, as for video."""
    costs = torch.rand(2, 5, 10, generator=torch.Generator().manual_seed(0))
    matches = match_sets(costs, torch.tensor([2, 3]))
    for layer in range(2):
        own = matches.of_layer(layer)
        for rows in (slice(0, 2), slice(2, 5)):
            target, sequence = linear_sum_assignment(costs[layer, rows])
            got = {t: q for t, q in zip(own.target.tolist(), own.query.tolist(), strict=True) if rows.start <= t < rows.stop}
            assert got == {rows.start + t: s for t, s in zip(target.tolist(), sequence.tolist(), strict=True)}
    with pytest.raises(ValueError, match="5 rows of costs for 4 objects"):
        match_sets(costs, torch.tensor([2, 2]))


# What is not finite


@pytest.mark.parametrize("part, term", [("logits", "class"), ("boxes", "L1")])
def test_a_cost_that_is_not_finite_names_sample_layer_and_term(part: str, term: str) -> None:
    truth = random_truth(2, 3, 1)
    values = dict(zip(("logits", "boxes"), random_outputs(3), strict=True))
    values[part][1, 1:, 4] = float("nan")
    costs = matching_costs(**values, truth=truth, weights=WEIGHTS)
    with pytest.raises(NumericError) as caught:
        match_sets(costs, truth.counts, sample_names=["town 3", "town 17", "town 20"], terms=lambda: cost_terms(**values, truth=truth))
    message = str(caught.value)
    assert "objects of town 17 are not finite at decoder layer 2 of 3" in message and "So are those of town 20." in message
    assert f"its {term} term in 3 of 60 values" in message
    assert ("its class term" in message) == (part == "logits") and ("its GIoU term" in message) == (part == "boxes")
    assert caught.value.exit_code == 4


def test_a_sample_without_name_is_told_by_its_place() -> None:
    costs = torch.zeros(1, 3, QUERIES)
    costs[0, 2, 0] = float("inf")
    with pytest.raises(NumericError, match="image 1 of the batch are not finite at decoder layer 1 of 1"):
        match_sets(costs, torch.tensor([2, 1]))
