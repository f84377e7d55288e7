"""What a data set is."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from saccade.structures import Annotations, Sample


@dataclass(frozen=True)
class Video:
    """One video of a data set: its name and the indices of its frames, in order."""

    name: str
    frames: tuple[int, ...]
    frame_rate: float | None = None


@runtime_checkable
class Dataset(Protocol):
    """A sequence of samples with class names. `__getitem__` decodes the image and applies no transform; it is a pure function of the index.

    `annotations(i)` gives what is known about sample i without decoding its image (for statistics, samplers and evaluation); `item_id(i)` its id or
    file, for messages; `videos` is empty for still images.
    """

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def videos(self) -> Sequence[Video]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...
    def annotations(self, index: int) -> Annotations: ...
    def item_id(self, index: int) -> str: ...
    def describe(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Problem:
    """Something wrong in a data set: the file, the sample or annotation id, what it is, and whether the reader leaves the item out or keeps it."""

    file: str
    where: str
    what: str
    consequence: str = field(default="kept")
