"""The `run:` section."""
from __future__ import annotations

import math
from typing import Any

import pytest

from saccade.engine.settings import RunSettings
from saccade.errors import InputError


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({}, "steps or epochs"),
        ({"steps": 1, "epochs": 1}, "steps or epochs"),
        ({"steps": 1, "accumulate": 3}, "multiple of accumulate"),
        ({"steps": 1, "evaluate_every": "often"}, "evaluate_every"),
        ({"steps": 1, "save_every": "0 epochs"}, "save_every"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunSettings(batch_size=8, **wrong)


def test_epochs_are_derived() -> None:
    settings = RunSettings(batch_size=8, epochs=3, evaluate_every="1 epoch", save_every="2 epochs")
    assert settings.total_steps(25) == 75
    assert settings.evaluation_interval(25) == 25 and settings.save_interval(25) == 50
    assert RunSettings(batch_size=8, steps=10, save_every=4).save_interval(25) == 4
    assert RunSettings(batch_size=8, steps=10).save_interval(25) is None


def test_the_best_score_is_the_highest_or_lowest_and_never_undefined() -> None:
    highest, lowest = RunSettings(batch_size=1, steps=1), RunSettings(batch_size=1, steps=1, best_is="lowest")
    assert highest.is_better(0.2, None) and highest.is_better(0.3, 0.2) and not highest.is_better(0.2, 0.2)
    assert lowest.is_better(0.1, 0.2) and not lowest.is_better(0.3, 0.2)
    assert not highest.is_better(math.nan, None)
