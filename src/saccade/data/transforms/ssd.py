"""The augmentation of SSD (Liu et al. 2016, section 2.2, "Data augmentation"), as lufficc/SSD defines it (spec A5).

A recipe lists, in this order: PhotometricDistort, Expand, MinIoUCrop, RandomHorizontalFlip (torchvision's), Resize to (S, S) with `antialias: false`
(torchvision's), RemoveDegenerate. Subtracting the mean is the model's own work (`PixelNorm`). Left out: the paper's minimum IoU of 0.5, which the
original lacks, too (`minimums` can name it).
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.transforms.v2 import functional as F

from saccade.data.transforms.colour import adjust_hue_saturation
from saccade.data.transforms.sample_transform import SampleTransform, chance, change_image, crop, move_with_fill, uniform, without_degenerate
from saccade.structures import Sample
from saccade.structures.ranges import Probability


@dataclass(frozen=True)
class Photometry:
    """One draw of `PhotometricDistort`: `brightness` is added, `contrast` and `saturation` multiply, `hue` turns by degrees; None leaves out.

    `contrast_last` puts the contrast behind the change of colour instead of before it; `channels` is the new order of the channels.
    """

    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    contrast_last: bool = False
    channels: tuple[int, int, int] | None = None


def distort(pixels: Tensor, photometry: Photometry) -> Tensor:
    """Pixels (3, H, W) in 0..255, any dtype, changed as `photometry` says; float32, not clipped."""
    image = pixels.float()
    if photometry.brightness is not None:
        image = image + photometry.brightness
    if photometry.contrast is not None and not photometry.contrast_last:
        image = image * photometry.contrast
    if photometry.saturation is not None or photometry.hue is not None:
        image = adjust_hue_saturation(image, photometry.hue or 0.0, 1.0 if photometry.saturation is None else photometry.saturation)
    if photometry.contrast is not None and photometry.contrast_last:
        image = image * photometry.contrast
    return image if photometry.channels is None else image[list(photometry.channels)]


class PhotometricDistort(SampleTransform):
    """Brightness, contrast, saturation, hue and the order of the channels, each changed with probability `probability`.

    Brightness +U(-b, b); contrast and saturation x U(low, high); hue +U(-h, h) degrees; contrast comes first or last by a coin; at the end one of the
    six orders of the channels. The image becomes float32 with values about 0..255 that may lie outside: the original clips nothing, and rounding to
    uint8 here would clip (a brightness of +32 saturates every sky). `PixelNorm` takes float images; put transforms that need uint8 before this one.
    torchvision's RandomPhotometricDistort clips after every step and multiplies the brightness.
    """

    def __init__(
        self, *, brightness: float = 32.0, contrast: tuple[float, float] = (0.5, 1.5), saturation: tuple[float, float] = (0.5, 1.5),
        hue: float = 18.0, probability: Probability = 0.5,
    ) -> None:
        self.brightness, self.contrast, self.saturation, self.hue, self.probability = brightness, contrast, saturation, hue, probability

    def draw(self, samples: Sequence[Sample]) -> Photometry:
        """The changes, in the original's order of drawing."""
        brightness = uniform(-self.brightness, self.brightness) if chance(self.probability) else None
        contrast_last = not chance(0.5)
        contrast = uniform(*self.contrast) if chance(self.probability) else None
        saturation = uniform(*self.saturation) if chance(self.probability) else None
        hue = uniform(-self.hue, self.hue) if chance(self.probability) else None
        channels = tuple(torch.randperm(3).tolist()) if chance(self.probability) else None
        return Photometry(brightness, contrast, saturation, hue, contrast_last, channels)

    def apply(self, sample: Sample, drawn: Photometry) -> Sample:
        """The sample with a float32 image."""
        return change_image(sample, lambda pixels: distort(pixels, drawn))


class Expand(SampleTransform):
    """With `probability` puts the image somewhere on a canvas of `fill` (0..255, RGB), U(1, `max_ratio`) times as high and wide: small objects.

    torchvision's RandomZoomOut truncates the canvas before it draws the place, and fills segmentation maps with class 0 instead of "ignore".
    """

    def __init__(self, *, fill: tuple[float, float, float] = (123.0, 117.0, 104.0), max_ratio: float = 4.0, probability: Probability = 0.5) -> None:
        if max_ratio < 1:
            raise ValueError(f"max_ratio of Expand must be at least 1, got {max_ratio}")
        self.fill, self.max_ratio, self.probability = fill, max_ratio, probability

    def draw(self, samples: Sequence[Sample]) -> tuple[int, int, int, int] | None:
        """Pixels to add at the left, top, right and bottom, or None."""
        if not chance(self.probability):
            return None
        height, width = samples[0].size
        ratio = uniform(1.0, self.max_ratio)
        left, top = int(uniform(0.0, width * ratio - width)), int(uniform(0.0, height * ratio - height))
        return left, top, int(width * ratio) - width - left, int(height * ratio) - height - top

    def apply(self, sample: Sample, drawn: tuple[int, int, int, int] | None) -> Sample:
        """The sample on its canvas; the new part of a segmentation map is "ignore"."""
        return sample if drawn is None else move_with_fill(sample, F.pad, list(drawn), fill=self.fill)


class MinIoUCrop(SampleTransform):
    """Crops a rectangle that overlaps at least one object well enough, and keeps the objects whose centre lies inside (SSD's RandomSampleCrop).

    A mode is drawn from `minimums` and two more: no crop, and any crop. Then up to `trials` rectangles with sides of U(0.3, 1) of the image's and
    0.5 <= height / width <= 2 are drawn, until one has an IoU of at least the minimum with its best object (a single good object suffices) and the
    centre of some object strictly inside; if there is none, a new mode is drawn. Boxes are clipped. Without objects the image stays as it is.

    torchvision's RandomIoUCrop differs: it has the paper's minimum of 0.5, applies the minimum to those boxes only whose centres are inside, and
    leaves dropped objects in the sample as empty boxes. In a clip, one rectangle is judged by the objects of all frames.
    """

    def __init__(self, *, minimums: tuple[float, ...] = (0.1, 0.3, 0.7, 0.9), min_scale: float = 0.3, trials: int = 50) -> None:
        self.minimums, self.min_scale, self.trials = minimums, min_scale, trials

    def draw(self, samples: Sequence[Sample]) -> tuple[int, int, int, int] | None:
        """(left, top, right, bottom) of the rectangle, or None for no crop."""
        boxes = torch.cat([b.as_subclass(Tensor) for s in samples if (b := without_degenerate(s).boxes) is not None] or [torch.zeros(0, 4)])
        if len(boxes) == 0:
            return None
        modes: list[float | None] = [None, *self.minimums, float("-inf")]
        while True:
            minimum = modes[int(torch.randint(len(modes), ()))]
            if minimum is None:
                return None
            found = self._rectangle(boxes, samples[0].size, minimum)
            if found is not None:
                return found

    def _rectangle(self, boxes: Tensor, size: tuple[int, int], minimum: float) -> tuple[int, int, int, int] | None:
        """The first of `trials` random rectangles that satisfies `minimum`; all are drawn and judged at once."""
        height, width = size
        draws = torch.rand(self.trials, 4, dtype=torch.float64)
        w, h = (self.min_scale + (1 - self.min_scale) * draws[:, :2]).mul(draws.new_tensor([width, height])).unbind(1)
        left, top = draws[:, 2] * (width - w), draws[:, 3] * (height - h)
        rectangles = torch.stack([left, top, left + w, top + h], 1).trunc().float()  # (trials, 4)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centres > rectangles[:, None, :2]) & (centres < rectangles[:, None, 2:])).all(2)  # (trials, n)
        good = (h / w >= 0.5) & (h / w <= 2) & (box_iou(rectangles, boxes).amax(1) >= minimum) & inside.any(1)
        first = good.nonzero()
        if len(first) == 0:
            return None
        x1, y1, x2, y2 = (int(v) for v in rectangles[first[0, 0]].tolist())
        return x1, y1, x2, y2

    def apply(self, sample: Sample, drawn: tuple[int, int, int, int] | None) -> Sample:
        """The sample inside the rectangle, with the objects whose centre is."""
        sample = without_degenerate(sample)
        if drawn is None:
            return sample
        left, top, right, bottom = drawn
        if sample.boxes is not None:
            centres = ((sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2).as_subclass(Tensor)
            corners = centres.new_tensor([left, top, right, bottom])
            sample = sample.select(((centres > corners[:2]) & (centres < corners[2:])).all(1))
        return without_degenerate(crop(sample, top, left, bottom - top, right - left))
