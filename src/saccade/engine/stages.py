"""A run in stages: each trains a network or does a task, in its own folder of the run folder, and later ones read what earlier ones left.

A stage that is finished is passed over when the run is resumed; one that was interrupted goes on where it was, a training bit for bit from its newest
checkpoint. What is finished must fit the recipe: where that has changed, the run is refused with the values that differ, before anything is done.
"""
from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.adaptation.adapting import Adapting
from saccade.engine.adaptation import keep_other_network
from saccade.engine.checkpoints import CARD, WEIGHTS, find_damage, folder_of, newest_valid, pointed, step_of
from saccade.engine.experiment import Experiment
from saccade.engine.files import remove_stale
from saccade.engine.launch import Accelerator, Together, failures_of_others, find_place, start_fabric
from saccade.engine.resuming import differences, listed
from saccade.engine.run_folder import RECIPE, RunFolder
from saccade.engine.settings import RunSettings
from saccade.engine.signals import Interrupted
from saccade.engine.staged_folder import mark_done, read_done
from saccade.engine.tasks import run_task, task_settings
from saccade.engine.training import ObserverFactory, Training
from saccade.errors import InputError
from saccade.recipes import Recipe, build_section, check, load_recipe, stage_recipes
from saccade.recipes.stages import read_stages, stage_trees

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from saccade.engine.progress import TrainingProgress

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One stage of a run: its name and number (from 1), its recipe with paths in place, its folder, and the stages that it reads."""

    name: str
    number: int
    total: int
    recipe: Recipe
    run: RunFolder
    reads: tuple[str, ...]

    @property
    def label(self) -> str:
        """As it is shown: "2/8 soft_labels"."""
        return f"{self.number}/{self.total} {self.name}"

    @property
    def trains(self) -> bool:
        """Whether it trains a network; else it does a task."""
        return self.recipe.section("learner") is not None

    @property
    def begun(self) -> bool:
        """Whether its folder holds anything that must be gone on with."""
        return self.run.holds_a_run

    @property
    def finished(self) -> bool:
        """Whether all of it is there: of a task every file, of a training the checkpoint of its last step (whole) and the evaluation after it."""
        done = read_done(self.run.path)
        if done is None or not self.trains:
            return done is not None
        return "step" in done and find_damage(folder_of(self.run.checkpoints, done["step"]), (WEIGHTS, CARD)) is None

    def settings(self) -> RunSettings:
        """Its `run` section."""
        settings: RunSettings = build_section(self.recipe, "run") if self.trains else task_settings(self.recipe)
        return settings


@dataclass(frozen=True)
class Watching:
    """Who looks on. `progress` makes a bar from a title, a first and a last step. `announce` is called in the first process before a training, and
    `announce_task` before a task, whose folder is there then. `observers` as for `Experiment.train`."""

    progress: Callable[[str, int, int], TrainingProgress] | None = None
    announce: Callable[[Training], object] | None = None
    announce_task: Callable[[Stage], object] | None = None
    observers: ObserverFactory | None = None


def stages_of(recipe: Recipe, folder: str | Path) -> list[Stage]:
    """The stages of `recipe` in the run folder `folder`."""
    found, trees = stage_recipes(recipe, folder), stage_trees(recipe)
    return [
        Stage(name, number, len(found), own, RunFolder(Path(folder) / name), tuple(read_stages(trees[name])))
        for number, (name, own) in enumerate(found, 1)
    ]


def check_stages(recipe: Recipe, folder: str | Path, *, resume: bool = False, allow_changes: bool = False) -> None:
    """Raise InputError for mistakes in any stage, and where the folder does not allow the run: there is one to resume, or none to resume, or what
    lies there was made by another recipe (`allow_changes` lets it stand) or from a stage that is not finished."""
    check(recipe)
    run = RunFolder(folder)
    run.check(resume)
    if run.checkpoints.is_dir():
        raise InputError(f"{run.path} holds a run without stages, which this recipe can't resume; give another folder with --out")
    stages = stages_of(recipe, folder)
    finished = {stage.name: stage.finished for stage in stages}
    for stage in stages:
        if not stage.begun:
            continue
        changes = differences(load_recipe(stage.run.path).values, stage.recipe) if (stage.run.path / RECIPE).is_file() else []
        if changes and not allow_changes:
            following = [other.name for other in stages if other.begun and stage.name in other.reads]
            beside = f" and those of the stages that read it ({', '.join(following)})" if following else ""
            raise InputError(
                f"The stage {stage.name} was {'done' if finished[stage.name] else 'begun'} with other values than the recipe has now:\n"
                f"{listed(changes)}\nUndo the changes; or remove the folder {stage.run.path}{beside} and resume, and it is done again; or let what "
                "is there stand with --allow-changes."
            )
        missing = [name for name in stage.reads if not finished[name]]
        if missing:
            raise InputError(
                f"{stage.run.path} was made from the stage {missing[0]}, which is not finished and would be done again. Remove this folder, too, and "
                "resume; or put that of the earlier stage back."
            )


def run_stages(
    recipe: Recipe, folder: str | Path, *, resume: bool = False, allow_changes: bool = False, allow_world_size_change: bool = False,
    accelerator: Accelerator = "auto", watching: Watching | None = None,
) -> RunFolder:
    """Run the stages of `recipe` in order in the run folder `folder`, in this process or as one of several; returns the folder.

    `resume` goes on with what lies there. `allow_changes` and `allow_world_size_change` as for a training; stages that are finished then stay as they
    are. Raises what `check_stages`, a training and a task raise; Interrupted tells the stage.
    """
    run, watching = RunFolder(folder), watching or Watching()
    if find_place().rank == 0:
        check_stages(recipe, folder, resume=resume, allow_changes=allow_changes)
        if resume:
            run.describe(recipe)
        else:
            run.begin(recipe, trains=False)
    permitted = {"allow_changes": allow_changes, "allow_world_size_change": allow_world_size_change, "accelerator": accelerator}
    for stage in stages_of(recipe, folder):
        with _interrupted_in(stage, run):
            _run_stage(stage, watching, permitted)
    return run


def _run_stage(stage: Stage, watching: Watching, options: dict[str, Any]) -> None:
    fabric = start_fabric(stage.settings(), options["accelerator"])
    together = Together(fabric)
    with failures_of_others(together):
        _run_together(stage, watching, options, fabric, together)


def _run_together(stage: Stage, watching: Watching, options: dict[str, Any], fabric: Fabric, together: Together) -> None:
    first = together.rank == 0
    finished, begun, fresh = together.from_first(_state(stage) if first else None)
    if finished:
        _log.info("stage %s: finished before, passed over", stage.label)
        return
    _log.info("stage %s: %s", stage.label, "goes on" if begun else "begins")
    facts = _train(stage, watching, options, begun, fresh) if stage.trains else _do_task(stage, watching, fabric, together)
    if first:
        mark_done(stage.run.path, stage.number, **facts)
    together.from_first(None)  # what this stage left is there when any process begins the next


def _state(stage: Stage) -> tuple[bool, bool, bool]:
    """Whether the stage is finished, whether it is begun, and whether no checkpoint of it is there yet. What a process that was killed while it made
    the folder has left is removed."""
    if not stage.begun:
        remove_stale(stage.run.path)
        for empty in (stage.run.checkpoints, stage.run.path):
            with suppress(OSError):
                empty.rmdir()
        stage.run.check(resume=False)
    return stage.finished, stage.begun, not stage.trains or newest_valid(stage.run.checkpoints) is None


def _do_task(stage: Stage, watching: Watching, fabric: Fabric, together: Together) -> dict[str, Any]:
    if together.rank == 0:
        stage.run.begin(stage.recipe, trains=False)
        if watching.announce_task is not None:
            watching.announce_task(stage)
    return run_task(stage.recipe, stage.run, fabric=fabric, together=together, progress=_titled(watching, f"{stage.label} image"))


def _train(stage: Stage, watching: Watching, options: dict[str, Any], begun: bool, fresh: bool) -> dict[str, Any]:
    experiment = Experiment.from_recipe(stage.recipe, load_weights=fresh)
    show = _titled(watching, f"{stage.label} step")
    experiment.train(stage.run.path, resume=begun, observers=watching.observers, announce=watching.announce, progress=show, **options)
    if find_place().rank == 0 and isinstance(experiment.learner, Adapting):
        keep_other_network(stage.run.path)
    del experiment
    gc.collect()  # networks and optimisers refer to each other in circles, and the next stage needs their memory
    last = pointed(stage.run.checkpoints, "last")
    assert last is not None, "a training that ends well has written its last checkpoint"
    return {"step": step_of(last)}


def _titled(watching: Watching, title: str) -> Callable[[int, int], TrainingProgress] | None:
    make = watching.progress
    return None if make is None else lambda start, total: make(title, start, total)


@contextmanager
def _interrupted_in(stage: Stage, run: RunFolder) -> Iterator[None]:
    """Interruptions in the block tell the stage, and the command that goes on with the run."""
    place = find_place()
    processes = f" --devices {place.devices}" if place.world_size > 1 else ""
    remedy = f"Go on with: saccade train {run.path} --resume{processes}"
    try:
        yield
    except Interrupted as asked:
        raise Interrupted(asked.signal_number, f"Stage {stage.label}: {asked.where}", remedy) from None
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT, f"Stage {stage.label}: stopped before its work began.", remedy) from None
