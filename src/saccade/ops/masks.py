"""Instance masks in boxes: from a box's small grid into the picture, and from the picture into such a grid (He et al. 2017, section 3)."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, H, W): each of `masks` (n, h, w) float drawn into its box (n, 4) of an empty picture of `size` (H, W), by bilinear interpolation.

    The grid's outer cells fade out over half a cell inside the box's border. Boxes may reach over the picture's.
    """
    height, width = size
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=torch.finfo(boxes.dtype).eps)
    x = (torch.arange(width, device=boxes.device) + 0.5 - boxes[:, :1]) / sides[:, :1] * 2 - 1  # (n, W)
    y = (torch.arange(height, device=boxes.device) + 0.5 - boxes[:, 1:2]) / sides[:, 1:] * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1)  # (n, H, W, 2)
    return F.grid_sample(masks[:, None].to(boxes.dtype), grid, align_corners=False)[:, 0]


def crop_masks(masks: Tensor, boxes: Tensor, size: int) -> Tensor:
    """(n, size, size) bool: what of each of `masks` (n, H, W) lies in its box (n, 4): cells that are covered by half or more."""
    rows = torch.cat([torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)[:, None], boxes], 1)
    return roi_align(masks[:, None].to(boxes.dtype), rows, size, 1.0, 0, True)[:, 0] >= 0.5
