"""Overlaps of batches of boxes."""
from __future__ import annotations

import torch
from torchvision.ops import box_iou

from saccade.ops.boxes import areas, clip_to_canvas, pairwise_iou


def random_boxes(*shape: int, seed: int = 0) -> torch.Tensor:
    corners = torch.rand(*shape, 2, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([corners.amin(-2), corners.amax(-2)], -1)


def test_overlaps_equal_torchvisions() -> None:
    boxes1, boxes2 = random_boxes(3, 5), random_boxes(7, seed=1)
    expected = torch.stack([box_iou(image, boxes2) for image in boxes1])
    assert torch.allclose(pairwise_iou(boxes1, boxes2), expected, atol=1e-6)


def test_the_epsilon_is_added_to_the_union() -> None:
    box = torch.tensor([[0.0, 0.0, 0.01, 0.01]])
    assert torch.allclose(pairwise_iou(box, box), torch.ones(1, 1))
    assert torch.allclose(pairwise_iou(box, box, 1e-5), torch.tensor([[1e-4 / (1e-4 + 1e-5)]]))


def test_boxes_without_area_overlap_nothing() -> None:
    boxes = torch.tensor([[1.0, 1, 1, 1], [3, 3, 2, 2], [0, 0, 4, 4]])
    assert torch.equal(areas(boxes), torch.tensor([0.0, 0, 16]))
    assert torch.equal(pairwise_iou(boxes, boxes), torch.diag(torch.tensor([0.0, 0, 1])))


def test_clipped_boxes_lie_in_the_picture() -> None:
    assert torch.equal(clip_to_canvas(torch.tensor([[-1.0, 2, 30, 40], [5, 6, 7, 8]]), (20, 10)), torch.tensor([[0.0, 2, 10, 20], [5, 6, 7, 8]]))
    assert clip_to_canvas(torch.zeros(0, 4), (20, 10)).shape == (0, 4)
