"""Transforms of a whole training batch of classified images: Mixup, CutMix and ResizeMix, as mmclassification 0.x defines them (spec B1).

The partner of an image is another one of the batch, by a random permutation. Labels become (K,) float tensors that sum to one (for images with
several labels: to what they summed to). Every draw comes from the generator that the loader passes.
"""
from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate, one_hot

from saccade.errors import InputError
from saccade.structures import Batch
from saccade.structures.ranges import Probability


class BatchTransform(ABC):
    """Something that mixes the images of a batch, with `probability`."""

    probability: float

    def __call__(self, batch: Batch, generator: Generator, num_classes: int) -> Batch:
        """`batch` mixed, or with probability 1 - `probability` as it is. `num_classes` is that of the data set."""
        return self.mix(batch, generator, num_classes) if _unit(generator) < self.probability else batch

    @abstractmethod
    def mix(self, batch: Batch, generator: Generator, num_classes: int) -> Batch:
        """`batch` mixed in any case."""


class OneOf(BatchTransform):
    """At most one of `choices`, each with its own probability; nothing with what remains to 1."""

    def __init__(self, *, choices: Sequence[BatchTransform]) -> None:
        total = sum(choice.probability for choice in choices)
        if not choices or total > 1 + 1e-9:
            raise ValueError(f"OneOf needs choices whose probabilities sum to at most 1; they sum to {total:g}")
        self.choices, self.probability = list(choices), min(1.0, total)

    def __call__(self, batch: Batch, generator: Generator, num_classes: int) -> Batch:
        """`batch` after the choice."""
        place = _unit(generator)
        for choice in self.choices:
            if place < choice.probability:
                return choice.mix(batch, generator, num_classes)
            place -= choice.probability
        return batch

    def mix(self, batch: Batch, generator: Generator, num_classes: int) -> Batch:
        """`batch` after one of the choices, by their shares."""
        shares = torch.tensor([choice.probability for choice in self.choices])
        return self.choices[int(torch.multinomial(shares, 1, generator=generator))].mix(batch, generator, num_classes)


class Mixup(BatchTransform):
    """lambda * image + (1 - lambda) * partner, lambda from Beta(alpha, alpha), one for the batch (Zhang et al. 2018). Images become float32."""

    def __init__(self, *, alpha: float, probability: Probability = 1.0) -> None:
        self.alpha, self.probability = _positive(alpha), probability

    def mix(self, batch: Batch, generator: Generator, num_classes: int) -> Batch:
        """`batch` mixed."""
        share, partner = _beta(self.alpha, generator), _partners(batch, generator)
        images = batch.images.float()
        return _with_labels(replace(batch, images=share * images + (1 - share) * images[partner]), partner, share, num_classes)


class CutMix(BatchTransform):
    """A rectangle of the partner at the same place (Yun et al. 2019). Its sides are sqrt(1 - lambda) of the image's, its centre is uniform.

    lambda is the share of the image that really remains, once the rectangle is clipped at the border (`correct_share` false keeps the drawn one).
    `minmax` draws both sides between these fractions of the image's instead, and the rectangle inside of it.
    """

    def __init__(
        self, *, alpha: float, probability: Probability = 1.0, minmax: tuple[float, float] | None = None, correct_share: bool = True
    ) -> None:
        self.alpha, self.probability, self.minmax, self.correct_share = _positive(alpha), probability, minmax, correct_share

    def mix(self, batch: Batch, generator: Generator, num_classes: int) -> Batch:
        """`batch` mixed."""
        share, partner = _beta(self.alpha, generator), _partners(batch, generator)
        rows, columns = self._rectangle(batch.images, share, generator)
        images = batch.images.clone()
        images[..., rows, columns] = batch.images[partner][..., rows, columns]
        if self.correct_share or self.minmax is not None:
            share = _remaining(images, rows, columns)
        return _with_labels(replace(batch, images=images), partner, share, num_classes)

    def _rectangle(self, images: Tensor, share: float, generator: Generator) -> tuple[slice, slice]:
        if self.minmax is None:
            return _clipped_rectangle(images, share, generator)
        low, high = self.minmax
        slices = []
        for side in images.shape[-2:]:
            length = _integer(int(side * low), max(int(side * low) + 1, int(side * high)), generator)
            start = _integer(0, side - length + 1, generator)
            slices.append(slice(start, start + length))
        return slices[0], slices[1]


class ResizeMix(BatchTransform):
    """The whole partner, made small, in a rectangle (Qin et al. 2020). lambda is Beta(alpha, alpha) scaled to `min_share`..`max_share`."""

    def __init__(
        self, *, alpha: float, probability: Probability = 1.0, min_share: float = 0.1, max_share: float = 0.8,
        interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear",
    ) -> None:
        if not 0 <= min_share <= max_share <= 1:
            raise ValueError(f"shares of ResizeMix lie in 0..1, the smaller first; got {min_share} and {max_share}")
        self.alpha, self.probability = _positive(alpha), probability
        self.min_share, self.max_share, self.interpolation = min_share, max_share, interpolation

    def mix(self, batch: Batch, generator: Generator, num_classes: int) -> Batch:
        """`batch` mixed."""
        share = self.min_share + (self.max_share - self.min_share) * _beta(self.alpha, generator)
        partner = _partners(batch, generator)
        rows, columns = _clipped_rectangle(batch.images, share, generator)
        size = (rows.stop - rows.start, columns.stop - columns.start)
        images = batch.images.clone()
        if min(size) > 0:
            aligned = {} if self.interpolation == "nearest" else {"align_corners": False}
            small = interpolate(batch.images[partner].float(), size=size, mode=self.interpolation, **aligned)
            images[..., rows, columns] = small.to(images.dtype) if images.is_floating_point() else small.round().clamp(0, 255).to(images.dtype)
        return _with_labels(replace(batch, images=images), partner, _remaining(images, rows, columns), num_classes)


def soft_labels(batch: Batch, num_classes: int) -> Tensor:
    """(N, K) float: the labels of the images, one-hot where they are single. Raises InputError where an image has none."""
    missing = [str(meta.id) for target, meta in zip(batch.targets, batch.metas, strict=True) if target.label is None]
    if missing:
        raise InputError(f"mixing images needs a label for each of them; sample {missing[0]} has none (it may be a detection data set)")
    labels = [t.label for t in batch.targets]
    return torch.stack([y.float() if isinstance(y, Tensor) and y.ndim else one_hot(torch.as_tensor(y), num_classes).float() for y in labels])


def _with_labels(batch: Batch, partner: Tensor, share: float, num_classes: int) -> Batch:
    labels = soft_labels(batch, num_classes)
    mixed = share * labels + (1 - share) * labels[partner]
    return replace(batch, targets=[replace(target, label=row) for target, row in zip(batch.targets, mixed, strict=True)])


def _partners(batch: Batch, generator: Generator) -> Tensor:
    if batch.padding is not None:
        raise InputError("mixing needs images of one size, and this batch is padded; end the training transforms with a resize to a fixed size")
    return torch.randperm(len(batch), generator=generator)


def _clipped_rectangle(images: Tensor, share: float, generator: Generator) -> tuple[slice, slice]:
    ratio = math.sqrt(1 - share)
    slices = []
    for side in images.shape[-2:]:
        half, centre = int(side * ratio) // 2, _integer(0, side, generator)
        slices.append(slice(max(0, centre - half), min(side, centre + half)))
    return slices[0], slices[1]


def _remaining(images: Tensor, rows: slice, columns: slice) -> float:
    height, width = images.shape[-2:]
    return 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)


def _positive(alpha: float) -> float:
    if alpha <= 0:
        raise ValueError(f"alpha of Beta(alpha, alpha) must be positive, got {alpha}")
    return alpha


def _unit(generator: Generator) -> float:
    return torch.rand((), generator=generator).item()


def _integer(low: int, high: int, generator: Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))


def _beta(alpha: float, generator: Generator) -> float:
    # torch's Beta takes no generator, so NumPy's is seeded from it.
    return float(np.random.default_rng(_integer(0, 2**62, generator)).beta(alpha, alpha))
