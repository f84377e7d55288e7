"""Which samples belong to which step, as a function of the step alone.

A *sampler* says in which order one pass (epoch) goes through the data. The passes one after another are an endless stream, and global step s takes
the entries s * B to (s + 1) * B of it, B being the total batch size over all processes and accumulated parts. So every step has a full batch: where
the data set is no multiple of B, a batch ends one pass and begins the next, and nothing is dropped or repeated. Any step can be computed without
those before it, which is what makes resuming exact.

Within a step, entry number k belongs to process k mod world_size, as with torch's DistributedSampler: together the processes hold exactly the batch
of a single process.
"""
from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from saccade.data.combination import present_classes
from saccade.data.contract import Dataset
from saccade.data.decoding import image_size
from saccade.data.randomness import generator
from saccade.errors import InputError


class Entry(NamedTuple):
    """One place in a batch: the pass over the data, the sample's number, and how often this pass has had it before (0 unless a sampler repeats)."""

    epoch: int
    number: int
    copy: int


class Order(Protocol):
    """The order of every pass over a data set; all passes have the same length."""

    def __len__(self) -> int: ...
    def epoch(self, seed: int, epoch: int) -> Tensor: ...


class Sampler(Protocol):
    """What recipes name: `order` looks at the data set once. Runs of `block` entries are processed together (the part of one step that all processes
    take at a time), for samplers that put like with like."""

    def order(self, dataset: Dataset, block: int) -> Order: ...


class Shuffled:
    """Every sample once a pass, in a new random order each time: the default."""

    def order(self, dataset: Dataset, block: int) -> Order:
        """The order for `dataset`."""
        return _Permutations(len(dataset))


class _Permutations:
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def epoch(self, seed: int, epoch: int) -> Tensor:
        return torch.randperm(self.length, generator=generator("order", seed, epoch))


class InSequence:
    """Every sample once a pass, always in the data set's own order."""

    def order(self, dataset: Dataset, block: int) -> Order:
        """The order for `dataset`."""
        return _Sequence(len(dataset))


class _Sequence:
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def epoch(self, seed: int, epoch: int) -> Tensor:
        return torch.arange(self.length)


class AspectRatioGroups:
    """Pictures of like shape share a batch, so that less padding is computed (mmdetection's GroupSampler).

    `edges` are limits of width / height between the groups; the default makes two, upright and lying. Each group is filled up to whole batches with
    its own first pictures of the pass, so a pass is a little longer than the data.
    """

    def __init__(self, *, edges: Sequence[float] = (1.0,)) -> None:
        self.edges = torch.tensor(sorted(edges), dtype=torch.float64)

    def order(self, dataset: Dataset, block: int) -> Order:
        """The order for `dataset`; one look at the size of every image (as recorded, else from the file's header)."""
        sizes = torch.tensor([_picture_size(dataset, i) for i in range(len(dataset))], dtype=torch.float64).reshape(-1, 2)
        return _Grouped(torch.bucketize(sizes[:, 1] / sizes[:, 0], self.edges, right=True), block)


class _Grouped:
    def __init__(self, groups: Tensor, block: int) -> None:
        self.groups, self.block = groups, block
        self.length = sum(-(-int(n) // block) * block for n in groups.bincount().tolist() if n)

    def __len__(self) -> int:
        return self.length

    def epoch(self, seed: int, epoch: int) -> Tensor:
        random = generator("order", seed, epoch)
        permutation = torch.randperm(len(self.groups), generator=random)
        blocks = []
        for group in self.groups.unique().tolist():
            members = permutation[self.groups[permutation] == group]
            whole = -(-len(members) // self.block) * self.block
            blocks.append(members[torch.arange(whole) % len(members)].reshape(-1, self.block))
        stacked = torch.cat(blocks)
        return stacked[torch.randperm(len(stacked), generator=random)].reshape(-1)


class RepeatFactor:
    """Images of rare classes come more often (Gupta et al. 2019, LVIS): r = max over the image's classes of max(1, sqrt(threshold / frequency)).

    The frequency of a class is the fraction of images that show it. Fractions of r are rounded at random in each pass, up or down so that the mean is
    right and the length of a pass constant (systematic resampling). The data set `ClassBalanced` is the rule that always rounds up.
    """

    def __init__(self, *, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise InputError(f"the threshold of RepeatFactor is a fraction of the images, above 0 and at most 1; it is {threshold}")
        self.threshold = threshold

    def order(self, dataset: Dataset, block: int) -> Order:
        """The order for `dataset`; one look at all annotations."""
        shown = _shown_classes(dataset)
        frequency = shown.double().mean(0)
        factor = torch.where(frequency > 0, (self.threshold / frequency.clamp(min=1e-12)).sqrt().clamp(min=1.0), 1.0)
        return _Weighted((shown * factor).amax(1).clamp(min=1.0))


class _Weighted:
    def __init__(self, weights: Tensor) -> None:
        self.weights = weights  # (n,) float64: how often each sample comes in a pass, on average
        self.length = int(weights.sum() + 1e-9)

    def __len__(self) -> int:
        return self.length

    def epoch(self, seed: int, epoch: int) -> Tensor:
        random = generator("order", seed, epoch)
        permutation = torch.randperm(len(self.weights), generator=random)
        ends = self.weights[permutation].cumsum(0) * (self.length / self.weights.sum())
        ticks = torch.arange(self.length, dtype=torch.float64) + torch.rand((), generator=random, dtype=torch.float64)
        drawn = permutation[torch.searchsorted(ends, ticks, right=True).clamp(max=len(permutation) - 1)]
        return drawn[torch.randperm(self.length, generator=random)]


class ClassUniform:
    """Draws as many samples as the data has, with replacement, so that every class is drawn equally often on average.

    A sample's weight is the sum of 1 / (number of samples that show the class) over its classes; samples without any never come.
    """

    def order(self, dataset: Dataset, block: int) -> Order:
        """The order for `dataset`; one look at all annotations."""
        shown = _shown_classes(dataset).double()
        weights = (shown / shown.sum(0).clamp(min=1)).sum(1)
        if not weights.any():
            raise InputError(f"ClassUniform needs labels, and {dataset.name} has none")
        return _Drawn(weights)


class _Drawn:
    def __init__(self, weights: Tensor) -> None:
        self.cumulative = weights.cumsum(0)

    def __len__(self) -> int:
        return len(self.cumulative)

    def epoch(self, seed: int, epoch: int) -> Tensor:
        places = torch.rand(len(self), generator=generator("order", seed, epoch), dtype=torch.float64) * self.cumulative[-1]
        return torch.searchsorted(self.cumulative, places, right=True).clamp(max=len(self) - 1)


class RepeatedAugmentation:
    """Each sample `repeats` times in a row, differently augmented, on different processes (Hoffer et al. 2020; RepeatAugSampler of mmclassification
    and DeiT). A pass is no longer than the data, so it sees only a part of it, 1 / `repeats`."""

    def __init__(self, *, repeats: int = 3) -> None:
        if repeats < 1:
            raise InputError(f"`repeats` of RepeatedAugmentation must be at least 1; it is {repeats}")
        self.repeats = repeats

    def order(self, dataset: Dataset, block: int) -> Order:
        """The order for `dataset`."""
        return _Repeated(len(dataset), self.repeats)


class _Repeated:
    def __init__(self, length: int, repeats: int) -> None:
        self.length, self.repeats = length, repeats

    def __len__(self) -> int:
        return self.length

    def epoch(self, seed: int, epoch: int) -> Tensor:
        permutation = torch.randperm(self.length, generator=generator("order", seed, epoch))
        return permutation.repeat_interleave(self.repeats)[:self.length]


class Stream:
    """The endless stream of entries of an order, and its parts: `batch_size` is the total over `world_size` processes and `accumulate` parts."""

    def __init__(self, order: Order, *, seed: int, batch_size: int, world_size: int = 1, accumulate: int = 1) -> None:
        if len(order) == 0:
            raise InputError("there is nothing to train on: the data set has no samples")
        if batch_size < 1 or batch_size % (world_size * accumulate):
            raise InputError(
                f"batch_size {batch_size} is the total of one step; it must be a positive multiple of the number of processes ({world_size}) times "
                f"accumulate ({accumulate})"
            )
        self.order, self.seed, self.batch_size = order, seed, batch_size
        self.world_size, self.accumulate = world_size, accumulate
        # Two passes, for a batch may reach from one into the next.
        self._pass = functools.lru_cache(maxsize=2)(self._order_and_copies)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_pass"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._pass = functools.lru_cache(maxsize=2)(self._order_and_copies)

    def step(self, step: int) -> list[Entry]:
        """The entries of global step `step`, of all processes."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [self._entry(*divmod(place, len(self.order))) for place in places]

    def part(self, step: int, part: int, rank: int) -> list[Entry]:
        """The entries of part `part` (0..accumulate - 1) of a step that belong to process `rank`."""
        size = self.batch_size // self.accumulate
        return self.step(step)[part * size:(part + 1) * size][rank::self.world_size]

    def _entry(self, epoch: int, place: int) -> Entry:
        order, copies = self._pass(epoch)
        return Entry(epoch, int(order[place]), int(copies[place]))

    def _order_and_copies(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = self.order.epoch(self.seed, epoch)
        return order.numpy(), _earlier_occurrences(order).numpy()


def evaluation_indices(length: int, rank: int = 0, world_size: int = 1) -> range:
    """The consecutive samples that process `rank` evaluates: together the processes see each sample once; some may have one less than others."""
    return range(length * rank // world_size, length * (rank + 1) // world_size)


def evaluation_order(dataset: Dataset, rank: int = 0, world_size: int = 1) -> Sequence[int]:
    """The samples that process `rank` evaluates. Videos stay whole: their frames come one after another and in order, then the frames of none."""
    if not dataset.videos:
        return evaluation_indices(len(dataset), rank, world_size)
    inside = {frame for video in dataset.videos for frame in video.frames}
    units = [*(video.frames for video in dataset.videos), *((i,) for i in range(len(dataset)) if i not in inside)]
    total, before = sum(map(len, units)), 0
    own: list[int] = []
    for frames in units:
        middle = before + len(frames) / 2
        if int(middle * world_size / total) == rank:
            own += frames
        before += len(frames)
    return own


def _earlier_occurrences(values: Tensor) -> Tensor:
    """For each of `values` (n,) how often it stands further left."""
    order = values.argsort(stable=True)
    ordered = values[order]
    new = torch.ones(len(values), dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    places = torch.arange(len(values))
    starts = torch.where(new, places, 0).cummax(0).values
    return torch.empty_like(places).index_copy_(0, order, places - starts)


def _picture_size(dataset: Any, index: int) -> tuple[int, int]:
    """(height, width) of picture `index`, by the cheapest way that the data set offers."""
    if hasattr(dataset, "source"):  # Concat
        return _picture_size(*dataset.source(index))
    if hasattr(dataset, "source_index"):  # Selection
        return _picture_size(dataset.dataset, dataset.source_index(index))
    recorded = dataset.recorded_size(index) if hasattr(dataset, "recorded_size") else None
    if recorded is not None:
        return recorded
    return image_size(dataset.image_path(index)) if hasattr(dataset, "image_path") else dataset[index].size


def _shown_classes(dataset: Dataset) -> Tensor:
    """(n, K) bool: which classes each sample shows."""
    shown = torch.zeros(len(dataset), len(dataset.classes), dtype=torch.bool)
    for index, row in enumerate(shown):
        row[list(present_classes(dataset.annotations(index)))] = True
    return shown
