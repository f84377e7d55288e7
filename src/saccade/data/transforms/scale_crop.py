"""Random scaling and cropping in one step, as ProDA augments (Zhang et al. 2021, arXiv:2101.10979; `data/augmentations.py` of its code).

The original resizes the whole picture, and whole maps of class scores with it, and keeps a part. Here the part is computed from the pixels around it
alone, with the same result (`ops.resampling`): nothing of the scaled picture's size is ever made.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from saccade.data.transforms.sample_transform import SampleTransform, clip_boxes, move, move_with_fill, uniform, without_degenerate
from saccade.ops.resampling import Interpolation, Span, nearest, resample
from saccade.structures import Geometry, Sample
from saccade.structures.ranges import PositiveInt


class Placed(NamedTuple):
    """A part of a scaled picture: `scaled` (height, width) of the whole, the top left corner of the part."""

    scaled: tuple[int, int]
    top: int
    left: int


class RandomScaleCrop(SampleTransform):
    """A part of `size` (height, width) of the picture at a random scale, anywhere in it.

    The scaled picture is int(U(`scale`) * `base_width`) wide (of its own width where that is None) and keeps its ratio, the height truncated (ProDA:
    0.5 to 1.5 times 2200, parts of 512 x 896). Images are resized as Pillow does it, with antialiasing, label maps and masks to the nearest pixel.
    Where the scaled picture is smaller than the part it is filled up on the right and below: the image with `fill` (0..255), the segmentation with
    "ignore" (255). Boxes are clipped, and objects that are outside leave the sample.
    """

    def __init__(
        self, *, size: tuple[PositiveInt, PositiveInt], scale: tuple[float, float] = (0.5, 1.5), base_width: PositiveInt | None = None,
        interpolation: Interpolation = "bilinear", fill: float | tuple[float, float, float] = 0.0,
    ) -> None:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"the scale of RandomScaleCrop is (smallest, largest), both positive; it is {scale}")
        self.size, self.scale, self.base_width = (int(size[0]), int(size[1])), scale, base_width
        self.interpolation, self.fill = interpolation, fill

    def draw(self, samples: Sequence[Sample]) -> Placed:
        """The scale and the place."""
        height, width = samples[0].size
        scaled_width = max(1, int(uniform(*self.scale) * (self.base_width or width)))
        scaled = max(1, int(scaled_width * height / width)), scaled_width
        top, left = (int(torch.randint(max(0, whole - part) + 1, ())) for whole, part in zip(scaled, self.size, strict=True))
        return Placed(scaled, top, left)

    def apply(self, sample: Sample, drawn: Placed) -> Sample:
        """The part."""
        (height, width), (scaled_height, scaled_width) = sample.size, drawn.scaled
        rows = Span(height, scaled_height, drawn.top, min(self.size[0], scaled_height))
        columns = Span(width, scaled_width, drawn.left, min(self.size[1], scaled_width))
        part = without_degenerate(clip_boxes(move(sample, _cut, rows, columns, self.interpolation)))
        right, below = self.size[1] - columns.count, self.size[0] - rows.count
        return part if right == below == 0 else move_with_fill(part, F.pad, [0, 0, right, below], fill=self.fill)


def _cut(leaf: Tensor, rows: Span, columns: Span, interpolation: Interpolation) -> Any:
    """The part of an image, mask, map, boxes or geometry."""
    size = (rows.count, columns.count)
    if isinstance(leaf, Geometry):
        step = [[columns.step, 0, columns.first * columns.step], [0, rows.step, rows.first * rows.step], [0, 0, 1]]
        return leaf.after(torch.tensor(step, dtype=torch.float64), size)
    pixels = leaf.as_subclass(Tensor)
    if isinstance(leaf, tv_tensors.Image):
        return tv_tensors.Image(resample(pixels, rows, columns, interpolation))
    if isinstance(leaf, tv_tensors.BoundingBoxes):
        steps = pixels.new_tensor([columns.step, rows.step]).repeat(2)
        boxes = pixels / steps - pixels.new_tensor([columns.first, rows.first]).repeat(2)
        return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)  # type: ignore[call-overload]
    return tv_tensors.wrap(nearest(pixels, rows, columns), like=leaf)
