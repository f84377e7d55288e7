"""Tasks: what a stage does that trains nothing. One network goes over the target's images and leaves files for the stages after it.

A task is a class of the registry kind "tasks". Its stage is a folder with `recipe.yaml`, whatever the task writes and, once all of it is there,
`done.json`. An interrupted task is started again with its files in place and goes on where it was.

With several processes the first one does the task and the others wait, so that what comes out does not depend on their number. They must see the
same disk, as those that read the files afterwards do.
"""
from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from saccade.data.loading import Loader, deaths_of_workers
from saccade.data.settings import DataSettings, evaluation_loader
from saccade.engine.experiment import build_model
from saccade.engine.files import remove_stale, write_json
from saccade.engine.launch import RankFailedError, Together, failures_of_others, seed_everything
from saccade.engine.run_folder import RunFolder
from saccade.engine.settings import RunSettings
from saccade.engine.signals import Interrupted, StopRequests
from saccade.errors import InputError
from saccade.learning.layout import channels_last
from saccade.models.contract import Model
from saccade.recipes import Recipe, build_section, recipe_from_values

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from saccade.engine.progress import TrainingProgress

_WORKING, _STOPPED, _FAILED, _FINISHED = "working", "stopped", "failed", "finished"  # what the first process tells the others
_SIGN_OF_LIFE = 60.0  # seconds between two of them; a process that waits longer than the limit of a collective operation ends


class Task(Protocol):
    """One pass (or several) over images with a network that does not change."""

    def run(self, model: Model, batches: Loader, folder: Path, progress: Callable[[int], object]) -> None:
        """Write the task's files into `folder`, which exists.

        `model` is on the run's device and in evaluation mode, gradients are off. `batches.batches()` gives the images of `data.train` once, in order,
        after `data.evaluation_transforms`, on the CPU; `batches.dataset` is the data set. Files are written whole or not at all (`atomic_write`);
        those that are there from an interrupted run are kept. `progress` is called after each batch with the number of images done so far in all, and
        raises where the run was asked to stop. It runs in the first process alone: what it leaves does not depend on how many there are.
        """


def task_settings(recipe: Recipe) -> RunSettings:
    """The `run` section of a stage with a task, which has no steps: of it `batch_size`, `precision` and `seed` count."""
    section = {"batch_size": 1, **(recipe.section("run") or {})}
    if section.get("steps") is None and section.get("epochs") is None:
        section["steps"] = 1
    settings: RunSettings = build_section(recipe_from_values({"run": section}, recipe.name, recipe.source), "run")
    return settings


def run_task(
    recipe: Recipe, run: RunFolder, *, fabric: Fabric, together: Together, progress: Callable[[int, int], TrainingProgress] | None = None
) -> dict[str, Any]:
    """Do the task of `recipe` in the folder of `run`; returns facts for `done.json`, in every process.

    `progress` makes a bar from 0 to the number of images. Raises Interrupted after a signal, once the batch in progress is done; RankFailedError in
    the processes that wait for one that failed; and whatever the task raises.
    """
    with StopRequests() as stop, failures_of_others(together):
        if together.rank > 0:
            return _wait(together, stop)
        told: tuple[str, dict[str, Any]] = (_FAILED, {})
        try:
            told = (_FINISHED, _work(recipe, run, fabric, _Progress(together, stop, progress)))
        except Interrupted:
            told = (_STOPPED, {})
            raise
        finally:
            together.from_first(told)
        return told[1]


def _wait(together: Together, stop: StopRequests) -> dict[str, Any]:
    state, facts = together.from_first(None)
    while state == _WORKING:
        state, facts = together.from_first(None)
    if state == _STOPPED:
        raise Interrupted(stop.signal_number or signal.SIGTERM, "Stopped while the first process was at its task.")
    if state == _FAILED:
        raise RankFailedError(f"Process {together.rank} stops because the task failed in the first one.")
    found: dict[str, Any] = facts
    return found


class _Progress:
    """What a task calls after each batch: moves the bar, gives the waiting processes a sign of life, and ends a task that is asked to stop."""

    def __init__(self, together: Together, stop: StopRequests, make: Callable[[int, int], TrainingProgress] | None) -> None:
        self.together, self.stop, self.make = together, stop, make
        self._bar: TrainingProgress | None = None
        self._next = time.monotonic() + _SIGN_OF_LIFE
        self.total = 0

    def over(self, total: int) -> AbstractContextManager[object]:
        """The bar, for so many images, as a block."""
        self.total = total
        self._bar = None if self.make is None else self.make(0, total)
        return nullcontext() if self._bar is None else self._bar

    def __call__(self, images: int) -> None:
        if self._bar is not None:
            self._bar(min(images, self.total), {})
        if time.monotonic() >= self._next:
            self.together.from_first((_WORKING, {}))
            self._next = time.monotonic() + _SIGN_OF_LIFE
        if self.stop.signal_number:
            raise Interrupted(self.stop.signal_number, f"Stopped at {images:,} of {self.total:,} images; what is written is kept.")


def _work(recipe: Recipe, run: RunFolder, fabric: Fabric, progress: _Progress) -> dict[str, Any]:
    settings = task_settings(recipe)
    seed_everything(settings.seed)
    data: DataSettings = build_section(recipe, "data")
    if data.train is None:
        raise InputError(f"the stage {recipe.name} has a task, which goes over data.train; name a data set there")
    task: Task = build_section(recipe, "task", classes=tuple(data.classes), num_classes=len(data.classes))
    model = build_model(recipe, data.classes, things=data.things)
    channels_last(model.to(fabric.device)).eval().requires_grad_(False)
    _remove_stale_files(run.path)
    loader = evaluation_loader(data, data.train, batch_size=settings.batch_size, seed=settings.seed)
    precision: AbstractContextManager[Any] = fabric.strategy.precision.forward_context()
    try:
        with deaths_of_workers(data.train.name), progress.over(len(data.train)), torch.inference_mode(), precision:
            task.run(model, loader, run.path, progress)
    finally:
        loader.close()
    if loader.skipped:
        write_json(run.skipped, loader.skipped)
    return {"images": len(data.train), "skipped": len(loader.skipped)}


def _remove_stale_files(folder: Path) -> None:
    """What interrupted writes left, at any depth: a task may write into folders of its own."""
    remove_stale(folder)
    for below in [path for path in folder.rglob("*") if path.is_dir()]:
        remove_stale(below)
