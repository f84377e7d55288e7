"""What stands between feature maps and the scores of an image: pooling and the linear classifier."""
from __future__ import annotations

import torch
from torch import Tensor, nn


class GeneralizedMean(nn.Module):
    """Generalised-mean pooling (Radenovic et al. 2018): (mean of x^p)^(1/p) with one learned p; 1 is the average, infinity the maximum."""

    def __init__(self, *, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p, self.eps = nn.Parameter(torch.tensor([p])), eps

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C); values below `eps` count as `eps`."""
        return features.clamp(min=self.eps).pow(self.p).mean((2, 3)).pow(1 / self.p)


class GlobalAverage(nn.Module):
    """The mean over all places."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C)."""
        return features.mean((2, 3))


class GlobalMaximum(nn.Module):
    """The maximum over all places."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C)."""
        return features.amax((2, 3))


class LinearHead(nn.Module):
    """Dropout and one linear layer `fc`, which starts as N(0, 0.01) with bias 0."""

    def __init__(self, *, in_channels: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, C) to logits (N, K)."""
        return self.fc(self.dropout(pooled))
