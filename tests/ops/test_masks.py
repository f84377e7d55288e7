"""Masks into boxes and out of them."""
from __future__ import annotations

import torch

from saccade.ops.masks import crop_masks, paste_masks


def test_a_full_mask_fills_its_box_and_nothing_else() -> None:
    pasted = paste_masks(torch.ones(1, 28, 28), torch.tensor([[10.0, 5, 40, 25]]), (40, 60))
    assert pasted.shape == (1, 40, 60)
    assert (pasted[0, 6:24, 11:39] > 0.5).all() and float(pasted.sum()) > 550
    outside = pasted.clone()
    outside[0, 5:25, 10:40] = 0
    assert float(outside.max()) <= 0.5


def test_boxes_may_reach_over_the_border() -> None:
    pasted = paste_masks(torch.ones(1, 14, 14), torch.tensor([[-20.0, -20, 20, 20]]), (30, 30))
    assert (pasted[0, :18, :18] > 0.99).all() and not pasted[0, 22:].any()


def test_cropping_undoes_pasting() -> None:
    torch.manual_seed(0)
    small = torch.nn.functional.interpolate((torch.rand(3, 1, 7, 7) > 0.5).float(), size=28)[:, 0]
    boxes = torch.tensor([[10.0, 10, 66, 94], [0, 0, 84, 84], [20, 30, 76, 86]])
    masks = paste_masks(small, boxes, (100, 100)) >= 0.5
    assert float((crop_masks(masks, boxes, 28) == small.bool()).float().mean()) > 0.97
