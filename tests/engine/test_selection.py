"""What is said about how a best checkpoint was chosen."""
from __future__ import annotations

from typing import Any

import pytest

from saccade.engine import adaptation, selection
from saccade.engine.selection import selection_note
from saccade.metrics import unlabelled

ADAPTING = {"type": "Adapting", "terms": []}


def test_a_run_that_adapts_and_chooses_by_labels_is_told_so() -> None:
    note = selection_note({"learner": ADAPTING, "run": {"best": "dusk/iou/mIoU", "steps": 10}})
    assert note is not None and "chosen by dusk/iou/mIoU" in note and "labels of dusk" in note and "dusk/unlabelled/entropy" in note


def test_names_are_those_of_the_learner_and_the_metrics() -> None:
    assert (selection.LEARNER, selection.PREFIX) == (adaptation.LEARNER, unlabelled.PREFIX)


@pytest.mark.parametrize(
    "recipe",
    [
        {"learner": ADAPTING, "run": {"best": None}},
        {"learner": ADAPTING},
        {"learner": ADAPTING, "run": {"best": "dusk/unlabelled/snd"}},
        {"learner": {"type": "Supervised"}, "run": {"best": "val/iou/mIoU"}},
        {},
    ],
)
def test_nothing_is_said_where_no_labels_of_a_target_choose(recipe: dict[str, Any]) -> None:
    assert selection_note(recipe) is None
