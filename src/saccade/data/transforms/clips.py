"""Transforms for pairs and clips: what each frame draws for itself, and a crop that leaves boxes as they are (mmtracking; spec tracking.md, 5.2).

A transform that is given a clip shares its random draw among the frames; inside `EachFrame` every frame has its own. QDTrack's pipeline on MOT17 is:
ToFloat, KeepRatioResize with a `ratio`, PhotometricDistort, EachFrame of RandomUnclippedCrop, RandomHorizontalFlip.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torchvision import tv_tensors

from saccade.data.transforms.classification import Window
from saccade.data.transforms.sample_transform import SampleTransform, change_image, crop, without_degenerate
from saccade.structures import Sample


class EachFrame:
    """The `transforms`, one after another, on every frame of a clip with random draws of its own."""

    def __init__(self, *, transforms: Sequence[Callable[[Sample], Sample]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, sample: Sample | Sequence[Sample]) -> Sample | list[Sample]:
        """The sample, or every frame of the clip, transformed."""
        return self._frame(sample) if isinstance(sample, Sample) else [self._frame(frame) for frame in sample]

    def _frame(self, sample: Sample) -> Sample:
        for transform in self.transforms:
            sample = transform(sample)
        return sample

    def __repr__(self) -> str:
        return f"EachFrame(transforms={self.transforms})"


class ToFloat(SampleTransform):
    """Images as float32 in 0..255, so that what follows is not rounded to grey levels (mmtracking's `to_float32`)."""

    def apply(self, sample: Sample, drawn: None) -> Sample:
        """The sample with a float image."""
        return change_image(sample, Tensor.float)


class RandomUnclippedCrop(SampleTransform):
    """A crop of at most `size` (height, width) anywhere in the image; boxes are moved, not clipped, so that they say where hidden parts are.

    Objects that lie outside the crop leave the sample; with `reference_quirks` they stay, as in mmtracking, where only boxes without width or height
    are dropped. A side that is short enough stays whole. Where no object is left the sample stays, without any.
    """

    def __init__(self, *, size: tuple[int, int], reference_quirks: bool = False) -> None:
        self.size, self.reference_quirks = (int(size[0]), int(size[1])), reference_quirks

    def draw(self, samples: Sequence[Sample]) -> Window:
        """The crop."""
        sides = [min(whole, part) for whole, part in zip(samples[0].size, self.size, strict=True)]
        top, left = (int(torch.randint(whole - part + 1, ())) for whole, part in zip(samples[0].size, sides, strict=True))
        return Window(top, left, *sides)

    def apply(self, sample: Sample, drawn: Window) -> Sample:
        """The cropped sample."""
        if drawn.height == sample.size[0] and drawn.width == sample.size[1]:
            return sample
        return unclipped_crop(sample, drawn, keep_outside=self.reference_quirks)


def unclipped_crop(sample: Sample, window: Window, *, keep_outside: bool = False) -> Sample:
    """The part of `sample` in `window`, with the boxes moved and not clipped; objects outside leave it unless `keep_outside`."""
    cut = crop(sample, *window)
    if sample.boxes is None:
        return cut
    boxes = sample.boxes.as_subclass(Tensor) - torch.tensor([window.left, window.top, window.left, window.top], dtype=torch.float32)
    size = (window.height, window.width)
    moved = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)  # type: ignore[call-overload]
    cut = without_degenerate(replace(cut, boxes=moved))
    return cut if keep_outside else inside_only(cut)


def inside_only(sample: Sample) -> Sample:
    """`sample` without the objects whose box does not overlap the image."""
    if sample.boxes is None or len(sample.boxes) == 0:
        return sample
    boxes, (height, width) = sample.boxes.as_subclass(Tensor), sample.size
    keep = (boxes[:, 0] < width) & (boxes[:, 1] < height) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    return sample if bool(keep.all()) else sample.select(keep)
