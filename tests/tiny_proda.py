"""All stages of ProDA in seconds: the town's recipe with few steps and small pictures."""
from __future__ import annotations

from pathlib import Path

import torch
from tiny_run import SlowSteps

from saccade.engine.progress import TrainingProgress
from saccade.engine.stages import Watching, run_stages
from saccade.recipes import Recipe, load_recipe

_COUNTS = {"source": 8, "train": 6, "evaluate.night": 2}
OVERRIDES = [
    *(f"data.{name}.{key}" for name, count in _COUNTS.items() for key in ("size=[64,96]", f"num_images={count}")),
    "learner.views.weak.transforms=[{type: RandomScaleCrop, size: [48, 72], scale: [0.75, 1.5]}, {type: RandomHorizontalFlip}]",
    "run.batch_size=2", "run.log_every=1", "run.save_every=2", "run.steps=3", "stages.stage1.run.steps=8",
]


def tiny_proda(*overrides: str) -> Recipe:
    """The recipe."""
    return load_recipe("proda_town_night", [*OVERRIDES, *overrides])


class SlowBar(TrainingProgress):
    """A bar that makes each step last, so that a kill hits the middle of a stage."""

    def __call__(self, step: int, figures: object) -> None:
        SlowSteps(0.2)(step, figures)


def proda(folder: Path, *overrides: str, slow: bool = False, resume: bool = False) -> None:
    """The run, as a process of its own would do it."""
    from rich.console import Console

    torch.set_num_threads(1)
    bar = SlowBar if slow else TrainingProgress
    watching = Watching(progress=lambda title, start, total: bar(Console(quiet=True), start, total, title))
    run_stages(tiny_proda(*overrides), folder, accelerator="cpu", watching=watching, resume=resume)
