"""From a data set to batches: reading, transforming and putting together, in this process or in several.

What a batch holds is a function of the seed and the global step alone (see `sampling` and `randomness`): the number of worker processes changes
nothing, nor does a restart, and the processes of a distributed run together hold what one process would. A batch is made whole in one worker.
"""
from __future__ import annotations

import itertools
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from saccade.data.contract import Dataset
from saccade.data.randomness import generator, preserved, sample_seed, seed_globals
from saccade.data.sampling import Entry, Sampler, Shuffled, Stream, evaluation_order
from saccade.data.transforms.batch import BatchTransform
from saccade.data.transport import Parcel, pack, unpack
from saccade.errors import DataError, InputError, SaccadeError
from saccade.structures import Annotations, Batch, Sample, collate

_log = logging.getLogger(__name__)

Transform = Callable[[Sample], Sample]

# What a defect in a transform raises; a note then says on which sample it happened.
_DEFECTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class _Work:
    """One batch to make: its entries, and the key of the random numbers of the batch transforms."""

    entries: list[Entry]
    key: tuple[int, ...] = ()


@dataclass
class _Made:
    """A batch (None where every sample of an evaluation batch was unreadable), or the error instead, and the (id, reason) of unreadable samples."""

    batch: Batch | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    error: SaccadeError | None = None


class _Maker(TorchDataset):
    """Makes batches; what torch's DataLoader takes for the data set. Its "index" is a `_Work`."""

    def __init__(self, dataset: Dataset, transforms: Sequence[Transform], batch_transforms: Sequence[BatchTransform], settings: _Settings) -> None:
        self.dataset, self.transforms, self.batch_transforms, self.settings = dataset, transforms, batch_transforms, settings

    def __getitem__(self, work: _Work) -> _Made | Parcel:
        """The batch; packed in a worker. Errors that are meant for the user travel as values, so that their text arrives as it was written."""
        try:
            made = self.make(work)
        except SaccadeError as error:
            if not self.settings.in_workers:
                raise
            made = _Made(error=error)
        return pack(made) if self.settings.in_workers else made

    def make(self, work: _Work) -> _Made:
        """The batch of `work`."""
        samples: list[Any] = []  # of samples, or of clips
        originals: list[Annotations] = []
        made = _Made()
        with preserved():
            for entry in work.entries:
                found = self._first_readable(entry, made.unreadable)
                if found is not None:
                    samples.append(found[0])
                    originals += found[1]
        if not samples:
            return made
        batch = collate(samples, self.settings.size_divisor, None if self.settings.training else originals)
        if self.batch_transforms:
            random = generator("batch", self.settings.seed, *work.key)
            for transform in self.batch_transforms:
                batch = transform(batch, random, len(self.dataset.classes))
        made.batch = batch
        return made

    def _first_readable(self, entry: Entry, unreadable: list[tuple[str, str]]) -> tuple[Any, list[Annotations]] | None:
        """The transformed sample (or clip) of `entry` and the annotations of its frames before; where it can't be read, the next one in training and
        None in evaluation."""
        length = len(self.dataset)
        candidates = range(length) if self.settings.training else range(1)
        for offset in candidates:
            number = (entry.number + offset) % length
            try:
                return self._sample(entry.epoch, number, entry.copy)
            except DataError as error:
                if self.settings.unreadable == "raise":
                    raise
                unreadable.append((self.dataset.item_id(number), str(error)))
        if self.settings.training:
            raise DataError(f"no sample of {self.dataset.name} can be read; the last reason was: {unreadable[-1][1]}")
        return None

    def _sample(self, epoch: int, number: int, copy: int) -> tuple[Any, list[Annotations]]:
        seed_globals(sample_seed(self.settings.seed, epoch, number, copy))
        sample: Any = self.dataset[number]
        originals = [frame.annotations() for frame in ([sample] if isinstance(sample, Sample) else sample)]
        for transform in self.transforms:
            try:
                sample = transform(sample)
            except _DEFECTS as error:
                error.add_note(f"(in {type(transform).__name__}, on sample {self.dataset.item_id(number)} of {self.dataset.name})")
                raise
        return sample, originals


@dataclass(frozen=True)
class _Settings:
    seed: int
    training: bool
    size_divisor: int
    unreadable: Literal["raise"] | float
    in_workers: bool


class _TrainingWorks:
    """The batches to make from step `start` on, without end; torch's DataLoader asks for them as fast as its workers take them.

    It does not know the loader: objects in a circle are finalised in any order, and torch's workers then end only after a timeout.
    """

    def __init__(self, stream: Stream, rank: int) -> None:
        self.stream, self.rank, self.start = stream, rank, 0

    def __iter__(self) -> Iterator[_Work]:
        for step in itertools.count(self.start):
            for part in range(self.stream.accumulate):
                yield _Work(self.stream.part(step, part, self.rank), (step, part, self.rank))

    def __len__(self) -> int:
        return -(-len(self.stream.order) // self.stream.batch_size)


class _EvaluationWorks:
    """The batches of a part of the data, in order, from batch `start` on."""

    def __init__(self, numbers: Sequence[int], batch_size: int) -> None:
        self.numbers, self.batch_size, self.start = numbers, batch_size, 0

    def __iter__(self) -> Iterator[_Work]:
        for first in range(self.start * self.batch_size, len(self.numbers), self.batch_size):
            yield _Work([Entry(0, number, 0) for number in self.numbers[first:first + self.batch_size]])

    def __len__(self) -> int:
        return -(-len(self.numbers) // self.batch_size)


class Loader:
    """Batches of `dataset`, transformed.

    Training: `batches(start_step)` never ends; `batch_size` is the total of one step over `world_size` processes and `accumulate` parts, and each
    step gives `accumulate` batches, one after another, of batch_size / (world_size * accumulate) samples. Evaluation (`training` false): once over
    the part of the data that belongs to `rank`, in order (videos whole, one after another), in batches of up to `batch_size` for this process, with
    `batch.originals`.

    `transforms` are called in order on each sample, `batch_transforms` on each training batch. Images of different sizes are padded on the right and
    below, to multiples of `size_divisor`. `sampler` (default `Shuffled`) says in which order training goes through the data.

    `unreadable`: "raise" ends at the first sample that raises `DataError`. A fraction leaves such samples out, in training in favour of the next one
    (so a batch stays full and the same in a restart), and raises `DataError` once more than this fraction of the data set was unreadable for this
    process. `skipped` has their ids and the reasons.
    """

    def __init__(
        self, *, dataset: Dataset, transforms: Sequence[Transform] = (), batch_size: int, seed: int = 0, workers: int = 0, training: bool = True,
        rank: int = 0, world_size: int = 1, accumulate: int = 1, sampler: Sampler | None = None, size_divisor: int = 1,
        batch_transforms: Sequence[BatchTransform] = (), unreadable: Literal["raise"] | float = "raise",
    ) -> None:
        if unreadable != "raise" and not 0 <= unreadable <= 1:
            raise InputError(f"`unreadable` is \"raise\" or a fraction in 0..1 of samples that may be skipped; it is {unreadable!r}")
        if min(batch_size, size_divisor) < 1 or workers < 0:
            raise InputError(f"batch_size and size_divisor must be positive and workers not negative; got {batch_size}, {size_divisor}, {workers}")
        if not training and (batch_transforms or sampler is not None or accumulate != 1):
            raise InputError("batch transforms, samplers and accumulation are for training")
        self.dataset, self.batch_size, self.training = dataset, batch_size, training
        self.skipped: dict[str, str] = {}
        self._unreadable = unreadable
        self._works: _TrainingWorks | _EvaluationWorks
        if training:
            order = (sampler or Shuffled()).order(dataset, batch_size // accumulate)
            self._works = _TrainingWorks(Stream(order, seed=seed, batch_size=batch_size, world_size=world_size, accumulate=accumulate), rank)
        else:
            self._works = _EvaluationWorks(evaluation_order(dataset, rank, world_size), batch_size)
        settings = _Settings(seed, training, size_divisor, unreadable, workers > 0)
        self._maker = _Maker(dataset, list(transforms), list(batch_transforms), settings)
        self._processes: DataLoader | None = self._start(workers) if workers else None

    def _start(self, workers: int) -> DataLoader:
        """torch's loader over the works; its worker processes start with the first batch asked for, and stay."""
        return DataLoader(
            self._maker, sampler=self._works, batch_size=None, collate_fn=_as_it_is, num_workers=workers, persistent_workers=True,
            pin_memory=torch.cuda.is_available(), worker_init_fn=_leave_interrupts_to_the_main_process,
        )

    def __len__(self) -> int:
        """Training: steps a pass over the data takes (the last one reaches into the next pass). Evaluation: batches of this process."""
        return len(self._works)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """Training: the batches from global step `start_step` on, without end. Evaluation: from the batch of that number on, once."""
        self._works.start = start_step
        works = iter(self._works)
        made = (self._maker[work] for work in works) if self._processes is None else self._from_workers(self._processes)
        try:
            for value in made:
                result = unpack(value) if isinstance(value, Parcel) else value
                if result.error is not None:
                    raise result.error
                self._note(result.unreadable)
                if result.batch is not None:
                    yield result.batch
        except (SaccadeError, *_DEFECTS):
            self.close()
            raise

    def close(self) -> None:
        """End the worker processes now; asking for batches again starts new ones.

        They also end with the loader; but one that a traceback or another circle keeps alive may go in an order in which each worker is waited for.
        """
        iterator = None if self._processes is None else self._processes._iterator
        if self._processes is not None and iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]
            self._processes._iterator = None

    def _from_workers(self, processes: DataLoader) -> Iterator[Parcel]:
        with deaths_of_workers(self.dataset.name):
            yield from processes

    def _note(self, unreadable: Sequence[tuple[str, str]]) -> None:
        for item, reason in unreadable:
            if item not in self.skipped:
                self.skipped[item] = reason
                _log.warning("skipped %s of %s: %s", item, self.dataset.name, reason)
        allowed = 1.0 if self._unreadable == "raise" else float(self._unreadable)
        if len(self.skipped) > allowed * len(self.dataset):
            listed = ", ".join(list(self.skipped)[:5]) + (", ..." if len(self.skipped) > 5 else "")
            raise DataError(
                f"{len(self.skipped)} of {len(self.dataset)} samples of {self.dataset.name} can't be read, more than the allowed fraction "
                f"{allowed:g} (data.unreadable): {listed}. The last reason: {list(self.skipped.values())[-1]}"
            )


@contextmanager
def deaths_of_workers(data: str = "data") -> Iterator[None]:
    """Turns what torch raises when a loading process was killed into DataError. It raises that in the main thread wherever it stands at that moment,
    so what goes on between two batches belongs into such a block as well."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise DataError(
            f"a process that loads {data} was ended from outside ({str(error).splitlines()[0]}); most often the memory did not suffice, so try fewer "
            "workers or smaller images, or workers: 0 to see an error of a library directly"
        ) from error


def _as_it_is(value: Any) -> Any:
    return value


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    # Ctrl-C goes to all processes of a terminal; workers go on, so that the main process can finish its step and save.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
