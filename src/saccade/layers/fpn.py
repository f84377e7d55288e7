"""Feature pyramid network (Lin et al. 2017, arXiv:1612.03144): every level of a backbone with the context of all coarser ones.

Coarse maps are enlarged by nearest neighbour to the exact size of the finer one, so any image size works. Left out: norms and activations between
the convolutions, and coarser levels by convolution, which one-stage detectors have.
"""
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class FPN(nn.Module):
    """Maps (N, C_i, h_i, w_i), finest first, to as many of `channels` each, and further ones by pooling until there are `levels`.

    `in_channels`: the C_i. `levels`: how many maps come out, at least as many as go in; each further one has every second place of the one before.
    """

    def __init__(self, *, in_channels: Sequence[int], channels: int = 256, levels: int | None = None) -> None:
        super().__init__()
        self.levels = len(in_channels) if levels is None else levels
        if self.levels < len(in_channels):
            raise ValueError(f"a pyramid over {len(in_channels)} maps has at least as many levels; got {self.levels}")
        self.lateral = nn.ModuleList([nn.Conv2d(width, channels, 1) for width in in_channels])
        self.output = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels])
        for conv in (*self.lateral, *self.output):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """`maps` (N, C_i, h_i, w_i), finest first, to `levels` maps (N, channels, h, w), finest first."""
        merged = [conv(m) for conv, m in zip(self.lateral, maps, strict=True)]
        for finer in range(len(merged) - 2, -1, -1):
            merged[finer] = merged[finer] + F.interpolate(merged[finer + 1], size=merged[finer].shape[-2:])
        pyramid = [conv(m) for conv, m in zip(self.output, merged, strict=True)]
        while len(pyramid) < self.levels:
            pyramid.append(F.max_pool2d(pyramid[-1], 1, stride=2))
        return pyramid
