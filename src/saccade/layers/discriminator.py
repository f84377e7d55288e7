"""The fully convolutional discriminator of adversarial adaptation: from maps of class scores to how much each region looks like the target domain.

DCGAN's in AdaptSegNet's form (Tsai et al. 2018, arXiv:1802.10349, 4.1), which ADVENT took over, and in that of ProDA's warm-up; five convolutions
without norms and without a last sigmoid. Spec: segmentation_adaptation.md 1.5.
"""
from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from saccade.structures.ranges import PositiveInt

Preset = Literal["adaptsegnet", "proda"]
_SLOPE = 0.2


class DiscriminatorNetwork(nn.Module):
    """Five convolutions from `in_channels` (the classes) to one logit a region, torch's own initial values.

    "adaptsegnet": kernel 4, stride 2 throughout, leaky ReLU between; "proda": kernel 3, stride 2 four times, ReLU (leaky before the last), and a last
    1x1 convolution. `channels`: of the first layer; each of the next three has twice as many.
    """

    def __init__(self, in_channels: int, preset: Preset = "adaptsegnet", channels: int = 64) -> None:
        super().__init__()
        widths = [in_channels, channels, 2 * channels, 4 * channels, 8 * channels]
        kernel = 4 if preset == "adaptsegnet" else 3
        self.convs = nn.ModuleList([nn.Conv2d(a, b, kernel, stride=2, padding=1) for a, b in pairwise(widths)])
        self.convs.append(nn.Conv2d(widths[-1], 1, 4, stride=2, padding=1) if preset == "adaptsegnet" else nn.Conv2d(widths[-1], 1, 1))
        leaky = nn.LeakyReLU(_SLOPE, inplace=True)
        self.activations = nn.ModuleList([leaky] * 4 if preset == "adaptsegnet" else [nn.ReLU(inplace=True)] * 3 + [leaky])

    def forward(self, maps: Tensor) -> Tensor:
        """`maps` (N, C, H, W), probabilities or self-information at the size of the picture, to logits (N, 1, h, w)."""
        *hidden, last = self.convs
        for convolution, activation in zip(hidden, self.activations, strict=True):
            maps = activation(convolution(maps))
        logits: Tensor = last(maps)
        return logits


@dataclass(frozen=True, kw_only=True)
class Discriminator:
    """What a recipe says of a discriminator: whose form it has ("adaptsegnet", also ADVENT's, or "proda") and how wide its first layer is."""

    preset: Preset = "adaptsegnet"
    channels: PositiveInt = 64

    def build(self, num_classes: int) -> DiscriminatorNetwork:
        """The network for maps of `num_classes` channels, with fresh weights."""
        return DiscriminatorNetwork(num_classes, self.preset, self.channels)
