"""Learning rates equal to mmcv's, in closed form and on its recorded curves."""
from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.errors import InputError
from saccade.learning.schedules import (
    Constant,
    ConstantWarmup,
    Cosine,
    Exponential,
    ExponentialWarmup,
    LinearWarmup,
    MultiStep,
    Poly,
    Schedule,
    Step,
)

HERE = Path(__file__).resolve()
CASES = [HERE.parents[1] / "parity/cases/mm_schedules_sizes", HERE.parents[3] / "shared/parity/mm_schedules_sizes"]
CASE = next((case for case in CASES if case.is_dir()), None)


def schedule_of(settings: dict[str, Any]) -> Schedule:
    """mmcv's settings of a learning-rate hook as ours."""
    kinds = {"linear": LinearWarmup, "exp": ExponentialWarmup, "constant": ConstantWarmup}
    warmup = None
    if "warmup" in settings:
        by = "epoch" if settings.get("warmup_by_epoch") else "step"
        warmup = kinds[settings["warmup"]](steps=settings["warmup_iters"], ratio=settings["warmup_ratio"], by=by)
    common: dict[str, Any] = {"by": "epoch" if settings.get("by_epoch", True) else "step", "warmup": warmup}
    if settings["hook"].startswith("Step"):
        rest = {"gamma": settings.get("gamma", 0.1), "minimum": settings.get("min_lr", 0.0), **common}
        step = settings["step"]
        return Step(every=step, **rest) if isinstance(step, int) else MultiStep(milestones=step, **rest)
    if settings["hook"].startswith("Cosine"):
        return Cosine(minimum=settings.get("min_lr"), minimum_ratio=settings.get("min_lr_ratio"), **common)
    return Poly(power=settings["power"], minimum=settings["min_lr"], **common)


@pytest.mark.skipif(CASE is None, reason="the recorded curves are not here")
def test_the_curves_are_those_of_mmcv() -> None:
    assert CASE is not None
    case = json.loads((CASE / "case.json").read_text())
    golden = np.load(CASE / "golden.npz")
    settings = case["settings"]
    epochs, per_epoch = settings["epochs"], settings["iterations per epoch"]
    for name, hook in settings["schedules"].items():
        schedule = schedule_of(hook)
        curve = [schedule.lr(step, settings["base_lr"], epochs * per_epoch, per_epoch) for step in range(epochs * per_epoch)]
        np.testing.assert_allclose(curve, golden[f"lr_{name}"], rtol=1e-4, atol=2e-6, err_msg=name)


@pytest.mark.parametrize(
    "schedule, expected",
    [
        (Constant(), [1, 1, 1, 1]),
        (Step(every=2), [1, 1, 0.1, 0.1]),
        (Step(every=1, gamma=0.5, minimum=0.2), [1, 0.5, 0.25, 0.2]),
        (MultiStep(milestones=[1, 3]), [1, 0.1, 0.1, 0.01]),
        (Exponential(gamma=0.5), [1, 0.5, 0.25, 0.125]),
        (Exponential(gamma=0.5, by="epoch"), [1, 1, 0.5, 0.5]),
        (Poly(power=2), [1, (3 / 4) ** 2, (2 / 4) ** 2, (1 / 4) ** 2]),
        (Cosine(), [(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]),
        (Cosine(by="epoch", minimum=0.5), [1, 1, 0.75, 0.75]),
        (Constant(warmup=LinearWarmup(steps=4, ratio=0.0)), [0, 0.25, 0.5, 0.75]),
        (Step(every=2, warmup=ConstantWarmup(steps=3, ratio=0.5)), [0.5, 0.5, 0.05, 0.1]),
        (Constant(warmup=ExponentialWarmup(steps=2, ratio=0.01)), [0.01, 0.1, 1, 1]),
        (Constant(warmup=LinearWarmup(steps=1, ratio=0.5, by="epoch")), [0.5, 0.75, 1, 1]),
    ],
)
def test_rates_of_four_steps_in_two_epochs(schedule: Schedule, expected: list[float]) -> None:
    assert [schedule.lr(step, 1.0, 4, 2) for step in range(4)] == pytest.approx(expected)


def test_a_minimum_ratio_follows_the_rate_of_each_group() -> None:
    schedule = Cosine(minimum_ratio=0.1)
    assert schedule.lr(100, 1.0, 100, 10) == pytest.approx(0.1)
    assert schedule.lr(100, 0.2, 100, 10) == pytest.approx(0.02)


def test_milestones_that_do_not_ascend_and_two_minima_are_refused() -> None:
    with pytest.raises(InputError, match="ascend"):
        MultiStep(milestones=[3, 1])
    with pytest.raises(InputError, match="not both"):
        Cosine(minimum=0.1, minimum_ratio=0.1)


@pytest.mark.parametrize(("whole", "step", "factor"), [(250_000, 150_000, 0.438), (250_000, 120_000, 0.555), (90_000, 62_412, 0.345)])
def test_a_curve_may_be_longer_than_the_run(whole: int, step: int, factor: float) -> None:
    """Where AdaptSegNet, ADVENT and ProDA stop (segmentation_adaptation.md 12)."""
    schedule = Poly(power=0.9, total_steps=whole)
    assert schedule.lr(step, 1.0, step, 1) == pytest.approx(factor, abs=5e-4)
    assert schedule.lr(step, 1.0, step, 1) == schedule.lr(step, 1.0, whole, 1) == Poly(power=0.9).lr(step, 1.0, whole, 1)
    assert Poly(power=0.9).lr(step, 1.0, step, 1) == 0
