"""The augmentation of DETR (Carion et al. 2020, appendix A.4; spec detr_family, "Data"): resizing by the short side, a random crop, one of two ways.

Images are resized as Pillow does it, with antialiasing. The recipe is: RandomHorizontalFlip, then RandomSelect between RandomShortSideResize to
480..800 and [RandomShortSideResize to 400, 500 or 600 without a maximum, RandomSizeCrop(384, 600), RandomShortSideResize to 480..800].
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torchvision.transforms.v2 import functional as F

from saccade.data.transforms.classification import Window
from saccade.data.transforms.sample_transform import SampleTransform, chance, crop, move, without_degenerate
from saccade.structures import Sample
from saccade.structures.ranges import Probability


def short_side_size(size: tuple[int, int], short: int, longest: int | None = None) -> tuple[int, int]:
    """(height, width) of an image of `size` (height, width) once its short side is `short`, or less where the long one would exceed `longest`.

    The limited short side is rounded and the long side truncated, as DETR does.
    """
    low, high = min(size), max(size)
    if longest is not None and high / low * short > longest:
        short = round(longest * low / high)
    if low == short:
        return size
    height, width = size
    return (int(short * height / width), short) if width < height else (short, int(short * width / height))


class RandomShortSideResize(SampleTransform):
    """Resizes the short side to one of `sizes`, the long side to at most `max_size`; with a single size it is the resize of evaluation."""

    def __init__(self, *, sizes: Sequence[int], max_size: int | None = None, antialias: bool = True) -> None:
        self.sizes, self.max_size, self.antialias = list(sizes), max_size, antialias

    def draw(self, samples: Sequence[Sample]) -> int:
        """The short side."""
        return self.sizes[int(torch.randint(len(self.sizes), ()))] if len(self.sizes) > 1 else self.sizes[0]

    def apply(self, sample: Sample, drawn: int) -> Sample:
        """The resized sample."""
        size = [max(1, side) for side in short_side_size(sample.size, drawn, self.max_size)]
        return move(sample, F.resize, size, antialias=self.antialias)


class RandomSizeCrop(SampleTransform):
    """A crop whose height and width are drawn independently from `min_size`..`max_size` (limited to the image), anywhere in it.

    Boxes are clipped, and objects that are outside leave the sample; an object need not have its centre inside.
    """

    def __init__(self, *, min_size: int, max_size: int) -> None:
        if not 0 < min_size <= max_size:
            raise ValueError(f"min_size of RandomSizeCrop must be positive and at most max_size; got {min_size} and {max_size}")
        self.min_size, self.max_size = min_size, max_size

    def draw(self, samples: Sequence[Sample]) -> Window:
        """The crop."""
        sides = [int(torch.randint(min(self.min_size, side), min(side, self.max_size) + 1, ())) for side in samples[0].size]
        top, left = (int(torch.randint(whole - part + 1, ())) for whole, part in zip(samples[0].size, sides, strict=True))
        return Window(top, left, *sides)

    def apply(self, sample: Sample, drawn: Window) -> Sample:
        """The cropped sample."""
        return without_degenerate(crop(sample, *drawn))


class RandomSelect:
    """With `probability` the transforms `first` one after another, otherwise `second`; a clip takes the same way for all its frames."""

    def __init__(
        self, *, first: Sequence[Callable[[Sample], Sample]], second: Sequence[Callable[[Sample], Sample]], probability: Probability = 0.5
    ) -> None:
        self.first, self.second, self.probability = list(first), list(second), probability

    def __call__(self, sample: Sample) -> Sample:
        """The transformed sample (or clip)."""
        for transform in self.first if chance(self.probability) else self.second:
            sample = transform(sample)
        return sample

    def __repr__(self) -> str:
        return f"RandomSelect(first={self.first}, second={self.second}, probability={self.probability})"
