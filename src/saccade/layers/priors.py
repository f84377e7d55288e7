"""Prior ("default") boxes of single-shot detectors (Liu et al. 2016, section 2.2, "Choosing scales and aspect ratios for default boxes").

Each cell of each feature map carries a few fixed boxes. Order: level, row, column, then within a cell the square of the smallest size, the square of
the geometric mean with the next size, and for every ratio r the wide and the tall box of the smallest size.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def make_priors(
    image_size: int,
    grids: Sequence[tuple[int, int]],
    min_sizes: Sequence[float],
    max_sizes: Sequence[float],
    aspect_ratios: Sequence[Sequence[float]],
    strides: Sequence[float] | None = None,
    clip: bool = True,
) -> Tensor:
    """Priors (P, 4) float32 as (cx, cy, w, h) relative to the square image of `image_size` pixels.

    `grids`: (rows, columns) of every level. `min_sizes` and `max_sizes` in pixels. `strides`: pixels between two cells, where that is not the image
    size over the grid. `clip` limits all four numbers to 0..1, in centre form: a box may still reach over the border.
    """
    steps = [None] * len(grids) if strides is None else strides
    levels = zip(grids, steps, min_sizes, max_sizes, aspect_ratios, strict=True)
    priors = torch.cat([_level(image_size, grid, step, low, high, ratios) for grid, step, low, high, ratios in levels])
    return (priors.clamp_(0, 1) if clip else priors).float()


def _level(
    image_size: int, grid: tuple[int, int], stride: float | None, min_size: float, max_size: float, ratios: Sequence[float]
) -> Tensor:
    rows, columns = grid
    centre_y, centre_x = (
        (torch.arange(n, dtype=torch.float64) + 0.5) * (1 / n if stride is None else stride / image_size) for n in (rows, columns)
    )
    small, mean = min_size / image_size, math.sqrt(min_size * max_size) / image_size
    shapes = [(small, small), (mean, mean)]
    for ratio in ratios:
        root = math.sqrt(ratio)
        shapes += [(small * root, small / root), (small / root, small * root)]
    result = torch.empty(rows, columns, len(shapes), 4, dtype=torch.float64)
    result[..., 0] = centre_x[None, :, None]
    result[..., 1] = centre_y[:, None, None]
    result[..., 2:] = torch.tensor(shapes, dtype=torch.float64)
    return result.reshape(-1, 4)


def boxes_per_cell(ratios: Sequence[float]) -> int:
    """How many priors a cell has: two squares and two boxes a ratio."""
    return 2 + 2 * len(ratios)


def paper_sizes(image_size: int, levels: int, smallest: float, largest: float) -> tuple[list[float], list[float]]:
    """(min_sizes, max_sizes) in pixels, evenly spaced between the fractions `smallest` and `largest` of the image (equation 4 of the paper)."""
    step = (largest - smallest) / max(1, levels - 1)
    sizes = [(smallest + step * level) * image_size for level in range(levels + 1)]
    return sizes[:-1], sizes[1:]
