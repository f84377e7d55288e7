"""The `run:` section of a recipe: how long, how much at a time, what is kept and recorded."""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from saccade.engine.loggers import Logger
from saccade.errors import InputError
from saccade.structures.ranges import NonNegativeInt, PositiveInt

_EPOCHS = re.compile(r"(\d+) epochs?")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Everything is counted in steps (optimiser updates); `steps` or `epochs` says how long the run is.

    `batch_size`: images of one step, in total over all processes and accumulated parts. `accumulate`: parts of one step, to save memory.
    `evaluate_every` and `save_every`: a number of steps, or text such as "1 epoch"; None: only at the end. `keep_last`: how many checkpoints stay
    beside the best one. `best`: the figure that decides which checkpoint is the best, e.g. "val/coco/AP" ("val/unlabelled/entropy", with `best_is`
    lowest, needs no labels); None: there is no best one, and the last is taken. `best_is` says which values of the figure are good.
    `precision`: bf16 and fp16 are mixed (weights stay fp32). `strategy` for several processes: ddp copies the model, fsdp spreads it.
    `find_unused_parameters`: ddp then expects parameters without gradient. `strict_storage`: end the run when a checkpoint can't be written, instead
    of going on to the next. `deterministic`: only algorithms whose results repeat exactly on an accelerator.
    """

    batch_size: PositiveInt
    steps: PositiveInt | None = None
    epochs: PositiveInt | None = None
    evaluate_every: PositiveInt | str | None = None
    save_every: PositiveInt | str | None = None
    keep_last: PositiveInt = 2
    best: str | None = None
    best_is: Literal["highest", "lowest"] = "highest"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: PositiveInt = 1
    seed: NonNegativeInt = 0
    log_every: PositiveInt = 10
    loggers: Sequence[Logger] = field(default_factory=tuple)
    strategy: Literal["ddp", "fsdp"] = "ddp"
    find_unused_parameters: bool = False
    strict_storage: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise InputError(f"run: give steps or epochs, and only one of them; got steps {self.steps} and epochs {self.epochs}")
        if self.batch_size % self.accumulate:
            raise InputError(f"run.batch_size {self.batch_size} is the total of a step and must be a multiple of accumulate ({self.accumulate})")
        for name in ("evaluate_every", "save_every"):
            _interval(name, getattr(self, name), 1)

    def total_steps(self, steps_per_epoch: int) -> int:
        """The length of the run."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * steps_per_epoch

    def evaluation_interval(self, steps_per_epoch: int) -> int | None:
        """Steps between evaluations; None: only at the end."""
        return _interval("evaluate_every", self.evaluate_every, steps_per_epoch)

    def save_interval(self, steps_per_epoch: int) -> int | None:
        """Steps between checkpoints; None: only at the end."""
        return _interval("save_every", self.save_every, steps_per_epoch)

    def is_better(self, score: float, than: float | None) -> bool:
        """Whether `score` of the figure `best` beats the best so far (None: there is none)."""
        if score != score:  # nan, e.g. a figure of a class that does not occur
            return False
        return than is None or (score > than if self.best_is == "highest" else score < than)


def _interval(name: str, value: int | str | None, steps_per_epoch: int) -> int | None:
    if value is None or isinstance(value, int):
        return value
    match = _EPOCHS.fullmatch(value.strip())
    if match is None or int(match[1]) == 0:
        raise InputError(f"run.{name} is a number of steps, or text such as \"1 epoch\" or \"5 epochs\"; got {value!r}")
    return int(match[1]) * steps_per_epoch
