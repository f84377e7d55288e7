"""ShuffleNet (Zhang et al. 2018, arXiv:1707.01083): bottlenecks of grouped 1x1 convolutions whose channels are shuffled between the groups.

As in mmclassification the shuffle comes after the depthwise convolution instead of before it, which is the same network with other depthwise weights.
"""
from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

_WIDTHS = {1: (144, 288, 576), 2: (200, 400, 800), 3: (240, 480, 960), 4: (272, 544, 1088), 8: (384, 768, 1536)}
_BLOCKS = (4, 8, 4)


class ShuffleNetV1(nn.Module):
    """Images (N, 3, H, W), already normalised -> maps of the three stages, strides 8, 16, 32; 240, 480 and 960 channels for the usual 3 `groups`."""

    def __init__(self, *, groups: Literal[1, 2, 3, 4, 8] = 3) -> None:
        super().__init__()
        self.channels, self.strides = list(_WIDTHS[groups]), [8, 16, 32]
        self.conv1 = _Convolution(3, 24, 3, stride=2, activation=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layers = nn.ModuleList()
        width = 24
        for stage, (channels, blocks) in enumerate(zip(self.channels, _BLOCKS, strict=True)):
            # The very first 1x1 sees 24 channels only, too few to be worth dividing.
            units = [_Unit(width, channels, groups, down=True, groups_in=1 if stage == 0 else groups)]
            units += [_Unit(channels, channels, groups, down=False, groups_in=groups) for _ in range(blocks - 1)]
            self.layers.append(nn.Sequential(*units))
            width = channels
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01 if name.startswith("conv1.") else 1.0 / layer.weight.shape[1])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised `images` (N, 3, H, W) to three maps."""
        x, maps = self.maxpool(self.conv1(images)), []
        for stage in self.layers:
            x = stage(x)
            maps.append(x)
        return maps


class _Convolution(nn.Module):
    """Convolution without bias, batch norm, and ReLU where wanted."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1, activation: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.activation = nn.ReLU(inplace=True) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn(self.conv(x)))


class _Unit(nn.Module):
    """Compress, depthwise 3x3, shuffle, expand; added to the input, or with `down` put beside the input averaged over 3x3 of stride 2."""

    def __init__(self, in_channels: int, channels: int, groups: int, down: bool, groups_in: int) -> None:
        super().__init__()
        self.groups, self.down = groups, down
        bottleneck = channels // 4
        self.compress = _Convolution(in_channels, bottleneck, 1, groups=groups_in, activation=True)
        self.depthwise = _Convolution(bottleneck, bottleneck, 3, stride=2 if down else 1, groups=bottleneck)
        self.expand = _Convolution(bottleneck, channels - in_channels if down else channels, 1, groups=groups)
        self.shortcut = nn.AvgPool2d(3, stride=2, padding=1) if down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        residual = self.expand(shuffle_channels(self.depthwise(self.compress(x)), self.groups))
        if self.down:
            return torch.cat([self.shortcut(x), torch.relu(residual)], 1)
        return torch.relu(x + residual)


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """(N, C, H, W) with channels counted across the `groups` instead of within them; C must be a multiple of `groups`."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
