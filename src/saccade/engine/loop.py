"""The loop of every run, to be read aloud: fetch, step, record, save, evaluate.

It does not know what is learned, where records go or how checkpoints look. Callbacks are a plain list, run after each step in the order written.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from saccade.learning.contract import Learner
from saccade.structures import Batch

Callback = Callable[[int, Mapping[str, float]], object]


class StopAskedError(Exception):
    """The run was asked to stop, and its checkpoint is written."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(step, signal_number)
        self.step, self.signal_number = step, signal_number


@dataclass(frozen=True)
class Plan:
    """When things happen, in steps done: the run goes from `start` to `total`; None stands for "only at the end"."""

    start: int
    total: int
    log_every: int
    save_every: int | None
    evaluate_every: int | None

    def logs(self, step: int) -> bool:
        """Whether figures are recorded after `step`."""
        return step % self.log_every == 0 or step == self.total or step == 1

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is written after `step`."""
        return step == self.total or (self.save_every is not None and step % self.save_every == 0)

    def evaluates(self, step: int) -> bool:
        """Whether the model is evaluated after `step`."""
        return step == self.total or (self.evaluate_every is not None and step % self.evaluate_every == 0)


def run_steps(
    plan: Plan, learner: Learner, *, fetch: Callable[[], Sequence[Batch]], record: Callback, save: Callable[[int], object],
    evaluate: Callable[[int], object], stop_signal: Callable[[], int], callbacks: Sequence[Callback] = (),
) -> None:
    """Train from step `plan.start` to `plan.total`.

    `stop_signal` gives the number of a signal that asked the run to stop, the same in every process, or 0; the run then ends with StopAskedError
    after a checkpoint.
    """
    for step in range(plan.start + 1, plan.total + 1):
        parts = fetch()
        figures = learner.step(*parts)  # raises before the update when a number is not finite
        if plan.logs(step):
            record(step, figures)
        signal_number = stop_signal()
        if signal_number or plan.saves(step):
            save(step)
        if signal_number:
            raise StopAskedError(step, signal_number)
        if plan.evaluates(step):
            evaluate(step)
        for callback in callbacks:
            callback(step, figures)
