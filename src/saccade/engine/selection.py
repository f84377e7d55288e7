"""By what a run that adapts keeps its best checkpoint: labels of the target make its figures look better than a user without labels can have them.

Three rules: `run.best: null`, the last checkpoint; a figure that needs no labels (`metrics.unlabelled`); and a figure on labelled data, as the
published methods have it (best snapshot on the validation set), which is said wherever the run is shown.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEARNER, PREFIX = "Adapting", "unlabelled/"  # as in `engine.adaptation` and `metrics.unlabelled`, which bring torch; reports do without


def selection_note(recipe: Mapping[str, Any]) -> str | None:
    """What is to be said about the choice of the best checkpoint by a run of `recipe` (its values); None where it needs no labels."""
    learner, best = recipe.get("learner"), (recipe.get("run") or {}).get("best")
    if not isinstance(learner, Mapping) or learner.get("type") != LEARNER or not isinstance(best, str):
        return None
    data, _, figure = best.partition("/")
    if figure.startswith(PREFIX):
        return None
    return (
        f"the best checkpoint is chosen by {best}, that is with labels of {data}; where that is the target domain, the last checkpoint "
        f"(run.best: null) or a figure without labels ({data}/{PREFIX}entropy) is what a user without labels has"
    )
