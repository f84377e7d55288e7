"""The slow copy of a network that follows another: exponential moving averages for teachers.

teacher = (1 - s) teacher + s student after a step, s the student's share. One multi-tensor call an update, whatever the size of the network.
The rule of DARTH (`darth/core/hooks/ema.py`, after mmcv's EMAHook) is min(momentum ** interval, (1 + t) / (warm_up + t)). Its warm-up never binds at
DARTH's own numbers, since (1 + t) / (100 + t) is at least 0.01 and the momentum 0.002, and the power makes the share of a longer interval smaller
instead of larger (tracking.md 8.5, 12.1 d). Here the warm-up slows the first steps down, as it is documented there, and an interval moves as far as
its single steps would have; `reference_quirks` gives the published rule.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from saccade.errors import InputError
from saccade.structures.ranges import NonNegativeInt, PositiveInt, Probability


def _always(name: str) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class MovingAverage:
    """How a teacher follows its student.

    `momentum` is the student's share in the update of one step (0: the teacher stays as it is); over the first `warm_up` steps it grows linearly to
    that. `mean_first`: the teacher begins as the plain mean of its students so far, until that moves by less than `momentum` (mean teachers, DACS);
    so it does not stay behind a student that begins untrained. `interval`: steps between updates. `follows` says which buffers with fractions are
    averaged, by name; the others of the teacher, and whole numbers, stay as they are. `buffers`: "copy" takes them over as they are in the student
    (ProDA's code). `reference_quirks`: see the module.
    """

    momentum: Probability
    interval: PositiveInt = 1
    warm_up: NonNegativeInt = 0
    mean_first: bool = False
    buffers: Literal["average", "copy"] = "average"
    reference_quirks: bool = False
    follows: Callable[[str], bool] = field(default=_always)

    def __post_init__(self) -> None:
        if self.mean_first and (self.warm_up or self.reference_quirks):
            raise InputError("a teacher with `mean_first` moves fastest at first, one with `warm_up` or `reference_quirks` slowest; give one of them")

    def share(self, step: int) -> float:
        """The student's share in the update at `step` (0-based)."""
        if self.reference_quirks:
            return min(self.momentum**self.interval, (1 + step) / (self.warm_up + step) if self.warm_up + step else 1.0)
        if self.mean_first:
            return max(1 / (1 + step // self.interval), 1.0 - (1.0 - self.momentum) ** self.interval)
        warmth = min(1.0, (1 + step) / self.warm_up) if self.warm_up else 1.0
        return 1.0 - (1.0 - self.momentum * warmth) ** self.interval

    @torch.no_grad()
    def update(self, teacher: nn.Module, student: nn.Module, step: int) -> None:
        """Move `teacher` towards `student` after optimiser step `step` (0-based); nothing happens between the intervals."""
        share = self.share(step)
        if step % self.interval or share == 0:
            return
        buffers = {n: b for n, b in student.named_buffers() if self.follows(n) and b.is_floating_point()}
        theirs = dict(student.named_parameters()) | (buffers if self.buffers == "average" else {})
        own = dict(teacher.named_parameters()) | dict(teacher.named_buffers())
        torch._foreach_lerp_([own[n] for n in theirs], [value.detach() for value in theirs.values()], share)
        if self.buffers == "copy":
            torch._foreach_copy_([own[n] for n in buffers], list(buffers.values()))
