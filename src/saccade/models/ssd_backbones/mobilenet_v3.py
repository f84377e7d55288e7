"""MobileNetV3-Large as SSDLite uses it (Howard et al. 2019), with lufficc/SSD's taps and extra levels.

Not torchvision's module: the released SSD weights (and the ImageNet weights that they started from) were trained with squeeze-and-excitation *before*
the activation in the expanded blocks, where the paper has it after.
"""
from __future__ import annotations

from torch import Tensor, nn
from torchvision.models._utils import _make_divisible as make_divisible

from saccade.layers.ssd_extras import run_extras

# Kernel, hidden channels, outputs, squeeze-and-excitation, h-swish (else ReLU), stride (table 1 of the paper).
_BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_FIRST_TAP = 13  # layers before the second level: the stem and twelve blocks
_EXTRAS = ((960, 512, 0.2), (512, 256, 0.25), (256, 256, 0.5), (256, 64, 0.25))  # inputs, outputs, hidden channels over inputs


class SSDMobileNetV3(nn.Module):
    """MobileNetV3-Large: the last block of stride 16 (112 channels), the last convolution (960, stride 32), and four blocks of stride 2.

    `squeeze_before_activation`: squeeze-and-excitation comes before the activation in blocks that expand, as in the released SSD weights; false is
    the paper's order (and torchvision's). `norm_epsilon`: 1e-5 in the released weights, 1e-3 in torchvision's. `forward` takes (N, 3, S, S) and gives
    six feature maps; `channels` says how many channels each has.
    """

    def __init__(self, *, squeeze_before_activation: bool = True, norm_epsilon: float = 1e-5) -> None:
        super().__init__()

        def block(inputs: int, kernel: int, hidden: int, out: int, squeeze: bool, swish: bool, stride: int) -> InvertedResidual:
            return InvertedResidual(inputs, hidden, out, kernel, stride, squeeze, swish, squeeze_before_activation, norm_epsilon)

        layers: list[nn.Module] = [_convolution(3, 16, 3, 2, True, norm_epsilon)]
        channels = 16
        for kernel, hidden, out, squeeze, swish, stride in _BLOCKS:
            layers.append(block(channels, kernel, hidden, out, squeeze, swish, stride))
            channels = out
        layers.append(_convolution(channels, 960, 1, 1, True, norm_epsilon))
        self.features = nn.Sequential(*layers)
        self.extras = nn.ModuleList([block(inputs, 3, make_divisible(inputs * ratio, 8), out, True, True, 2) for inputs, out, ratio in _EXTRAS])
        self.channels = [112, 960, *(out for _, out, _ in _EXTRAS)]
        _initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised `images` (N, 3, S, S) to one map a level, finest first."""
        fine = self.features[:_FIRST_TAP](images)
        coarse = self.features[_FIRST_TAP:](fine)
        return [fine, coarse, *run_extras(coarse, self.extras)]


class InvertedResidual(nn.Module):
    """Expansion (where `hidden` differs from `inputs`), depthwise convolution, squeeze-and-excitation, projection; a shortcut where shapes allow."""

    def __init__(
        self, inputs: int, hidden: int, out: int, kernel: int, stride: int, squeeze: bool, swish: bool,
        squeeze_before_activation: bool, epsilon: float,
    ) -> None:
        super().__init__()
        expands = hidden != inputs
        self.shortcut = stride == 1 and inputs == out
        self.squeeze_before_activation = squeeze_before_activation and expands
        self.expand = _convolution(inputs, hidden, 1, 1, swish, epsilon) if expands else nn.Identity()
        depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(hidden, epsilon))
        self.activation = _activation(swish)
        self.squeeze = SqueezeExcitation(hidden) if squeeze else nn.Identity()
        self.project = nn.Sequential(nn.Conv2d(hidden, out, 1, bias=False), nn.BatchNorm2d(out, epsilon))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, out, H / stride, W / stride)."""
        hidden = self.depthwise(self.expand(x))
        hidden = self.activation(self.squeeze(hidden)) if self.squeeze_before_activation else self.squeeze(self.activation(hidden))
        result = self.project(hidden)
        return x + result if self.shortcut else result


class SqueezeExcitation(nn.Module):
    """Channel weights hard_sigmoid(W2 relu(W1 mean)) with a quarter of the channels between (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, make_divisible(channels // 4, 8))
        self.restore = nn.Linear(self.reduce.out_features, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W); the same shape."""
        weight = nn.functional.hardsigmoid(self.restore(self.reduce(x.mean((2, 3))).relu()))
        return x * weight[:, :, None, None]


def _convolution(inputs: int, out: int, kernel: int, stride: int, swish: bool, epsilon: float) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out, epsilon), _activation(swish))


def _activation(swish: bool) -> nn.Module:
    return nn.Hardswish(inplace=True) if swish else nn.ReLU(inplace=True)


def _initialise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0, 0.01)
            nn.init.zeros_(part.bias)
