"""VGG-16 as AdaptSegNet's DeepLab has it: no pooling after the fourth block, dilated convolutions instead, fc6 and fc7 as 3x3 convolutions.

Layer numbers of `features` are those of AdaptSegNet's files; torchvision's are one higher from the fifth block on, for it pools before it.
Spec: segmentation_adaptation.md 1.3. Its ImageNet weights are caffe's, for BGR pixels in 0..255.
"""
from __future__ import annotations

from torch import Tensor, nn

# (channels, dilation) of the 3x3 convolutions; None is 2x2 max-pooling.
_LAYERS = (
    (64, 1), (64, 1), None, (128, 1), (128, 1), None, (256, 1), (256, 1), (256, 1), None, (512, 1), (512, 1), (512, 1), (512, 2), (512, 2), (512, 2),
    (1024, 4), (1024, 4),
)


class DeepLabVGG16(nn.Module):
    """One map of 1024 channels at an eighth of the picture: normalised images (N, 3, H, W) -> [(N, 1024, H / 8, W / 8)], sizes rounded down."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 3
        for entry in _LAYERS:
            if entry is None:
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(previous, entry[0], 3, padding=entry[1], dilation=entry[1]), nn.ReLU(inplace=True)]
                previous = entry[0]
        self.features = nn.Sequential(*layers)
        self.channels, self.strides = [previous], [8]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised `images` (N, 3, H, W) to a list of one map."""
        return [self.features(images)]
