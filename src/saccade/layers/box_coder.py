"""Boxes as offsets from prior boxes, and back.

Of single-shot detectors (Liu et al. 2016, section 2.2): boxes and priors are (cx, cy, w, h) in the same unit, offsets ((c - c_p) / wh_p / v_c,
log(wh / wh_p) / v_s) with the two variances v. Of two-stage detectors (Ren et al. 2015, section 3.1.2): boxes and anchors are corners, deltas the
same four numbers over four standard deviations.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST_GROWTH = math.log(1e4)  # keeps the exponential of an untrained network finite; no trained one comes near
LARGEST_STEP = math.log(1000 / 16)  # by which the sides of two-stage detectors' boxes grow or shrink at most, as logarithm


def encode_boxes(boxes: Tensor, priors: Tensor, center_variance: float, size_variance: float) -> Tensor:
    """Offsets (..., 4) that lead from `priors` to `boxes`, both (..., 4) as (cx, cy, w, h)."""
    centers = (boxes[..., :2] - priors[..., :2]) / priors[..., 2:] / center_variance
    sizes = (boxes[..., 2:] / priors[..., 2:]).log() / size_variance
    return torch.cat([centers, sizes], -1)


def decode_boxes(offsets: Tensor, priors: Tensor, center_variance: float, size_variance: float) -> Tensor:
    """Boxes (..., 4) as (cx, cy, w, h) from `offsets` and `priors` (..., 4). A box is at most 10000 times its prior."""
    centers = offsets[..., :2] * center_variance * priors[..., 2:] + priors[..., :2]
    sizes = (offsets[..., 2:] * size_variance).clamp(max=LARGEST_GROWTH).exp() * priors[..., 2:]
    return torch.cat([centers, sizes], -1)


def encode_deltas(boxes: Tensor, anchors: Tensor, stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """What leads from `anchors` to `boxes`, both (..., 4) corners: ((c - c_a) / wh_a, log(wh / wh_a)) / `stds`; all must have an area."""
    sides, anchor_sides = boxes[..., 2:] - boxes[..., :2], anchors[..., 2:] - anchors[..., :2]
    shift = (boxes[..., :2] + boxes[..., 2:]) * 0.5 - (anchors[..., :2] + anchors[..., 2:]) * 0.5
    return torch.cat([shift / anchor_sides, (sides / anchor_sides).log()], -1) / boxes.new_tensor(stds)


def decode_deltas(
    deltas: Tensor, anchors: Tensor, stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0), *, limit_both: bool = True, limit: float = LARGEST_STEP
) -> Tensor:
    """Boxes (..., 4) as corners from `deltas` and `anchors` (..., 4), whose leading dimensions broadcast.

    Logarithms of sizes are cut at `limit`: a box is at most exp(limit) times its anchor and, with `limit_both`, at least 1 / exp(limit) of it.
    """
    steps = deltas * deltas.new_tensor(stds)
    sides = anchors[..., 2:] - anchors[..., :2]
    centers = (anchors[..., :2] + anchors[..., 2:]) * 0.5 + sides * steps[..., :2]
    half = sides * steps[..., 2:].clamp(min=-limit if limit_both else None, max=limit).exp() * 0.5
    return torch.cat([centers - half, centers + half], -1)
