"""A part of a picture at another size, as if the whole had been resized and then cut: the same pixels, without ever making the whole.

A resized pixel is a weighted sum of the pixels around its place in the original, so those around the part are enough. Weights are Pillow's and
torchvision's with antialiasing: a triangle (bilinear) or Keys' cubic with a = -0.5 (bicubic), widened by the step where the picture shrinks, and
normalised over the pixels that exist. `nearest` takes the pixel that the centre of the new one falls into, as Pillow does.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Span:
    """`count` new pixels along one axis, the first of which is pixel `first` when all `length` old pixels become `scaled`."""

    length: int
    scaled: int
    first: int
    count: int

    @property
    def step(self) -> float:
        """Old pixels a new one."""
        return self.length / self.scaled

    def centres(self, device: torch.device) -> Tensor:
        """(count,) float64 centres of the new pixels, in old pixels from the left border of the first."""
        return (torch.arange(self.first, self.first + self.count, dtype=torch.float64, device=device) + 0.5) * self.step


def nearest(pixels: Tensor, rows: Span, columns: Span) -> Tensor:
    """`pixels` (..., H, W) of any kind as (..., rows.count, columns.count)."""
    for dimension, span in ((-2, rows), (-1, columns)):
        places = span.centres(pixels.device).floor().long().clamp(max=span.length - 1)
        pixels = pixels.index_select(dimension, places)
    return pixels


def resample(pixels: Tensor, rows: Span, columns: Span, interpolation: Interpolation = "bilinear") -> Tensor:
    """`pixels` (C, H, W) uint8 or float as (C, rows.count, columns.count) of the same kind; uint8 is rounded once, at the end."""
    kind = pixels.dtype if pixels.is_floating_point() else torch.float32
    (down, down_weights), (across, across_weights) = (_taps(span, interpolation, pixels.device) for span in (rows, columns))
    top, left = int(down.min()), int(across.min())
    part = pixels[:, top : int(down.max()) + 1, left : int(across.max()) + 1]
    found = _along_rows(part, down - top, down_weights.to(kind))  # (C, h, W)
    found = _along_rows(found.transpose(1, 2), across - left, across_weights.to(kind)).transpose(1, 2)
    return found.contiguous() if pixels.is_floating_point() else found.round_().clamp_(0, 255).to(pixels.dtype).contiguous()


def _along_rows(pixels: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """(C, n, W) -> (C, m, W) of the kind of `weights`: row i is the sum of the rows `places` (m, K) with `weights` (m, K)."""
    pixels = pixels.contiguous()
    total = weights.new_zeros(len(pixels), len(places), pixels.shape[-1])
    for place, weight in zip(places.unbind(1), weights.unbind(1), strict=True):
        total.addcmul_(pixels.index_select(1, place).to(weights.dtype), weight[:, None])
    return total


def _taps(span: Span, interpolation: Interpolation, device: torch.device) -> tuple[Tensor, Tensor]:
    """(count, K) old pixels that each new one is made of, and their weights; those beyond the borders count for nothing."""
    widening = max(span.step, 1.0)
    support = (1.0 if interpolation == "bilinear" else 2.0) * widening
    centres = span.centres(device)[:, None]
    places = (centres - support).floor().long() + torch.arange(math.ceil(2 * support) + 1, device=device)
    distances = ((places + 0.5 - centres) / widening).abs()
    weights = (1 - distances).clamp(min=0) if interpolation == "bilinear" else _cubic(distances)
    weights = weights * ((places >= 0) & (places < span.length))
    return places.clamp(0, span.length - 1), weights / weights.sum(1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5 at distances `x` >= 0."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
