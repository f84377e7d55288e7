"""The `data:` section of a recipe: which data sets, how they are transformed and loaded."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from saccade.data.contract import Dataset
from saccade.data.loading import Loader
from saccade.data.sampling import Sampler
from saccade.data.transforms.batch import BatchTransform
from saccade.errors import InputError
from saccade.structures import Sample
from saccade.structures.ranges import NonNegativeInt, PositiveInt, Probability

Transform = Callable[[Sample], Sample]


@dataclass(frozen=True)
class DataSettings:
    """What a run reads.

    `train` is None for recipes that only evaluate; `evaluate` names data sets, and the names go in front of the figures. `train_transforms` and
    `evaluation_transforms` act on each sample, `batch_transforms` on each training batch. `workers` are processes per rank, and per loader.
    `size_divisor`: heights and widths of batches are filled up to a multiple of it. `unreadable`: see `Loader`. `sampler`: the order of training,
    shuffled by default. `evaluation_batch_size` is per process; None takes a process's part of the training batch.
    """

    train: Dataset | None = None
    evaluate: dict[str, Dataset] = field(default_factory=dict)
    train_transforms: list[Transform] = field(default_factory=list)
    evaluation_transforms: list[Transform] = field(default_factory=list)
    batch_transforms: list[BatchTransform] = field(default_factory=list)
    workers: NonNegativeInt = 0
    size_divisor: PositiveInt = 1
    unreadable: Literal["raise"] | Probability = "raise"
    sampler: Sampler | None = None
    evaluation_batch_size: PositiveInt | None = None

    def __post_init__(self) -> None:
        known = self.classes
        for name, dataset in self.evaluate.items():
            if tuple(dataset.classes) != known:
                raise InputError(
                    f"data.evaluate.{name} has other classes than the model is built for: {_shown(dataset.classes)} against {_shown(known)}; "
                    "give both data sets the same `classes`"
                )

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of the training data, or where there is none those of the first data set to evaluate; empty without any."""
        return () if self._first is None else tuple(self._first.classes)

    @property
    def things(self) -> tuple[bool, ...] | None:
        """Which classes are countable, where the data set knows (`CocoPanoptic`)."""
        return getattr(self._first, "things", None)

    @property
    def _first(self) -> Dataset | None:
        return self.train if self.train is not None else next(iter(self.evaluate.values()), None)


def training_loader(
    settings: DataSettings, *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1, accumulate: int = 1
) -> Loader:
    """The loader of `settings.train`; `batch_size` is the total of one step. Raises InputError where there is nothing to train on."""
    if settings.train is None:
        raise InputError("this recipe has no data.train, so it can't train; name a data set there")
    return Loader(
        dataset=settings.train, transforms=settings.train_transforms, batch_size=batch_size, seed=seed, workers=settings.workers, rank=rank,
        world_size=world_size, accumulate=accumulate, sampler=settings.sampler, size_divisor=settings.size_divisor,
        batch_transforms=settings.batch_transforms, unreadable=settings.unreadable,
    )


def evaluation_loaders(settings: DataSettings, *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1) -> dict[str, Loader]:
    """A loader for each of `settings.evaluate`, each giving this rank's part; `batch_size` is per process (`evaluation_batch_size` goes first)."""
    return {name: evaluation_loader(settings, dataset, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
            for name, dataset in settings.evaluate.items()}


def evaluation_loader(
    settings: DataSettings, dataset: Dataset, *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
) -> Loader:
    """A loader for any data set with the evaluation transforms of `settings`."""
    return Loader(
        dataset=dataset, transforms=settings.evaluation_transforms, batch_size=settings.evaluation_batch_size or batch_size, seed=seed,
        workers=settings.workers, training=False, rank=rank, world_size=world_size, size_divisor=settings.size_divisor,
        unreadable=settings.unreadable,
    )


def _shown(classes: Sequence[str] | Mapping[str, object]) -> str:
    names = list(classes)
    return f"{len(names)} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
