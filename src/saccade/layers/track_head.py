"""The head that gives every box an embedding by which a tracker tells objects apart (quasi-dense tracking, Pang et al. 2021; spec tracking.md 1.2).

Left out: shared fully connected heads of other depths than a recipe can say, averaging over the region, and normalised embeddings.
"""
from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from saccade.layers.roi import RoIAlignLevels


class TrackHead(nn.Module):
    """Embeddings of boxes: features of the region on the pyramid, `convs` 3x3 convolutions with group norm, `hidden` layers, one linear layer.

    `in_channels`: of the pyramid; `channels`: of the convolutions, divisible by `groups`; `roi_size`: cells of a region's side; `hidden`: widths of
    the fully connected layers; `embedding`: numbers a box; `strides`: of the levels that regions are read from, finest first.
    """

    def __init__(
        self, *, in_channels: int = 256, convs: int = 4, channels: int = 256, groups: int = 32, hidden: Sequence[int] = (1024,),
        embedding: int = 256, roi_size: int = 7, strides: Sequence[int] = (4, 8, 16, 32),
    ) -> None:
        super().__init__()
        self.roi_align = RoIAlignLevels(size=roi_size, strides=strides)
        inputs = [in_channels] + [channels] * convs
        self.convs = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(before, channels, 3, padding=1, bias=False), nn.GroupNorm(groups, channels), nn.ReLU(inplace=True))
                for before in inputs[:-1]
            ]
        )
        widths = [inputs[-1] * roi_size**2, *hidden]
        self.hidden = nn.ModuleList([nn.Linear(before, after) for before, after in itertools.pairwise(widths)])
        self.embedding = nn.Linear(widths[-1], embedding)
        self._initialise()

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.embedding.weight, std=0.01)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """(R, D) embeddings of `boxes`, one (n_i, 4) an image in pixels of the network's input, image after image; `features` (N, C, h, w) a level,
        finest first.
        """
        regions = self.roi_align(features, boxes)  # (R, C, S, S)
        for conv in self.convs:
            regions = conv(regions)
        vectors = regions.flatten(1)
        for layer in self.hidden:
            vectors = F.relu(layer(vectors))
        embeddings: Tensor = self.embedding(vectors)
        return embeddings
