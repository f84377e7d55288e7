"""Boxes as offsets from prior boxes, and back (Liu et al. 2016, section 2.2, after Faster R-CNN).

Boxes and priors are (cx, cy, w, h) in the same unit, offsets ((c - c_p) / wh_p / v_c, log(wh / wh_p) / v_s) with the two variances v.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_GROWTH = math.log(1e4)  # keeps the exponential of an untrained network finite; no trained one comes near


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
