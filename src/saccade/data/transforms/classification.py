"""Augmentation for image classification where mmclassification 0.x (spec B3) differs from torchvision: cropping, erasing, lighting.

What torchvision has with the same definition is listed in `sample_transform`. Pixels are RGB here; the originals work on BGR, so fill colours in old
configs have to be reversed (the converter of foreign configs does).
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from saccade.data.transforms.sample_transform import SampleTransform, chance, change_image, crop, move, uniform
from saccade.data.transforms.sizes import as_pair, proportional_window
from saccade.structures import IGNORE, Applied, Sample
from saccade.structures.ranges import Probability


class Window(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


class RandomResizedCrop(SampleTransform):
    """A random part of the image, of U(scale) of its area and a width / height log-uniform in `ratio`, resized to `size` (Szegedy et al. 2015).

    Sides are rounded; after `max_attempts` misses the largest central crop with the ratio limited to `ratio`. With `efficientnet_style` (TensorFlow's
    sample_distorted_bounding_box) the ratio is uniform, the height is drawn between the heights that give the least and the largest area, at least
    `min_covered` of the image is in it, and the fallback is the central square of size / (size + `crop_padding`) of the short side. Without it this
    is torchvision's RandomResizedCrop, but for `antialias`, which is off by default because the original resizes with OpenCV.
    """

    def __init__(
        self, *, size: int | tuple[int, int], scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3),
        max_attempts: int = 10, efficientnet_style: bool = False, min_covered: float = 0.1, crop_padding: int = 32,
        interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear", antialias: bool = False,
    ) -> None:
        if not (0 < scale[0] <= scale[1] and 0 < ratio[0] <= ratio[1]):
            raise ValueError(f"scale and ratio must be (smallest, largest), both positive; got {scale} and {ratio}")
        self.size, self.scale, self.ratio, self.max_attempts = as_pair(size), scale, ratio, max_attempts
        self.efficientnet_style, self.min_covered, self.crop_padding = efficientnet_style, min_covered, crop_padding
        self.interpolation, self.antialias = interpolation, antialias

    def draw(self, samples: Sequence[Sample]) -> Window:
        """The part of the image."""
        size = samples[0].size
        for _ in range(self.max_attempts):
            sides = self._efficientnet_sides(size) if self.efficientnet_style else self._sides(size)
            if sides is not None:
                return _somewhere(size, *sides)
        return self._efficientnet_fallback(size) if self.efficientnet_style else self._fallback(size)

    def _sides(self, size: tuple[int, int]) -> tuple[int, int] | None:
        area = size[0] * size[1] * uniform(*self.scale)
        ratio = math.exp(uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        return (height, width) if 0 < height <= size[0] and 0 < width <= size[1] else None

    def _fallback(self, size: tuple[int, int]) -> Window:
        height, width = size
        if width / height < self.ratio[0]:
            height = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            width = round(height * self.ratio[1])
        height, width = max(1, height), max(1, width)
        return Window((size[0] - height) // 2, (size[1] - width) // 2, height, width)

    def _efficientnet_sides(self, size: tuple[int, int]) -> tuple[int, int] | None:
        whole = size[0] * size[1]
        least, largest = self.scale[0] * whole, self.scale[1] * whole
        ratio = uniform(*self.ratio)
        highest = round(math.sqrt(largest / ratio))
        if highest * ratio > size[1]:  # as high as the width allows
            highest = int((size[1] + 0.5 - 1e-7) / ratio)
            highest -= highest * ratio > size[1]
        highest = min(highest, size[0])
        lowest = min(highest, round(math.sqrt(least / ratio)))
        height = round(uniform(lowest, highest))
        width = round(height * ratio)
        fits = 0 < height <= size[0] and 0 < width <= size[1]
        return (height, width) if fits and max(least, self.min_covered * whole) <= height * width <= largest else None

    def _efficientnet_fallback(self, size: tuple[int, int]) -> Window:
        return Window(*proportional_window(size, (self.size[0], self.size[0]), self.crop_padding))

    def apply(self, sample: Sample, drawn: Window) -> Sample:
        """The part, resized."""
        part = crop(sample, *drawn)
        return move(part, F.resize, list(self.size), interpolation=InterpolationMode(self.interpolation), antialias=self.antialias)


def _somewhere(size: tuple[int, int], height: int, width: int) -> Window:
    top, left = int(torch.randint(size[0] - height + 1, ())), int(torch.randint(size[1] - width + 1, ()))
    return Window(top, left, height, width)


# Principal components of ImageNet's RGB pixels in 0..255 (Krizhevsky et al. 2012): standard deviations and directions (columns).
IMAGENET_EIGENVALUES = (55.4625, 4.7940, 1.1475)
IMAGENET_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


class Lighting(SampleTransform):
    """Adds a random colour along the principal components of ImageNet's colours (AlexNet's PCA noise): sum of N(0, `std`) * eigenvalue * eigenvector.

    The image becomes float32 and is not clipped, as in the original; put transforms that need uint8 before it.
    """

    def __init__(
        self, *, std: float = 0.1, eigenvalues: tuple[float, float, float] = IMAGENET_EIGENVALUES,
        eigenvectors: tuple[tuple[float, float, float], ...] = IMAGENET_EIGENVECTORS,
    ) -> None:
        self.std, self.eigenvalues, self.eigenvectors = std, eigenvalues, eigenvectors

    def draw(self, samples: Sequence[Sample]) -> Tensor:
        """The colour (3,) to add."""
        strengths = torch.randn(3) * self.std
        return torch.tensor(self.eigenvectors) @ (strengths * torch.tensor(self.eigenvalues))

    def apply(self, sample: Sample, drawn: Tensor) -> Sample:
        """The sample in another light."""
        return change_image(sample, lambda pixels: pixels.float() + drawn[:, None, None])


class RandomErasing(SampleTransform):
    """With `probability` fills a rectangle: U(`area`) of the image, height / width log-uniform in `aspect`, limited to the image (Zhong et al. 2020).

    `mode` "const" fills with `fill` (0..255, RGB), "rand" with U(0, 256) per pixel and channel, or N(`fill`, `fill_std`) where that is given.
    torchvision's RandomErasing draws anew when a rectangle is too large, and gives up after ten times.
    """

    def __init__(
        self, *, probability: Probability = 0.5, area: tuple[float, float] = (0.02, 0.4), aspect: tuple[float, float] = (0.3, 10 / 3),
        mode: Literal["const", "rand"] = "const", fill: tuple[float, float, float] = (128.0, 128.0, 128.0),
        fill_std: tuple[float, float, float] | None = None,
    ) -> None:
        if fill_std is not None and mode == "const":
            raise ValueError("fill_std of RandomErasing belongs to mode 'rand'")
        self.probability, self.area, self.aspect = probability, area, aspect
        self.mode, self.fill, self.fill_std = mode, fill, fill_std

    def draw(self, samples: Sequence[Sample]) -> tuple[Window, Tensor] | None:
        """The rectangle and its pixels (3, h, w) or (3, 1, 1), or None."""
        if not chance(self.probability):
            return None
        size = samples[0].size
        aspect = math.exp(uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))
        area = size[0] * size[1] * uniform(*self.area)
        window = _somewhere(size, min(round(math.sqrt(area * aspect)), size[0]), min(round(math.sqrt(area / aspect)), size[1]))
        mean = torch.tensor(self.fill)[:, None, None]
        if self.mode == "const":
            return window, mean
        if self.fill_std is None:
            return window, torch.rand(3, window.height, window.width) * 256
        noise = torch.randn(3, window.height, window.width) * torch.tensor(self.fill_std)[:, None, None]
        return window, (noise + mean).clamp(0, 255)

    def apply(self, sample: Sample, drawn: tuple[Window, Tensor] | None) -> Sample:
        """The sample with the rectangle; objects below it stay annotated."""
        return sample if drawn is None else change_image(sample, lambda pixels: _filled(pixels, *drawn))


class Cutout(SampleTransform):
    """With `probability` fills a rectangle of `size` (height, width; one number: square) around a uniform point (DeVries and Taylor 2017).

    The point may be near the border: then the rectangle starts at the border and is shorter, by the part outside on the right and below, not on the
    left and above (mmcv's cutout). `ignore`: the segmentation there becomes "ignore" (255). The sample notes the corners (x1, y1, x2, y2).
    """

    def __init__(
        self, *, size: int | tuple[int, int], fill: float | tuple[float, float, float] = 128.0, probability: Probability = 0.5, ignore: bool = False,
    ) -> None:
        self.size, self.fill, self.probability, self.ignore = as_pair(size), fill, probability, ignore

    def draw(self, samples: Sequence[Sample]) -> Window | None:
        """The rectangle, or None."""
        if not chance(self.probability):
            return None
        (height, width), (cut_height, cut_width) = samples[0].size, self.size
        top, left = max(0, int(uniform(0, height) - cut_height / 2)), max(0, int(uniform(0, width) - cut_width / 2))
        return Window(top, left, min(cut_height, height - top), min(cut_width, width - left))

    def apply(self, sample: Sample, drawn: Window | None) -> Sample:
        """The sample with the rectangle."""
        if drawn is None:
            return sample
        values = torch.tensor(self.fill).expand(3)[:, None, None]
        sample = change_image(sample, lambda pixels: _filled(pixels, drawn, values))
        if self.ignore and sample.segmentation is not None:
            hidden = _filled(sample.segmentation.as_subclass(Tensor)[None], drawn, torch.tensor(IGNORE))[0]
            sample = replace(sample, segmentation=tv_tensors.Mask(hidden))
        corners = (drawn.left, drawn.top, drawn.left + drawn.width, drawn.top + drawn.height)
        return replace(sample, meta=replace(sample.meta, applied=(*sample.meta.applied, Applied("Cutout", corners))))


def _filled(pixels: Tensor, window: Window, values: Tensor) -> Tensor:
    """A copy of `pixels` (C, H, W) with `values` in `window`; uint8 pixels take them truncated, as the originals do."""
    pixels = pixels.clone()
    top, left, height, width = window
    pixels[:, top:top + height, left:left + width] = values.to(pixels.dtype)
    return pixels
