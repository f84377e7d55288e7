"""Anchors: the boxes that stand in every cell of a feature map and that dense detectors score and move (Ren et al. 2015, arXiv:1506.01497).

Anchors are (x1, y1, x2, y2) around the cell's own corner (column * stride, row * stride), not its middle. They are listed row by row, in a row column
by column, in a cell ratio by ratio and for each ratio scale by scale, as mmdetection and torchvision do. Spec image_models.md D2, D7.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_anchors(size: float, ratios: Sequence[float], scales: Sequence[float] = (1.0,), *, rounded: bool = False) -> Tensor:
    """(A, 4) anchors around the origin, A = ratios x scales, with sides `size` * scale * (1 / sqrt(ratio), sqrt(ratio)); ratio = height / width.

    `rounded` moves the corners to whole pixels (torchvision).
    """
    heights = torch.tensor(ratios, dtype=torch.float32).sqrt()
    widths = 1 / heights
    scale = torch.tensor(scales, dtype=torch.float32)
    half = torch.stack([size * widths[:, None] * scale, size * heights[:, None] * scale], -1).reshape(-1, 2) * 0.5
    anchors = torch.cat([-half, half], 1)
    return anchors.round() if rounded else anchors


def grid_anchors(cell: Tensor, grid: tuple[int, int], stride: tuple[float, float]) -> Tensor:
    """(rows * columns * A, 4): the anchors `cell` (A, 4) in every cell of a `grid` (rows, columns); `stride` (down, across) in pixels."""
    down = torch.arange(grid[0], device=cell.device, dtype=cell.dtype) * stride[0]
    across = torch.arange(grid[1], device=cell.device, dtype=cell.dtype) * stride[1]
    y, x = torch.meshgrid(down, across, indexing="ij")
    corners = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (corners + cell).reshape(-1, 4)


def cells_inside(grid: tuple[int, int], stride: float, sizes: Tensor) -> Tensor:
    """(N, rows * columns) bool: which cells of a `grid` start within pictures of `sizes` (N, 2) (height, width)."""
    cells = (sizes / stride).ceil()
    rows = torch.arange(grid[0], device=sizes.device) < cells[:, :1]  # (N, rows)
    columns = torch.arange(grid[1], device=sizes.device) < cells[:, 1:]
    return (rows[:, :, None] & columns[:, None]).flatten(1)
