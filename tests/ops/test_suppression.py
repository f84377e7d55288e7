"""Suppression of a whole batch is what loops over images and classes give."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from saccade.ops.suppression import best_detections, suppress_in_groups


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    low, size = torch.rand(count, 2, generator=generator) * 100, torch.rand(count, 2, generator=generator) * 60 + 5
    return torch.cat([low, low + size], 1)


def loops(scores: Tensor, boxes: Tensor, threshold: float, iou: float, most: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    results = []
    for image_scores, image_boxes in zip(scores, boxes, strict=True):
        found = []
        for label in range(scores.shape[2]):
            passing = image_scores[:, label] > threshold
            candidates, confidence = image_boxes[passing], image_scores[passing, label]
            kept = nms(candidates, confidence, iou)
            found.append((candidates[kept], confidence[kept], torch.full((len(kept),), label)))
        all_boxes, all_scores, all_labels = (torch.cat(part) for part in zip(*found, strict=True))
        order = all_scores.argsort(descending=True)[:most]
        results.append((all_boxes[order], all_scores[order], all_labels[order]))
    return results


@pytest.mark.parametrize("first_look", [2, 7, 256])
@pytest.mark.parametrize(("threshold", "most"), [(0.0, 20), (0.5, 20), (0.9, 300), (0.97, 5)])
def test_equals_loops_over_images_and_classes(threshold: float, most: int, first_look: int) -> None:
    generator = torch.Generator().manual_seed(3)
    boxes = torch.stack([random_boxes(90, generator) - 40 for _ in range(3)])
    scores = torch.rand(3, 90, 4, generator=generator)
    got = best_detections(
        scores, lambda image, place: boxes[image, place], score_threshold=threshold, iou_threshold=0.3, most=most, first_look=first_look
    )
    for one, other in zip(got, loops(scores, boxes, threshold, 0.3, most), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert len(one[0]) > 0


def test_images_without_candidates_have_no_detections() -> None:
    scores = torch.zeros(3, 10, 2)
    scores[1, 4, 1] = 0.8
    box = torch.tensor([1.0, 2, 3, 4])
    got = best_detections(scores, lambda image, place: box.expand(len(place), 4), score_threshold=0.1, iou_threshold=0.5, most=5)
    assert [len(boxes) for boxes, _, _ in got] == [0, 1, 0]
    assert got[1][2].tolist() == [1] and torch.equal(got[1][0], box[None])
    none = best_detections(scores, lambda image, place: box.expand(len(place), 4), score_threshold=0.9, iou_threshold=0.5, most=5)
    assert [len(boxes) for boxes, _, _ in none] == [0, 0, 0]


def test_equal_boxes_of_other_groups_survive() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(4, 1)
    kept = suppress_in_groups(boxes, torch.tensor([0.1, 0.9, 0.3, 0.4]), torch.tensor([0, 0, 7, 1000]), 0.5)
    assert kept.tolist() == [1, 3, 2]
