"""What a metric is."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

from saccade.structures import Annotations, Meta, Prediction


@runtime_checkable
class Metric(Protocol):
    """Takes predictions and truth image by image and gives figures.

    `update` may be called any number of times; `merge` adds another process's state (images are told apart by `metas`, so padding duplicates of a
    distributed run count once); `compute` gives flat figures by stable names; `details` what a report shows beyond (curves, per-class tables).
    """

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Annotations], metas: Sequence[Meta]) -> None: ...
    def merge(self, other: Self) -> None: ...
    def compute(self) -> dict[str, float]: ...
    def details(self) -> dict[str, Any]: ...
    def reset(self) -> None: ...
