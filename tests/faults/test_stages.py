"""Runs in stages that are killed, and that have several processes."""
from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from tiny_run import SlowSteps, end, in_process, in_ranks, kill, losses, records, same, stale_files, wait_until, weights

from saccade.engine.progress import TrainingProgress
from saccade.engine.staged_folder import read_done
from saccade.engine.stages import Watching, run_stages
from saccade.recipes import load_recipe
from saccade.recipes.registry import add_plugin
from tiny_stages import RECIPE


class SlowBar(TrainingProgress):
    """A bar that makes each step last, so that a kill hits the middle of a stage."""

    def __call__(self, step: int, figures: object) -> None:
        SlowSteps(0.05)(step, figures)


def stages(folder: Path, *overrides: str, slow: bool = False, **options: bool) -> None:
    """The run of seconds, as a process of its own would do it."""
    from rich.console import Console

    torch.set_num_threads(1)
    add_plugin("tiny_stages")
    (folder.parent / "tiny.yaml").write_text(RECIPE)
    bar = SlowBar if slow else TrainingProgress
    watching = Watching(progress=lambda title, start, total: bar(Console(quiet=True), start, total, title))
    run_stages(load_recipe(folder.parent / "tiny.yaml", overrides), folder, accelerator="cpu", watching=watching, **options)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert end([in_process(stages, folder)]) == [0]
    return folder


def test_a_run_killed_in_a_task_and_in_a_later_training_ends_with_the_weights_of_one_that_was_not(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    pause = "stages.labels.task.pause=0.05"
    process = in_process(stages, folder, pause)
    wait_until(lambda: len(list((folder / "labels").glob("classes/*.json"))) >= 5, process)
    kill(process)
    kept = {file.name: file.stat().st_mtime_ns for file in (folder / "labels" / "classes").glob("*.json")}
    assert 5 <= len(kept) < 16 and read_done(folder / "labels") is None and not (folder / "second").exists()
    trained = weights(folder / "first")

    process = in_process(stages, folder, pause, slow=True, resume=True)
    wait_until(lambda: max(losses(folder / "second"), default=0) == 5, process)
    time.sleep(0.02)
    kill(process)
    assert read_done(folder / "second") is None and json.loads((folder / "labels" / "written.json").read_text()) == 16 - len(kept)

    assert end([in_process(stages, folder, pause, resume=True)]) == [0]
    assert [r["step"] for r in records(folder / "second", "resume")] == [4]
    assert {name: (folder / "labels" / "classes" / name).stat().st_mtime_ns for name in kept} == kept
    assert same(weights(folder / "first"), trained) and same(weights(folder / "second"), weights(uninterrupted / "second"))
    assert losses(folder / "second") == losses(uninterrupted / "second") and not stale_files(folder)


def test_with_two_processes_the_first_does_the_tasks_and_both_train(uninterrupted: Path, tmp_path: Path) -> None:
    assert end(in_ranks(stages, tmp_path / "run")) == [0, 0]
    assert [read_done(tmp_path / "run" / name) for name in ("first", "labels", "second")] == [
        read_done(uninterrupted / name) for name in ("first", "labels", "second")]
    assert json.loads((tmp_path / "run" / "labels" / "written.json").read_text()) == 16
    assert end(in_ranks(stages, tmp_path / "run", resume=True)) == [0, 0]
