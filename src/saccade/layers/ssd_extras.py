"""The further, ever smaller levels that single-shot detectors put behind a backbone (Liu et al. 2016, figure 2)."""
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def extra_level(channels: int, middle: int, out: int, *, kernel: int = 3, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """One level: 1x1 convolution to `middle` channels, ReLU, `kernel` convolution to `out` channels, ReLU. Weights Xavier-uniform, biases zero."""
    level = nn.Sequential(
        nn.Conv2d(channels, middle, 1), nn.ReLU(inplace=True), nn.Conv2d(middle, out, kernel, stride, padding), nn.ReLU(inplace=True)
    )
    xavier_uniform(level)
    return level


def normalised_extra_level(channels: int, middle: int, out: int) -> nn.Sequential:
    """The same with batch normalisation and a depthwise middle: half the resolution at little cost, and trainable from scratch."""

    def block(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    return nn.Sequential(*block(channels, middle, 1, 1, 1), *block(middle, middle, 3, 2, middle), *block(middle, out, 1, 1, 1))


def run_extras(feature: Tensor, levels: Sequence[nn.Module] | nn.ModuleList) -> list[Tensor]:
    """The outputs of `levels`, each fed with the one before."""
    outputs = []
    for level in levels:
        feature = level(feature)
        outputs.append(feature)
    return outputs


def xavier_uniform(module: nn.Module) -> None:
    """Draw all convolution weights of `module` Xavier-uniform and set their biases to zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
