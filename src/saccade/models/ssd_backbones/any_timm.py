"""Any network of timm as the backbone of a single-shot detector."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from saccade.layers.backbone import TimmBackbone
from saccade.layers.ssd_extras import normalised_extra_level, run_extras


class TimmSSD(nn.Module):
    """The levels of a timm network from `first_stride` on, and one extra level of half the resolution for each of `extra_channels`.

    `name`, `pretrained`, `frozen_stages`, `norm` and `options` are those of `TimmBackbone`. Extra levels are batch-normalised. An image of S pixels
    has S / stride cells at the last trunk level; each extra level halves them, and a level of one cell must be the last. `forward` takes (N, 3, S, S)
    and gives one feature map a level; `channels` says how many channels each has. Raises ValueError where no trunk level is that coarse.
    """

    def __init__(
        self, *, name: str, pretrained: bool | str = False, first_stride: int = 8, extra_channels: Sequence[int] = (512, 256, 256),
        frozen_stages: int = 0, norm: Literal["batch", "eval", "frozen"] = "batch", options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.trunk = TimmBackbone(name=name, pretrained=pretrained, frozen_stages=frozen_stages, norm=norm, options=options)
        self.skipped = sum(stride < first_stride for stride in self.trunk.strides)
        if self.skipped == len(self.trunk.channels):
            raise ValueError(f"first_stride {first_stride}: the strides of {name} are {self.trunk.strides}")
        self.channels = self.trunk.channels[self.skipped :]
        levels = []
        for out in extra_channels:
            levels.append(normalised_extra_level(self.channels[-1], out // 2, out))
            self.channels.append(out)
        self.extras = nn.ModuleList(levels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised `images` (N, 3, S, S) to one map a level, finest first."""
        levels = self.trunk(images)[self.skipped :]
        return [*levels, *run_extras(levels[-1], self.extras)]
