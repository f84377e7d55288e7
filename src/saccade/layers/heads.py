"""What stands between features and scores: pooling, the linear classifier, and the small perceptron of set-prediction models."""
from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


class MLP(nn.Module):
    """Linear layers from `sizes[0]` to `sizes[-1]` numbers with a ReLU between each two."""

    def __init__(self, *, sizes: Sequence[int]) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"MLP needs at least an input and an output size; got {list(sizes)}")
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """(..., sizes[0]) to (..., sizes[-1])."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)
