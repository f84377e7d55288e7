"""VGG-16 as SSD uses it (Liu et al. 2016, section 3): fully convolutional fc6 and fc7, L2 norm on conv4_3, extra levels down to 1x1.

Layer numbers of `features` are those of torchvision's `vgg16().features` and of `vgg16_reducedfc.pth`, so both files fit by name.
"""
from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from saccade.layers.l2norm import L2Norm
from saccade.layers.ssd_extras import extra_level, run_extras

_CONVOLUTIONS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool up", 512, 512, 512, "pool", 512, 512, 512)
_AFTER_CONV4_3 = 23  # layers up to and including the ReLU of conv4_3


class SSDVGG16(nn.Module):
    """VGG-16 with the extra levels for images of 300 pixels (6 levels) or 512 (7 levels).

    `forward` takes (N, 3, S, S) and gives one feature map a level; `channels` says how many channels each has.
    """

    def __init__(self, *, size: Literal[300, 512] = 300) -> None:
        super().__init__()
        self.features = _vgg16_layers()
        self.l2_norm = L2Norm(512)
        halving = {"stride": 2, "padding": 1}
        if size == 300:
            shapes = [(1024, 256, 512, halving), (512, 128, 256, halving), (256, 128, 256, {}), (256, 128, 256, {})]
        elif size == 512:
            last = {"kernel": 4, "padding": 1}
            shapes = [(1024, 256, 512, halving), (512, 128, 256, halving), (256, 128, 256, halving), (256, 128, 256, halving), (256, 128, 256, last)]
        else:
            raise ValueError(f"size must be 300 or 512, the two sets of extra levels that SSD has; got {size}")
        self.extras = nn.ModuleList([extra_level(inputs, middle, out, **convolution) for inputs, middle, out, convolution in shapes])
        self.channels = [512, 1024, *(out for _, _, out, _ in shapes)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised `images` (N, 3, S, S) to one map a level, finest first."""
        conv4_3 = self.features[:_AFTER_CONV4_3](images)
        # The next layer is max-pooling, so nothing changes conv4_3 in place.
        fc7 = self.features[_AFTER_CONV4_3:](conv4_3)
        return [self.l2_norm(conv4_3), fc7, *run_extras(fc7, self.extras)]


def _vgg16_layers() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for entry in _CONVOLUTIONS:
        if isinstance(entry, int):
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU(inplace=True)]
            channels = entry
        else:
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=entry == "pool up"))  # rounding up keeps 38 cells at 300 pixels
    layers.append(nn.MaxPool2d(3, 1, 1))
    layers += [nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
