"""L2 normalisation over channels with a learned scale a channel (ParseNet, Liu et al. 2015; SSD, section 3.1)."""
from __future__ import annotations

import torch
from torch import Tensor, nn


class L2Norm(nn.Module):
    """y = weight * x / (norm of x over channels + 1e-10); `weight` starts at `scale` (20 in SSD: conv4_3 has larger values than the other levels)."""

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, features: Tensor) -> Tensor:
        """`features` (N, C, H, W); the same shape."""
        norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        return features * (self.weight[:, None, None] / (norm + 1e-10))
