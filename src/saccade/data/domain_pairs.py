"""Two streams of batches side by side: images of the target domain, and with each batch, as `batch.source`, labelled ones of the source domain.

Each stream is that of a `Loader` of its own, a function of its seed and the global step alone, so everything that holds for one holds for the pair:
workers, restarts and the number of processes change nothing.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from saccade.data.contract import Dataset
from saccade.data.loading import Loader
from saccade.structures import Batch

_SOURCE = "source: "  # before the ids of unreadable samples of the source, which may be those of the target


class DomainPairs:
    """The training batches of `target`, each with the batch of `source` of the same step and part; both loaders have the same number of parts.

    A pass is one over the target. `skipped` has what could not be read in either, the source's ids with "source: " before them.
    """

    def __init__(self, target: Loader, source: Loader) -> None:
        self._target, self._source = target, source

    @property
    def dataset(self) -> Dataset:
        """The images of the target domain."""
        return self._target.dataset

    @property
    def source(self) -> Dataset:
        """The images of the source domain."""
        return self._source.dataset

    @property
    def skipped(self) -> dict[str, str]:
        """The ids of unreadable samples with the reasons."""
        return {**self._target.skipped, **{_SOURCE + item: reason for item, reason in self._source.skipped.items()}}

    @skipped.setter
    def skipped(self, items: Mapping[str, str]) -> None:
        self._target.skipped = {item: reason for item, reason in items.items() if not item.startswith(_SOURCE)}
        self._source.skipped = {item.removeprefix(_SOURCE): reason for item, reason in items.items() if item.startswith(_SOURCE)}

    def __len__(self) -> int:
        """Steps that a pass over the target takes."""
        return len(self._target)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """The batches from global step `start_step` on, without end."""
        try:
            for target, source in zip(self._target.batches(start_step), self._source.batches(start_step), strict=True):
                yield replace(target, source=source)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """End the worker processes of both now; asking for batches again starts new ones."""
        self._target.close()
        self._source.close()
