"""Tasks: what a stage does that trains nothing. One network goes over the target's images and leaves files for the stages after it.

A task is a class of the registry kind "tasks". Its stage is a folder with `recipe.yaml`, whatever the task writes and, once all of it is there,
`done.json`. An interrupted task is started again with its files in place and goes on where it was.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from saccade.data.loading import Loader
from saccade.models.contract import Model


class Task(Protocol):
    """One pass (or several) over images with a network that does not change."""

    def run(self, model: Model, batches: Loader, folder: Path, progress: Callable[[int], object]) -> None:
        """Write the task's files into `folder`, which exists.

        `model` is on the run's device and in evaluation mode, gradients are off. `batches.batches()` gives the images of `data.train` once, in order,
        after `data.evaluation_transforms`, on the CPU; `batches.dataset` is the data set. Files are written whole or not at all (`atomic_write`);
        those that are there from an interrupted run are kept. `progress` is called after each batch with the number of images done so far in all, and
        raises where the run was asked to stop. It runs in the first process alone: what it leaves does not depend on how many there are.
        """
