"""EfficientNet-B3 as lufficc/SSD uses it (Tan and Le 2019): TensorFlow's padding and normalisation, three trunk levels and three extra ones.

The trunk is timm's `tf_efficientnet_b3`, so its ImageNet weights fit by name.
"""
from __future__ import annotations

from torch import Tensor, nn

from saccade.layers.backbone import TimmBackbone
from saccade.layers.ssd_extras import extra_level, run_extras


class SSDEfficientNetB3(nn.Module):
    """EfficientNet-B3: the last blocks of strides 8, 16 and 32 (48, 136 and 384 channels) and the extra levels of 5, 3 and 1 cells at 300 pixels.

    `drop_path_rate` is that of the last block, growing linearly from 0 (drop-connect). `pretrained`: timm's ImageNet weights for the trunk, as in
    `TimmBackbone`. `forward` takes (N, 3, S, S) and gives six feature maps; `channels` says how many channels each has.
    """

    def __init__(self, *, drop_path_rate: float = 0.2, pretrained: bool | str = False) -> None:
        super().__init__()
        options = {"drop_path_rate": drop_path_rate, "bn_momentum": 0.01}
        self.trunk = TimmBackbone(name="tf_efficientnet_b3", pretrained=pretrained, out_indices=[2, 3, 4], options=options)
        self.extras = nn.ModuleList(
            [extra_level(384, 128, 256, stride=2, padding=1), extra_level(256, 128, 256), extra_level(256, 128, 256)]
        )
        self.channels = [*self.trunk.channels, 256, 256, 256]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised `images` (N, 3, S, S) to one map a level, finest first."""
        levels = self.trunk(images)
        return [*levels, *run_extras(levels[-1], self.extras)]
