"""The `data:` section of a recipe: which data sets, how they are transformed and loaded."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from saccade.data.contract import Dataset
from saccade.data.domain_pairs import DomainPairs
from saccade.data.loading import Loader
from saccade.data.randomness import mixed_seed
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

    `source`: labelled images of another domain, of which every training step sees a batch beside that of `train` (the target domain, whose labels are
    not needed). They are shuffled by themselves; the class names of the run are theirs. `source_transforms`: on each of them, None takes
    `train_transforms`. `source_batch_size`: their number in one step, None takes as many as of the target. `sampler` and `batch_transforms` are for
    the target alone.
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
    source: Dataset | None = None
    source_transforms: list[Transform] | None = None
    source_batch_size: PositiveInt | None = None

    def __post_init__(self) -> None:
        self._check_source()
        known = self.classes
        for name, dataset in self.evaluate.items():
            if tuple(dataset.classes) != known:
                raise InputError(
                    f"data.evaluate.{name} has other classes than the model is built for: {_shown(dataset.classes)} against {_shown(known)}; "
                    "give both data sets the same `classes`"
                )

    def _check_source(self) -> None:
        if self.source is None:
            unused = [name for name in ("source_transforms", "source_batch_size") if getattr(self, name) is not None]
            if unused:
                raise InputError(f"data.{unused[0]} is given, but there is no data.source; name the labelled images of the source domain there")
            return
        if self.train is None:
            raise InputError("data.source is seen beside the target domain, and there is no data.train; name the target's images there")
        if not self.source.classes:
            raise InputError(f"data.source needs labels, and {self.source.name} has no classes; only the target (data.train) may be without")
        if self.train.classes and tuple(self.train.classes) != tuple(self.source.classes):
            raise InputError(
                f"data.train has other classes than data.source: {_shown(self.train.classes)} against {_shown(self.source.classes)}; "
                "read both with the same class set, or wrap the target in MatchClasses"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of the source domain or else of the training data, or where there is none those of the first data set to evaluate; empty
        without any."""
        return () if self._first is None else tuple(self._first.classes)

    @property
    def things(self) -> tuple[bool, ...] | None:
        """Which classes are countable, where the data set knows (`CocoPanoptic`)."""
        return getattr(self._first, "things", None)

    @property
    def _first(self) -> Dataset | None:
        training = self.train if self.source is None else self.source
        return training if training is not None else next(iter(self.evaluate.values()), None)


def training_loader(
    settings: DataSettings, *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1, accumulate: int = 1
) -> Loader | DomainPairs:
    """The loader of `settings.train`, with that of `settings.source` beside it; `batch_size` is the total of one step (of the target's images).

    Raises InputError where there is nothing to train on, and for batch sizes that the processes can't share.
    """
    if settings.train is None:
        raise InputError("this recipe has no data.train, so it can't train; name a data set there")
    target = Loader(
        dataset=settings.train, transforms=settings.train_transforms, batch_size=batch_size, seed=seed, workers=settings.workers, rank=rank,
        world_size=world_size, accumulate=accumulate, sampler=settings.sampler, size_divisor=settings.size_divisor,
        batch_transforms=settings.batch_transforms, unreadable=settings.unreadable,
    )
    if settings.source is None:
        return target
    source_size = settings.source_batch_size or batch_size
    if source_size % (world_size * accumulate):
        raise InputError(
            f"data.source_batch_size {source_size} is the total of one step; it must be a multiple of the number of processes ({world_size}) times "
            f"accumulate ({accumulate})"
        )
    source = Loader(
        dataset=settings.source, transforms=settings.train_transforms if settings.source_transforms is None else settings.source_transforms,
        batch_size=source_size, seed=mixed_seed("source", seed), workers=settings.workers, rank=rank, world_size=world_size, accumulate=accumulate,
        size_divisor=settings.size_divisor, unreadable=settings.unreadable,
    )
    return DomainPairs(target, source)


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
