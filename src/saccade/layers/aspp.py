"""Heads that look at a feature map with holes of several sizes: atrous spatial pyramid pooling (Chen et al. 2017, DeepLab, arXiv:1606.00915, 4.2).

`Aspp` is DeepLabV2's as AdaptSegNet and ADVENT have it, `AsppGroupNorm` that of ProDA. Both give the features that the last layer reads beside the
logits. Spec: segmentation_adaptation.md 1.2, 1.4, 1.7. Left out: the pooled branch of DeepLabV3.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

RATES = (6, 12, 18, 24)
_DEVIATION = 0.01  # of the initial weights, in all three originals


class Aspp(nn.Module):
    """The sum of parallel 3x3 convolutions of dilations `rates`, one channel a class.

    `active_branches`: how many of them, from the first on, are added up. AdaptSegNet's code leaves its loop after two of four, which its released
    weights depend on; the idle ones are kept, for they are in the files, and never learn.
    """

    def __init__(
        self, *, in_channels: int, num_classes: int, active_branches: Literal[2, 4] = 4, rates: Sequence[int] = RATES,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Conv2d(in_channels, num_classes, 3, padding=rate, dilation=rate) for rate in rates])
        if active_branches > len(rates):
            raise ValueError(f"{active_branches} branches are to be added up, but rates has {len(rates)}")
        self.active_branches = active_branches
        _small_weights(self)
        self.branches[active_branches:].requires_grad_(False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`features` (N, C, h, w) as they are, and logits (N, K, h, w)."""
        first, *others = self.branches[: self.active_branches]
        logits = first(features)
        for branch in others:
            logits = logits + branch(features)
        return features, logits

    def extra_repr(self) -> str:
        """How many branches are added up, for `print(model)`."""
        return f"active_branches={self.active_branches}"


class AsppGroupNorm(nn.Module):
    """ProDA's head: a 1x1 and four dilated branches of 256 channels with group norm, concatenated, weighed by channel, and brought back to 256.

    These 256 channels, after the dropout of whole channels, are the space of the prototypes; a 1x1 convolution without bias makes logits of them.
    """

    def __init__(self, *, in_channels: int, num_classes: int, rates: Sequence[int] = RATES, channels: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_branch(in_channels, channels, rate) for rate in (0, *rates)])
        together = channels * len(self.branches)
        self.weighing = ChannelWeights(together)
        self.bottleneck = nn.Conv2d(together, channels, 3, padding=1)
        self.norm = nn.GroupNorm(32, channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1, bias=False)
        _small_weights(self)
        nn.init.zeros_(self.bottleneck.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Of `features` (N, C, h, w): embeddings (N, 256, h, w) and logits (N, K, h, w)."""
        together = torch.cat([branch(features) for branch in self.branches], 1)
        embeddings = self.dropout(self.norm(self.bottleneck(self.weighing(together))))  # no activation before prototypes
        return embeddings, self.classifier(embeddings)


class ChannelWeights(nn.Module):
    """Each of `channels` weighed by what their averages over the map say (squeeze and excitation, Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Linear(channels, channels // ratio), nn.Linear(channels // ratio, channels)

    def forward(self, features: Tensor) -> Tensor:
        """`features` (N, C, h, w) weighed, same shape."""
        weights = self.expand(self.reduce(features.mean((2, 3))).relu()).sigmoid()  # (N, C)
        return features * weights[:, :, None, None]


def _branch(in_channels: int, channels: int, rate: int) -> nn.Sequential:
    """Rate 0 is the 1x1 convolution."""
    convolution = nn.Conv2d(in_channels, channels, 3, padding=rate, dilation=rate) if rate else nn.Conv2d(in_channels, channels, 1)
    return nn.Sequential(convolution, nn.GroupNorm(32, channels), nn.ReLU(inplace=True))


def _small_weights(head: nn.Module) -> None:
    """Every convolution's weights from N(0, 0.01²); what else there is keeps torch's own beginning, as in the originals."""
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=_DEVIATION)
