"""The slow copy of a network that follows another: exponential moving averages for teachers.

teacher = (1 - m) teacher + m student, m = min(momentum ** interval, (1 + t) / (warm_up + t)) at step t, every `interval` steps: the rule of DARTH
(`darth/core/hooks/ema.py`) and of mmcv's EMAHook. One multi-tensor call an update, whatever the size of the network.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from saccade.structures.ranges import PositiveInt, Probability


def _always(name: str) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class MovingAverage:
    """How a teacher follows its student.

    `momentum` is the student's share in an update; at most (1 + t) / (warm_up + t) of it is taken, so that early steps move less far. `follows`
    says which buffers with fractions are averaged, by name; the others of the teacher, and whole numbers, stay as they are.
    """

    momentum: Probability
    interval: PositiveInt = 1
    warm_up: PositiveInt = 100
    follows: Callable[[str], bool] = field(default=_always)

    def share(self, step: int) -> float:
        """The student's share in the update at `step` (0-based)."""
        return min(self.momentum**self.interval, (1 + step) / (self.warm_up + step))

    @torch.no_grad()
    def update(self, teacher: nn.Module, student: nn.Module, step: int) -> None:
        """Move `teacher` towards `student` after optimiser step `step` (0-based); nothing happens between the intervals."""
        if step % self.interval:
            return
        theirs = dict(student.named_parameters()) | {n: b for n, b in student.named_buffers() if self.follows(n)}
        own = dict(teacher.named_parameters()) | dict(teacher.named_buffers())
        names = [name for name, value in theirs.items() if value.is_floating_point()]
        torch._foreach_lerp_([own[n] for n in names], [theirs[n].detach() for n in names], self.share(step))
