"""Anchors: torchvision's when rounded, mmdetection's worked values otherwise."""
from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from saccade.layers.anchors import cell_anchors, cells_inside, grid_anchors


def test_rounded_anchors_are_torchvisions() -> None:
    generator = AnchorGenerator(((32,), (64,)), ((0.5, 1.0, 2.0),) * 2)
    images = ImageList(torch.zeros(1, 3, 96, 160), [(96, 160)])
    maps = [torch.zeros(1, 8, 12, 20), torch.zeros(1, 8, 6, 10)]
    ours = [
        grid_anchors(cell_anchors(size, (0.5, 1.0, 2.0), rounded=True), grid, (stride, stride))
        for size, grid, stride in ((32, (12, 20), 8), (64, (6, 10), 16))
    ]
    assert torch.equal(torch.cat(ours), generator(images, maps)[0])


def test_a_ratio_is_height_over_width_and_keeps_the_area() -> None:
    anchors = cell_anchors(32, (0.5, 1.0, 2.0))
    assert anchors[0].tolist() == pytest.approx([-22.627417, -11.313708, 22.627417, 11.313708])
    assert ((anchors[:, 2:] - anchors[:, :2]).prod(1)).tolist() == pytest.approx([1024.0] * 3)


def test_ratios_are_outer_and_scales_inner() -> None:
    sides = (anchors := cell_anchors(8, (1.0, 4.0), (1.0, 2.0)))[:, 2:] - anchors[:, :2]
    assert sides.tolist() == [[8, 8], [16, 16], [4, 16], [8, 32]]


def test_anchors_stand_on_the_cells_corner_row_by_row() -> None:
    found = grid_anchors(torch.tensor([[-1.0, -1, 1, 1], [-2.0, -2, 2, 2]]), (2, 3), (10.0, 20.0))
    centers = (found[:, :2] + found[:, 2:]) / 2
    assert centers[::2].tolist() == [[0, 0], [20, 0], [40, 0], [0, 10], [20, 10], [40, 10]]
    assert torch.equal(centers[::2], centers[1::2])


def test_cells_that_start_within_the_picture_are_inside() -> None:
    inside = cells_inside((3, 4), 32, torch.tensor([[64.0, 96.0], [65.0, 1000.0]]))
    assert inside.view(2, 3, 4).sum(2).tolist() == [[3, 3, 0], [4, 4, 4]]
