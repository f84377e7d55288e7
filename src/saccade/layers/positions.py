"""Codes of where a feature is: sines of several frequencies in two or three axes, or learned rows and columns (DETR section 3.2 and appendix A.4).

The places of padded pixels are counted as if they were not there, so a picture has the same codes whatever it is padded to. TrackFormer counts from
the middle of a cell (`offset: 0.5`); VisTR's third axis is time. Spec: detr_family.md 1.4.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SinePositions(nn.Module):
    """Sines and cosines of the relative place on each axis, `channels / axes` numbers an axis; the slowest-changing axis comes first: (t,) y, x.

    `axes`: 2 for pictures, 3 for clips. `temperature`: the ratio between the longest and the shortest wave length. `offset`: 0.5 takes the middle
    of a cell, 0 its far border (DETR). `epsilon` keeps an empty axis from dividing by zero. Raises ValueError where `channels` is not an even
    number an axis.
    """

    def __init__(self, *, channels: int, axes: int = 2, temperature: float = 10000.0, offset: float = 0.0, epsilon: float = 1e-6) -> None:
        super().__init__()
        if axes not in (2, 3) or channels <= 0 or channels % (2 * axes):
            raise ValueError(f"SinePositions: channels must be a multiple of {2 * axes} for {axes} axes (2 or 3); got {channels}")
        self.channels, self.axes, self.temperature, self.offset, self.epsilon = channels, axes, temperature, offset, epsilon

    def forward(self, padding: Tensor) -> Tensor:
        """`padding` (N, h, w) or (N, T, h, w) bool, true where nothing is, to (N, C, h, w) or (N, T, C, h, w) float32."""
        if padding.ndim != self.axes + 1:
            raise ValueError(f"SinePositions for {self.axes} axes needs a mask of {self.axes + 1} dimensions; got {tuple(padding.shape)}")
        each = self.channels // self.axes
        index = torch.arange(each, device=padding.device, dtype=torch.float32)
        periods = self.temperature ** (2 * (index / 2).floor() / each)  # pairs of sine and cosine share one
        inside = (~padding).float()
        codes = [self._code(inside.cumsum(axis), axis, periods) for axis in range(-self.axes, 0)]
        return torch.cat(codes, -1).movedim(-1, -3)

    def _code(self, place: Tensor, axis: int, periods: Tensor) -> Tensor:
        """(..., h, w) places counted from 1 to (..., h, w, channels of this axis)."""
        last = place.narrow(axis, place.shape[axis] - 1, 1)
        angle = ((place - self.offset) / (last + self.epsilon) * (2 * math.pi))[..., None] / periods
        return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2)

    def extra_repr(self) -> str:
        """The settings, for `print(model)`."""
        return f"{self.channels}, axes={self.axes}, temperature={self.temperature:g}, offset={self.offset:g}"


class LearnedPositions(nn.Module):
    """One learned vector a column and one a row, side by side (column first); feature maps may have `size` of each at most."""

    def __init__(self, *, channels: int, size: int = 50) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"LearnedPositions: channels must be even; got {channels}")
        self.row_embed, self.col_embed = nn.Embedding(size, channels // 2), nn.Embedding(size, channels // 2)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self, padding: Tensor) -> Tensor:
        """`padding` (N, h, w), of which only the shape counts, to (N, C, h, w). Raises ValueError for maps larger than the table."""
        count, height, width = padding.shape
        size = self.row_embed.num_embeddings
        if max(height, width) > size:
            raise ValueError(f"LearnedPositions: {size} rows and columns, a feature map of {height} x {width}; use smaller images or SinePositions")
        columns = self.col_embed.weight[:width].T[:, None].expand(-1, height, -1)
        rows = self.row_embed.weight[:height].T[:, :, None].expand(-1, -1, width)
        return torch.cat([columns, rows]).expand(count, -1, -1, -1)
