"""Data sets made of data sets: several after another, one many times, a part, or with rare classes more often.

Samples keep the name and id of the set that they come from, so that evaluation counts each once. What a data set knows about its classes (`colours`,
`subsets`, `things`) is known here, too, and None where it does not.
"""
from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from saccade.data.contract import Dataset, Problem, Video
from saccade.errors import DataError, InputError
from saccade.structures import IGNORE, Annotations, Sample
from saccade.structures.ranges import NonNegativeInt, PositiveInt, Probability


class Selection:
    """The items of `dataset` with the numbers `indices`, in that order, any of them any number of times. Videos stay where all their frames do."""

    def __init__(self, *, dataset: Dataset, indices: Sequence[int], name: str | None = None) -> None:
        wrong = [i for i in indices if not 0 <= i < len(dataset)]
        if wrong:
            raise InputError(f"{dataset.name} has {len(dataset)} items (0..{len(dataset) - 1}); number {wrong[0]} was asked for")
        self.dataset = dataset
        self._indices = torch.as_tensor(list(indices), dtype=torch.int64).numpy()
        self.name, self.classes = name or dataset.name, dataset.classes
        self.colours, self.subsets, self.things = known_of_classes(dataset)
        self.videos: Sequence[Video] = _videos_of_selection(dataset.videos, self._indices.tolist())
        self.problems: list[Problem] = list(getattr(dataset, "problems", []))

    def __len__(self) -> int:
        return len(self._indices)

    def source_index(self, index: int) -> int:
        """The number in `dataset` of item `index`."""
        return int(self._indices[index])

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.source_index(index)]

    def annotations(self, index: int) -> Annotations:
        """Those of the item in `dataset`."""
        return self.dataset.annotations(self.source_index(index))

    def item_id(self, index: int) -> str:
        """That of the item in `dataset`."""
        return self.dataset.item_id(self.source_index(index))

    def describe(self) -> dict[str, Any]:
        """The data set's description with the number of items here."""
        return {**self.dataset.describe(), "name": self.name, "images": len(self), "selection": type(self).__name__}


class Subset(Selection):
    """A part of `dataset`: `indices`, or the first `count` items, or a `fraction` of them drawn without replacement by `seed` (order kept)."""

    def __init__(
        self, *, dataset: Dataset, indices: Sequence[int] | None = None, count: NonNegativeInt | None = None,
        fraction: Probability | None = None, seed: int = 0, name: str | None = None,
    ) -> None:
        if sum(value is not None for value in (indices, count, fraction)) != 1:
            raise InputError("a Subset takes exactly one of `indices`, `count` and `fraction`")
        if count is not None:
            if count < 0:
                raise InputError(f"the `count` of a Subset must not be negative; it is {count}")
            indices = range(min(count, len(dataset)))
        elif fraction is not None:
            if not 0 < fraction <= 1:
                raise InputError(f"the `fraction` of a Subset must lie in 0..1 and not be 0; it is {fraction}")
            drawn = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
            indices = sorted(drawn[:max(1, round(fraction * len(dataset)))].tolist())
        assert indices is not None
        super().__init__(dataset=dataset, indices=indices, name=name)


class Repeat(Selection):
    """`dataset` `times` times over, so that short epochs grow longer."""

    def __init__(self, *, dataset: Dataset, times: PositiveInt, name: str | None = None) -> None:
        if times < 1:
            raise InputError(f"`times` of Repeat must be at least 1; it is {times}")
        super().__init__(dataset=dataset, indices=list(range(len(dataset))) * times, name=name)


class ClassBalanced(Selection):
    """Images of rare classes come several times (Gupta et al. 2019, LVIS, section "repeat factor sampling"; mmclassification's ClassBalancedDataset).

    A class in the fraction f of all images has the factor max(1, sqrt(threshold / f)); an image comes ceil(largest factor of its classes) times, all
    its copies one after another.
    """

    def __init__(self, *, dataset: Dataset, threshold: Probability, name: str | None = None) -> None:
        if not 0 < threshold <= 1:
            raise InputError(f"the `threshold` of ClassBalanced is a fraction of the images, above 0 and at most 1; it is {threshold}")
        present = [present_classes(dataset.annotations(i)) for i in range(len(dataset))]
        counts = [0] * len(dataset.classes)
        for classes in present:
            for label in classes:
                counts[label] += 1
        factors = [max(1.0, math.sqrt(threshold * len(dataset) / count)) if count else 1.0 for count in counts]
        times = [math.ceil(max((factors[label] for label in classes), default=1.0)) for classes in present]
        super().__init__(dataset=dataset, indices=[i for i, n in enumerate(times) for _ in range(n)], name=name)


class Concat:
    """Several data sets one after another; all need the same classes in the same order."""

    def __init__(self, *, datasets: Sequence[Dataset], name: str | None = None) -> None:
        if not datasets:
            raise InputError("Concat needs at least one data set")
        self.datasets = list(datasets)
        self.classes = datasets[0].classes
        for other in datasets[1:]:
            if tuple(other.classes) != tuple(self.classes):
                raise DataError(_difference(datasets[0], other))
        self.colours, self.subsets, self.things = known_of_classes(datasets[0])
        self.name = name or "+".join(dict.fromkeys(d.name for d in datasets))
        self._ends = list(accumulate(len(d) for d in datasets))
        starts = [0, *self._ends[:-1]]
        self.videos: Sequence[Video] = [
            Video(video.name, tuple(start + f for f in video.frames), video.frame_rate)
            for dataset, start in zip(self.datasets, starts, strict=True) for video in dataset.videos
        ]
        self.problems: list[Problem] = [problem for d in datasets for problem in getattr(d, "problems", [])]

    def __len__(self) -> int:
        return self._ends[-1]

    def source(self, index: int) -> tuple[Dataset, int]:
        """The data set that item `index` comes from, and its number there."""
        index = range(len(self))[index]
        number = bisect_right(self._ends, index)
        return self.datasets[number], index - (self._ends[number - 1] if number else 0)

    def __getitem__(self, index: int) -> Sample:
        dataset, own = self.source(index)
        return dataset[own]

    def annotations(self, index: int) -> Annotations:
        """Those of the item in its own data set."""
        dataset, own = self.source(index)
        return dataset.annotations(own)

    def item_id(self, index: int) -> str:
        """Name of the data set and id there."""
        dataset, own = self.source(index)
        return f"{dataset.name}/{dataset.item_id(own)}"

    def describe(self) -> dict[str, Any]:
        """The sum, and each part's own description."""
        parts = [d.describe() for d in self.datasets]
        return {"name": self.name, "format": "Concat", "images": len(self), "classes": len(self.classes),
                "left out": sum(p.get("left out", 0) for p in parts), "parts": parts}


def known_of_classes(dataset: Dataset) -> tuple[Any, Any, Any]:
    """`colours`, `subsets` and `things` of a data set, each None where it has none."""
    return getattr(dataset, "colours", None), getattr(dataset, "subsets", None), getattr(dataset, "things", None)


def present_classes(annotations: Annotations) -> set[int]:
    """The classes that an image shows: its label or labels, else those of its objects, else those of its pixels."""
    if isinstance(annotations.label, int):
        return {annotations.label}
    if annotations.label is not None:
        return set(torch.nonzero(annotations.label > 0).flatten().tolist())
    if annotations.labels is None and annotations.segmentation is not None:
        return set(annotations.segmentation.unique().tolist()) - {IGNORE}
    return set() if annotations.labels is None else set(annotations.labels.tolist())


def _difference(first: Dataset, other: Dataset) -> str:
    only_first, only_other = [c for c in first.classes if c not in other.classes], [c for c in other.classes if c not in first.classes]
    what = f"only in one of them: {', '.join([*only_first, *only_other][:10])}" if only_first or only_other else "the order differs"
    return f"{first.name} and {other.name} can't be put together, their classes differ ({what}); give both the same `classes`"


def _videos_of_selection(videos: Sequence[Video], indices: list[int]) -> list[Video]:
    """Videos whose frames are all selected, with their new numbers (of the first copy)."""
    position = {source: number for number, source in reversed(list(enumerate(indices)))}
    return [Video(v.name, tuple(position[f] for f in v.frames), v.frame_rate) for v in videos if all(f in position for f in v.frames)]
