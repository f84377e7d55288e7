"""Learning rates as pure functions of the step: step, multi-step, exponential, poly, cosine, constant, each with an optional warm-up.

Definitions of mmcv 1.x (`mmcv/runner/hooks/lr_updater.py`), which contain those of lufficc/SSD, AdaptSegNet and ADVENT. Call
`schedule.lr(step, base_lr, total_steps, steps_per_epoch)`: nothing is kept between calls, so resuming needs nothing but the step number.

Everything counts steps (optimiser updates, from 0). With `by="epoch"` a schedule's numbers count whole passes over the data and the rate stays the
same within a pass. A warm-up multiplies the rate that the schedule gives at that step, while it lasts. Leaves out restarts and one-cycle.
"""
from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from saccade.errors import InputError
from saccade.structures.ranges import NonNegativeFloat, PositiveFloat, PositiveInt

Unit = Literal["step", "epoch"]


class Warmup(Protocol):
    """A factor for the first steps of a run."""

    def factor(self, step: int, steps_per_epoch: int) -> float: ...


class Schedule(Protocol):
    """The learning rate of a step (0-based) for a group whose rate in the recipe is `base_lr`."""

    def lr(self, step: int, base_lr: float, total_steps: int, steps_per_epoch: int) -> float: ...


@dataclass(frozen=True, kw_only=True)
class ConstantWarmup:
    """`ratio` times the rate for the first `steps` steps (or epochs)."""

    steps: PositiveInt
    ratio: PositiveFloat = 0.1
    by: Literal["step", "epoch"] = "step"

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """`ratio` while it lasts, then 1."""
        return self.ratio if step < _length(self.steps, self.by, steps_per_epoch) else 1.0


@dataclass(frozen=True, kw_only=True)
class LinearWarmup:
    """From `ratio` times the rate at step 0 in a straight line to the whole rate at step `steps` (or epoch)."""

    steps: PositiveInt
    ratio: NonNegativeFloat = 0.1
    by: Literal["step", "epoch"] = "step"

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """1 - (1 - step / steps) (1 - ratio) while it lasts, then 1."""
        left = 1 - step / _length(self.steps, self.by, steps_per_epoch)
        return 1 - left * (1 - self.ratio) if left > 0 else 1.0


@dataclass(frozen=True, kw_only=True)
class ExponentialWarmup:
    """From `ratio` times the rate at step 0 by equal factors to the whole rate at step `steps` (or epoch)."""

    steps: PositiveInt
    ratio: PositiveFloat = 0.1
    by: Literal["step", "epoch"] = "step"

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """ratio ** (1 - step / steps) while it lasts, then 1."""
        left = 1 - step / _length(self.steps, self.by, steps_per_epoch)
        return self.ratio**left if left > 0 else 1.0


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The same rate throughout (after the warm-up)."""

    warmup: Warmup | None = None

    def lr(self, step: int, base_lr: float, total_steps: int, steps_per_epoch: int) -> float:
        """The rate of `step`."""
        return base_lr * _warm(self.warmup, step, steps_per_epoch)


@dataclass(frozen=True, kw_only=True)
class Step:
    """`gamma` times the rate after every `every` steps (or epochs), never below `minimum`."""

    every: PositiveInt
    gamma: PositiveFloat = 0.1
    minimum: NonNegativeFloat = 0.0
    by: Literal["step", "epoch"] = "step"
    warmup: Warmup | None = None

    def lr(self, step: int, base_lr: float, total_steps: int, steps_per_epoch: int) -> float:
        """The rate of `step`."""
        passed = _position(step, self.by, steps_per_epoch) // self.every
        return max(base_lr * self.gamma**passed, self.minimum) * _warm(self.warmup, step, steps_per_epoch)


@dataclass(frozen=True, kw_only=True)
class MultiStep:
    """`gamma` times the rate from each of `milestones` on (steps or epochs, ascending), never below `minimum`."""

    milestones: Sequence[int]
    gamma: PositiveFloat = 0.1
    minimum: NonNegativeFloat = 0.0
    by: Literal["step", "epoch"] = "step"
    warmup: Warmup | None = None

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(self.milestones) or any(m <= 0 for m in self.milestones):
            raise InputError(f"the milestones of MultiStep must be positive and ascend; got {list(self.milestones)}")

    def lr(self, step: int, base_lr: float, total_steps: int, steps_per_epoch: int) -> float:
        """The rate of `step`."""
        passed = bisect_right(self.milestones, _position(step, self.by, steps_per_epoch))
        return max(base_lr * self.gamma**passed, self.minimum) * _warm(self.warmup, step, steps_per_epoch)


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """`gamma` times the rate at every step (or epoch)."""

    gamma: PositiveFloat
    by: Literal["step", "epoch"] = "step"
    warmup: Warmup | None = None

    def lr(self, step: int, base_lr: float, total_steps: int, steps_per_epoch: int) -> float:
        """The rate of `step`."""
        return base_lr * self.gamma ** _position(step, self.by, steps_per_epoch) * _warm(self.warmup, step, steps_per_epoch)


@dataclass(frozen=True, kw_only=True)
class Poly:
    """(1 - p) ** power (base - minimum) + minimum, p being the part of the run that is done.

    `total_steps`: how many steps the whole curve has where the run ends before it does; None is the run's own number.
    """

    power: PositiveFloat = 1.0
    minimum: NonNegativeFloat = 0.0
    total_steps: PositiveInt | None = None
    by: Literal["step", "epoch"] = "step"
    warmup: Warmup | None = None

    def lr(self, step: int, base_lr: float, total_steps: int, steps_per_epoch: int) -> float:
        """The rate of `step`."""
        left = 1 - _progress(step, self.by, self.total_steps or total_steps, steps_per_epoch)
        return (left**self.power * (base_lr - self.minimum) + self.minimum) * _warm(self.warmup, step, steps_per_epoch)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from the whole rate to the lowest: `minimum`, or `minimum_ratio` times the group's own rate."""

    minimum: NonNegativeFloat | None = None
    minimum_ratio: NonNegativeFloat | None = None
    by: Literal["step", "epoch"] = "step"
    warmup: Warmup | None = None

    def __post_init__(self) -> None:
        if self.minimum is not None and self.minimum_ratio is not None:
            raise InputError(f"Cosine takes minimum or minimum_ratio, not both; got {self.minimum} and {self.minimum_ratio}")

    def lr(self, step: int, base_lr: float, total_steps: int, steps_per_epoch: int) -> float:
        """The rate of `step`."""
        lowest = self.minimum or (self.minimum_ratio or 0.0) * base_lr
        cosine = math.cos(math.pi * _progress(step, self.by, total_steps, steps_per_epoch))
        return (lowest + 0.5 * (base_lr - lowest) * (1 + cosine)) * _warm(self.warmup, step, steps_per_epoch)


def _position(step: int, by: Unit, steps_per_epoch: int) -> int:
    return step if by == "step" else step // steps_per_epoch


def _progress(step: int, by: Unit, total_steps: int, steps_per_epoch: int) -> float:
    total = total_steps if by == "step" else math.ceil(total_steps / steps_per_epoch)
    return min(1.0, _position(step, by, steps_per_epoch) / total)


def _length(steps: int, by: Unit, steps_per_epoch: int) -> int:
    return steps if by == "step" else steps * steps_per_epoch


def _warm(warmup: Warmup | None, step: int, steps_per_epoch: int) -> float:
    return 1.0 if warmup is None else warmup.factor(step, steps_per_epoch)
