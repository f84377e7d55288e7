"""Samples put together for a network."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from saccade.structures.sample import Annotations, Meta, Sample


@dataclass
class Batch:
    """What a model takes.

    `images` (N, 3, H, W), for clips (N, T, 3, H, W), uint8 (or float in 0..255) RGB; `padding` (N, H, W) bool, for clips (N, T, H, W), true where an
    image was filled up on the right and below, None where nothing was; `targets` and `metas`, one an image (for clips one a frame, clip after clip).
    `originals`: the annotations before any transform, in original pixels; loaders set them for evaluation.
    `source`: the labelled images of the source domain that a training step sees beside these (`data.source`), None without.
    """

    images: Tensor
    targets: list[Annotations]
    metas: list[Meta]
    padding: Tensor | None = None
    originals: list[Annotations] | None = None
    source: Batch | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same with images, padding and targets on `device`, those of the source too; `originals` stay where the metrics are, on the CPU."""
        return Batch(
            images=self.images.to(device, non_blocking=non_blocking),
            targets=[t.to(device, non_blocking) for t in self.targets],
            metas=self.metas,
            padding=None if self.padding is None else self.padding.to(device, non_blocking=non_blocking),
            originals=self.originals,
            source=None if self.source is None else self.source.to(device, non_blocking),
        )

    def select(self, start: int, stop: int) -> Batch:
        """The images (not clips) from `start` up to `stop` alone, at the size of the whole batch; the source stays whole."""
        part = slice(start, stop)
        padding = None if self.padding is None else self.padding[part]
        originals = None if self.originals is None else self.originals[part]
        return replace(self, images=self.images[part], targets=self.targets[part], metas=self.metas[part], padding=padding, originals=originals)

    def pin_memory(self) -> Batch:
        """The same with images and padding in page-locked memory (called by the data loader on CUDA machines)."""
        padding = None if self.padding is None else self.padding.pin_memory()
        source = None if self.source is None else self.source.pin_memory()
        return replace(self, images=self.images.pin_memory(), padding=padding, source=source)


def collate(samples: Sequence[Sample] | Sequence[Sequence[Sample]], divisor: int = 1, originals: list[Annotations] | None = None) -> Batch:
    """Images, or clips of one length, of equal or different sizes as one batch; smaller ones are filled with zeros on the right and below.

    `divisor` rounds the common height and width up to a multiple of it (32 in the mmdetection style). Raises ValueError for clips of different
    lengths.
    """
    if not isinstance(samples[0], Sample):
        return _collate_clips(cast(Sequence[Sequence[Sample]], samples), divisor, originals)
    return _collate_images(cast(Sequence[Sample], samples), divisor, originals)


def _collate_clips(clips: Sequence[Sequence[Sample]], divisor: int, originals: list[Annotations] | None) -> Batch:
    length = len(clips[0])
    if any(len(clip) != length for clip in clips):
        raise ValueError(f"clips in one batch need the same number of frames; got {[len(clip) for clip in clips]}")
    batch = _collate_images([frame for clip in clips for frame in clip], divisor, originals)
    batch.images = batch.images.unflatten(0, (len(clips), length))
    batch.padding = None if batch.padding is None else batch.padding.unflatten(0, (len(clips), length))
    return batch


def _collate_images(samples: Sequence[Sample], divisor: int, originals: list[Annotations] | None) -> Batch:
    heights, widths = [s.size[0] for s in samples], [s.size[1] for s in samples]
    height, width = -(-max(heights) // divisor) * divisor, -(-max(widths) // divisor) * divisor
    targets, metas = [s.annotations() for s in samples], [s.meta for s in samples]
    images = _empty_like_samples(samples, height, width)
    equal = min(heights) == height and min(widths) == width
    padding = None if equal else torch.ones(len(samples), height, width, dtype=torch.bool)
    for index, (image, sample) in enumerate(zip(images, samples, strict=True)):
        h, w = sample.size
        image[:, :h, :w] = sample.image.as_subclass(Tensor)
        if padding is not None:
            image[:, h:], image[:, :h, w:] = 0, 0
            padding[index, :h, :w] = False
    return Batch(images, targets, metas, padding, originals)


def _empty_like_samples(samples: Sequence[Sample], height: int, width: int) -> Tensor:
    """(N, 3, H, W), with channels innermost in memory where the first image has them so, as JPEG decoders do: rows are then copied as they are."""
    first = samples[0].image
    if first.stride(-3) == 1 and first.shape[-3] > 1:
        return torch.empty((len(samples), height, width, first.shape[-3]), dtype=first.dtype).permute(0, 3, 1, 2)
    return torch.empty((len(samples), first.shape[-3], height, width), dtype=first.dtype)
