"""The second stage: features of regions on a pyramid (He et al. 2017, arXiv:1703.06870, section 3) and the head that names and moves boxes.

Spec image_models.md D3, D7. Left out: convolutions in the box head, cascades.
"""
from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from saccade.ops.boxes import areas

LevelRule = Literal["mmdet", "torchvision"]
_EPSILON = 1e-6


class RoIAlignLevels(nn.Module):
    """Features of boxes from a pyramid: each box is read from the level that fits its size, in `size` x `size` cells.

    `strides`: of the levels that are read, finest first. A box with sides of `finest_scale` pixels or less on average is read from the finest level,
    of twice that from the second, and so on. `samples`: points a cell side, 0 for as many as the box has cells of the map. `aligned`: pixel centres
    lie at .5. `level_rule`: on which side of the logarithm a small number is added against rounding.
    """

    def __init__(
        self, *, size: int = 7, strides: Sequence[int] = (4, 8, 16, 32), samples: int = 0, aligned: bool = True, finest_scale: float = 56.0,
        level_rule: LevelRule = "mmdet",
    ) -> None:
        super().__init__()
        self.size, self.strides, self.samples, self.aligned = size, tuple(strides), samples, aligned
        self.finest_scale, self.level_rule = finest_scale, level_rule

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """(R, C, size, size) of `boxes`, one (n_i, 4) an image, image after image; `features` (N, C, h, w) a level, further ones are not read."""
        rows = region_rows(boxes).float()  # half precision would round coordinates to several pixels
        levels = self.levels(rows[:, 1:])
        order = levels.argsort(stable=True)
        parts = rows[order].split(torch.bincount(levels, minlength=len(self.strides)).tolist())
        regions = [
            roi_align(features[level].float(), part, self.size, 1 / self.strides[level], self.samples, self.aligned)
            for level, part in enumerate(parts)
        ]
        return torch.cat(regions)[order.argsort()].to(features[0].dtype)

    def levels(self, boxes: Tensor) -> Tensor:
        """(n,) int64: from which level each of `boxes` (n, 4) is read."""
        sides = areas(boxes.float()).sqrt()
        if self.level_rule == "mmdet":
            level = (sides / self.finest_scale + _EPSILON).log2().floor()
        else:
            level = (4 + (sides / (4 * self.finest_scale)).log2() + _EPSILON).floor() - 2
        return level.clamp(0, len(self.strides) - 1).long()

    def extra_repr(self) -> str:
        """The settings, for `print(model)`."""
        return f"size={self.size}, strides={self.strides}, samples={self.samples}, aligned={self.aligned}, level_rule={self.level_rule!r}"


def region_rows(boxes: Sequence[Tensor]) -> Tensor:
    """(R, 5) rows (image, x1, y1, x2, y2) of `boxes`, one (n_i, 4) an image."""
    joined = torch.cat(list(boxes))
    return torch.cat([region_images(boxes)[:, None].to(joined.dtype), joined], 1)


def region_images(boxes: Sequence[Tensor]) -> Tensor:
    """(R,) int64: to which image each of `boxes` belongs, one (n_i, 4) an image."""
    counts = torch.tensor([len(own) for own in boxes], device=boxes[0].device)
    return torch.repeat_interleave(torch.arange(len(boxes), device=boxes[0].device), counts, output_size=sum(map(len, boxes)))


class BoxHead(nn.Module):
    """Region features (R, C, S, S) to class logits (R, K + 1), background last, and deltas (R, 4K), class by class.

    `hidden`: widths of the fully connected layers before the two linear ones. `class_agnostic`: one box for all classes, so deltas are (R, 4).
    """

    def __init__(
        self, *, num_classes: int, in_channels: int = 256, roi_size: int = 7, hidden: Sequence[int] = (1024, 1024), class_agnostic: bool = False
    ) -> None:
        super().__init__()
        widths = [in_channels * roi_size**2, *hidden]
        self.hidden = nn.ModuleList([nn.Linear(before, after) for before, after in itertools.pairwise(widths)])
        self.logits = nn.Linear(widths[-1], num_classes + 1)
        self.deltas = nn.Linear(widths[-1], 4 if class_agnostic else 4 * num_classes)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.startswith("hidden"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.normal_(parameter, std=0.01 if name.startswith("logits") else 0.001)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """(class logits (R, K + 1), deltas (R, 4K)) of `regions` (R, C, S, S)."""
        vectors = regions.flatten(1)
        for layer in self.hidden:
            vectors = F.relu(layer(vectors))
        return self.logits(vectors), self.deltas(vectors)
