"""The loop does things in its written order, at their steps."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from saccade.engine.loop import Plan, StopAskedError, run_steps
from saccade.learning.contract import Learner


class Written:
    """Writes down what is called."""

    def __init__(self, stop_at: int = 0) -> None:
        self.lines: list[str] = []
        self.stop_at, self.done = stop_at, 0

    def fetch(self) -> list[Any]:
        self.lines.append("fetch")
        return []

    def step(self, *parts: Any) -> dict[str, float]:
        self.done += 1
        self.lines.append(f"step {self.done}")
        return {"loss": 0.0}

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        self.lines.append(f"record {step}")

    def save(self, step: int) -> None:
        self.lines.append(f"save {step}")

    def evaluate(self, step: int) -> None:
        self.lines.append(f"evaluate {step}")

    def stop_signal(self) -> int:
        return 15 if self.done == self.stop_at else 0

    def run(self, plan: Plan) -> list[str]:
        run_steps(
            plan, cast(Learner, self), fetch=self.fetch, record=self.record, save=self.save, evaluate=self.evaluate, stop_signal=self.stop_signal,
            callbacks=[lambda step, figures: self.lines.append(f"callback {step}")],
        )
        return self.lines


def test_fetch_step_record_save_evaluate_in_that_order() -> None:
    assert Written().run(Plan(0, 2, log_every=1, save_every=1, evaluate_every=1)) == [
        "fetch", "step 1", "record 1", "save 1", "evaluate 1", "callback 1", "fetch", "step 2", "record 2", "save 2", "evaluate 2", "callback 2"]


def test_the_end_is_saved_and_evaluated_whatever_the_intervals() -> None:
    lines = Written().run(Plan(0, 5, log_every=2, save_every=None, evaluate_every=3))
    assert [line for line in lines if line.startswith(("record", "save", "evaluate"))] == [
        "record 1", "record 2", "evaluate 3", "record 4", "record 5", "save 5", "evaluate 5"]


def test_a_request_to_stop_saves_once_and_ends() -> None:
    written = Written(stop_at=3)
    with pytest.raises(StopAskedError) as stopped:
        written.run(Plan(0, 9, log_every=10, save_every=None, evaluate_every=3))
    assert (stopped.value.step, stopped.value.signal_number) == (3, 15)
    assert written.lines[-2:] == ["step 3", "save 3"]
