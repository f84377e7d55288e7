"""Rules for sizes: how mmcv's pipelines (mmdetection, mmclassification, mmaction2) scale, crop and pad, rounding included.

Interpolation follows torchvision: `antialias: false` computes what OpenCV's bilinear resize does (to within one grey level on uint8, exactly on
floats), true what Pillow does. The short-side resize of mmclassification is torchvision's own `Resize` with one number: both truncate the long side.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from saccade.data.transforms.sample_transform import SampleTransform, clip_boxes, crop, move, move_with_fill, uniform
from saccade.structures import Sample


def keep_ratio_size(size: tuple[int, int], scale: float | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image of `size` (height, width) after scaling it with its ratio kept: int(side * factor + 0.5) (mmcv's rescale_size).

    `scale` is the factor, or two numbers in any order: the largest factor with the long side at most the larger and the short side at most the
    smaller one; -1 for "no limit", so that (-1, 256) makes the short side 256.
    """
    if isinstance(scale, int | float):
        factor = float(scale)
    else:
        limits = sorted(float("inf") if side == -1 else float(side) for side in scale)
        factor = min(limits[1] / max(size), limits[0] / min(size))
    if not 0 < factor < float("inf"):
        raise ValueError(f"a scale must be a positive factor or two limits, at most one of them -1; got {scale}")
    height, width = size
    return int(height * factor + 0.5), int(width * factor + 0.5)


def center_crop_window(size: tuple[int, int], crop: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the central crop; a side that is too short stays whole. Halves are rounded to even, as Python and NumPy do."""
    (height, width), (crop_height, crop_width) = size, crop
    top, left = max(0, round((height - crop_height) / 2)), max(0, round((width - crop_width) / 2))
    return top, left, min(height, top + crop_height) - top, min(width, left + crop_width) - left


def proportional_window(size: tuple[int, int], target: tuple[int, int], padding: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the central crop of EfficientNet: sides of target / (target + padding) of the short side, truncated."""
    sides = [side / (side + padding) * min(size) for side in target]
    starts = [max(0, round((whole - side) / 2)) for whole, side in zip(size, sides, strict=True)]
    height, width = (max(1, int(min(whole, start + side) - start)) for whole, start, side in zip(size, starts, sides, strict=True))
    return starts[0], starts[1], height, width


def padded_size(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """The smallest (height, width) that is at least `size` and divisible by `divisor`."""
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


class KeepRatioResize(SampleTransform):
    """Resizes with the ratio kept, to mmdetection's and mmaction2's rounding (`keep_ratio_size`); boxes are scaled by new / old sides and clipped.

    `scale` is (1333, 800), (-1, 256), a factor, or a list of pairs of which one is drawn (mmdetection's multi-scale mode "value"). `ratio`: the scale
    is multiplied by a number drawn from this range, a pair truncated to whole pixels (its "ratio_range"). `clip`: whether boxes are limited to the
    image.
    """

    def __init__(
        self, *, scale: tuple[int, int] | float | list[tuple[int, int]], interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear",
        antialias: bool = False, ratio: tuple[float, float] | None = None, clip: bool = True,
    ) -> None:
        self.scale, self.interpolation, self.antialias, self.ratio, self.clip = scale, interpolation, antialias, ratio, clip

    def draw(self, samples: Sequence[Sample]) -> float | tuple[int, int]:
        """The scale to use."""
        scale = self.scale[int(torch.randint(len(self.scale), ()))] if isinstance(self.scale, list) else self.scale
        if self.ratio is None:
            return scale
        factor = uniform(*self.ratio)
        if isinstance(scale, int | float):
            return scale * factor
        width, height = (side if side == -1 else int(side * factor) for side in scale)
        return width, height

    def apply(self, sample: Sample, drawn: float | tuple[int, int]) -> Sample:
        """The sample at its new size."""
        size = [max(1, side) for side in keep_ratio_size(sample.size, drawn)]
        resized = move(sample, F.resize, size, interpolation=InterpolationMode(self.interpolation), antialias=self.antialias)
        return clip_boxes(resized) if self.clip else resized


class CenterCrop(SampleTransform):
    """The central part of (height, width) `size`, or a square of it; images that are smaller stay as they are in that direction (mmclassification).

    With `efficientnet_style` a crop of size / (size + `crop_padding`) of the short side (truncated) is resized to `size`. Replaces torchvision's
    CenterCrop, which fills images up that are too small and has the same rounding otherwise.
    """

    def __init__(
        self, *, size: int | tuple[int, int], efficientnet_style: bool = False, crop_padding: int = 32,
        interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear", antialias: bool = False,
    ) -> None:
        self.size = as_pair(size)
        self.efficientnet_style, self.crop_padding = efficientnet_style, crop_padding
        self.interpolation, self.antialias = interpolation, antialias

    def apply(self, sample: Sample, drawn: None) -> Sample:
        """The cropped sample."""
        if not self.efficientnet_style:
            return crop(sample, *center_crop_window(sample.size, self.size))
        window = proportional_window(sample.size, self.size, self.crop_padding)
        return move(
            crop(sample, *window), F.resize, list(self.size), interpolation=InterpolationMode(self.interpolation), antialias=self.antialias
        )


class PadTo(SampleTransform):
    """Fills up on the right and below to `size` (height, width), to a `square`, or to a multiple of `divisor` (mmcv's Pad); exactly one is given.

    Batches are padded by the loader anyway (`size_divisor`), with a padding mask; this one makes the fill part of the image. torchvision's `Pad`
    takes numbers of pixels.
    """

    def __init__(
        self, *, size: tuple[int, int] | None = None, square: bool = False, divisor: int | None = None,
        fill: float | tuple[float, float, float] = 0.0,
    ) -> None:
        if (size is not None) + square + (divisor is not None) != 1:
            raise ValueError("PadTo takes exactly one of size, square and divisor")
        self.size, self.square, self.divisor, self.fill = size, square, divisor, fill

    def apply(self, sample: Sample, drawn: None) -> Sample:
        """The sample, filled up; sides that are long enough stay."""
        height, width = sample.size
        wanted = self.size or (padded_size(sample.size, self.divisor) if self.divisor else (max(height, width),) * 2)
        right, below = max(0, wanted[1] - width), max(0, wanted[0] - height)
        return sample if right == below == 0 else move_with_fill(sample, F.pad, [0, 0, right, below], fill=self.fill)


def as_pair(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a size that may be one number for a square."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
