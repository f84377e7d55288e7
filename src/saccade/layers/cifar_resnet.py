"""The small ResNets of He et al. 2016, section 4.2, for pictures of 32 px: three stages of 16, 32 and 64 channels, shortcuts without parameters.

Names of the widespread implementation (akamaster/pytorch_resnet_cifar10), so that its weights load. mmclassification's `ResNet_CIFAR` is something
else, the ImageNet network with a small stem: `TimmBackbone(name="resnet18", stem="cifar")`.
"""
from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CifarResNet(nn.Module):
    """ResNet-20, -32, -44, -56 or -110: images (N, 3, H, W), already normalised -> [(N, 16, H, W), (N, 32, H/2, W/2), (N, 64, H/4, W/4)]."""

    def __init__(self, *, depth: Literal[20, 32, 44, 56, 110] = 20) -> None:
        super().__init__()
        self.channels, self.strides = [16, 32, 64], [1, 2, 4]
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised `images` (N, 3, H, W) to the maps of the three stages."""
        first = self.layer1(F.relu(self.bn1(self.conv1(images))))
        second = self.layer2(first)
        return [first, second, self.layer3(second)]


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.added = stride, channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        # Option A: every second pixel, the new channels zero, half of them before and half behind.
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added // 2, self.added // 2)) if self.added else x
        return torch.relu(residual + shortcut)


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(in_channels, channels, stride), *(_Block(channels, channels, 1) for _ in range(blocks - 1)))
