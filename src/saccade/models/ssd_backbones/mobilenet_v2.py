"""MobileNetV2 as SSDLite uses it (Sandler et al. 2018, section 6.2), with lufficc/SSD's taps and extra levels.

The trunk and the inverted residuals are torchvision's, so its ImageNet weights fit by name.
"""
from __future__ import annotations

from typing import Literal, Self

from timm.layers import Conv2dSame
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual, MobileNetV2

from saccade.layers.ssd_extras import run_extras

_FIRST_TAP = 14  # blocks before the second level: the end of stride 16
_EXTRAS = ((1280, 512, 0.2), (512, 256, 0.25), (256, 256, 0.5), (256, 64, 0.25))  # inputs, outputs, hidden channels over inputs


class SSDMobileNetV2(nn.Module):
    """MobileNetV2 1.0: the last block of stride 16 (96 channels), the last convolution (1280, stride 32), and four inverted residuals of stride 2.

    `norm`: "eval" keeps the trunk's batch norms at their running statistics in training, for small batches and for weights whose statistics were
    folded away. `padding`: "same" pads the trunk's convolutions of stride 2 right and below only, as weights that come from TensorFlow expect.
    `forward` takes (N, 3, S, S) and gives six feature maps; `channels` says how many channels each has.
    """

    def __init__(self, *, norm: Literal["batch", "eval"] = "batch", padding: Literal["symmetric", "same"] = "symmetric") -> None:
        super().__init__()
        self.norm = norm
        self.features = MobileNetV2().features
        if padding == "same":
            _pad_as_tensorflow(self.features)
        self.extras = nn.ModuleList([InvertedResidual(inputs, out, stride=2, expand_ratio=ratio) for inputs, out, ratio in _EXTRAS])
        for part in self.extras.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out")
        self.channels = [96, 1280, *(out for _, out, _ in _EXTRAS)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised `images` (N, 3, S, S) to one map a level, finest first."""
        fine = self.features[:_FIRST_TAP](images)
        coarse = self.features[_FIRST_TAP:](fine)
        return [fine, coarse, *run_extras(coarse, self.extras)]

    def train(self, mode: bool = True) -> Self:
        """Train mode for all but the trunk's batch norms where `norm` is "eval"."""
        super().train(mode)
        if self.norm == "eval":
            for part in self.features.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        return self


def _pad_as_tensorflow(trunk: nn.Module) -> None:
    for part in list(trunk.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.Conv2d) and child.stride == (2, 2):
                same = Conv2dSame(child.in_channels, child.out_channels, child.kernel_size[0], 2, groups=child.groups, bias=False)
                same.load_state_dict(child.state_dict())
                setattr(part, name, same)
