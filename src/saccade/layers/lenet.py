"""LeNet-5 (LeCun et al. 1998) as mmclassification has it: tanh, average pooling, full connections, pictures of 32 x 32."""
from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from saccade.errors import InputError


class LeNet5(nn.Module):
    """Grey pictures as (N, 3, 32, 32) of three equal channels, already normalised -> [(N, 84)]; only the first channel is looked at."""

    gives_vectors: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.channels = [84]
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
            nn.Conv2d(16, 120, 5), nn.Tanh(),
        )
        self.hidden = nn.Sequential(nn.Linear(120, 84), nn.Tanh())

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, 32, 32) to [(N, 84)]. Raises InputError for other sizes."""
        if images.shape[-2:] != (32, 32):
            height, width = images.shape[-2:]
            raise InputError(f"LeNet-5 takes pictures of 32 x 32, got {height} x {width}; add {{type: Resize, size: [32, 32]}} to the transforms")
        return [self.hidden(self.features(images[:, :1]).flatten(1))]
