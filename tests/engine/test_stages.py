"""Runs in stages: in order, each from what earlier ones left; what is finished stays, what is not goes on, and what no longer fits is refused."""
from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from tiny_run import records, same, weights

from saccade.engine.checkpoints import find_checkpoint, load_model, load_tensors
from saccade.engine.progress import TrainingProgress
from saccade.engine.signals import Interrupted
from saccade.engine.staged_folder import read_done
from saccade.engine.stages import Watching, run_stages
from saccade.errors import InputError
from saccade.recipes import Recipe, load_recipe
from saccade.recipes.registry import TABLE
from tiny_stages import RECIPE


@pytest.fixture(autouse=True)
def _plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, "tasks", {"Write": "tiny_stages:Write"})


def recipe(folder: Path, *overrides: str) -> Recipe:
    """The recipe of seconds."""
    (folder / "tiny.yaml").write_text(RECIPE)
    return load_recipe(folder / "tiny.yaml", overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TABLE, "tasks", {"Write": "tiny_stages:Write"})
        run_stages(recipe(folder), folder / "run", accelerator="cpu")
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, in another place."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def resume(run: Path, *overrides: str, **options: bool) -> None:
    run_stages(recipe(run.parent, *overrides), run, resume=True, accelerator="cpu", **options)


def state(run: Path) -> dict[str, int]:
    """When each file below the stages was written."""
    return {str(file.relative_to(run)): file.stat().st_mtime_ns for file in run.glob("*/**/*") if file.is_file()}


def test_stages_run_in_order_each_from_what_earlier_ones_left(finished: Path) -> None:
    assert [read_done(finished / name) for name in ("first", "labels", "second")] == [
        {"stage": 1, "step": 2}, {"stage": 2, "images": 16, "skipped": 0}, {"stage": 3, "step": 6}]
    times = [(finished / name / "done.json").stat().st_mtime_ns for name in ("first", "labels", "second")]
    assert times == sorted(times)
    assert len(list((finished / "labels" / "classes").iterdir())) == 16 and not (finished / "labels" / "checkpoints").exists()
    assert "stage:first" in (finished / "recipe.yaml").read_text()
    assert load_recipe(finished / "second").section("weights") == {"source": str(finished / "first")}
    assert [r["step"] for r in records(finished / "second", "evaluation")] == [6]


def test_a_run_in_stages_stands_for_the_last_network_that_was_trained(finished: Path) -> None:
    assert same(load_tensors(find_checkpoint(finished)), weights(finished / "second"))
    assert load_model(finished).classes == load_model(finished / "second").classes


def test_what_is_finished_is_left_alone_wherever_the_run_lies_now(run: Path) -> None:
    before = state(run)
    resume(run)
    resume(run, "data.workers=1", "run.save_every=1")  # what may differ
    assert state(run) == before


def test_a_stage_that_is_added_runs_alone(run: Path) -> None:
    before = state(run)
    (run.parent / "more.yaml").write_text("base: [tiny.yaml]\nstages: {third: {weights: {source: 'stage:second'}, run: {steps: 1}}}\n")
    recipe(run.parent)
    run_stages(load_recipe(run.parent / "more.yaml"), run, resume=True, accelerator="cpu")
    assert read_done(run / "third") == {"stage": 4, "step": 1} and before.items() <= state(run).items()


def test_a_task_keeps_the_files_that_are_whole(run: Path) -> None:
    files = sorted((run / "labels" / "classes").iterdir())
    content = [file.read_text() for file in files]
    for file in files[3:8]:
        file.unlink()
    (run / "labels" / "done.json").unlink()
    (run / "labels" / "classes" / ".x.json.1.saccade-tmp").write_text("half")
    shutil.rmtree(run / "second")
    resume(run)
    assert sorted((run / "labels" / "classes").iterdir()) == files and [file.read_text() for file in files] == content
    assert json.loads((run / "labels" / "written.json").read_text()) == 5


class StopAtOnce(TrainingProgress):
    """A bar that asks for an end when it is first moved."""

    def __call__(self, step: int, figures: object) -> None:
        if step > self.start:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "stops_in, words", [("labels", "Stage 2/3 labels: Stopped at 8 of 16 images"), ("second", "Stage 3/3 second: Stopped at step 2 of 6")]
)
def test_a_signal_ends_the_stage_in_progress_and_tells_how_to_go_on(run: Path, finished: Path, stops_in: str, words: str) -> None:
    from rich.console import Console

    for name in ("labels", "second"):
        shutil.rmtree(run / name)

    def progress(title: str, start: int, total: int) -> TrainingProgress:
        kind = StopAtOnce if stops_in in title else TrainingProgress
        return kind(Console(quiet=True), start, total, title)

    with pytest.raises(Interrupted) as stopped:
        run_stages(recipe(run.parent), run, resume=True, accelerator="cpu", watching=Watching(progress=progress))
    assert stopped.value.exit_code == 143
    assert words in str(stopped.value) and str(stopped.value).endswith(f"Go on with: saccade train {run} --resume")
    assert read_done(run / stops_in) is None
    resume(run)
    assert same(weights(run / "second"), weights(finished / "second"))
    assert len(list((run / "labels" / "classes").iterdir())) == 16


def test_a_training_that_was_killed_before_its_first_checkpoint_begins_with_its_weights_again(run: Path, finished: Path) -> None:
    shutil.rmtree(run / "second")
    (run / "second" / "checkpoints").mkdir(parents=True)  # killed while its folder was made
    resume(run)
    assert same(weights(run / "second"), weights(finished / "second"))
    shutil.rmtree(run / "second" / "checkpoints")
    (run / "second" / "done.json").unlink()
    resume(run)
    assert same(weights(run / "second"), weights(finished / "second"))


def test_a_finished_stage_whose_recipe_has_changed_is_refused_with_the_values_and_the_remedy(run: Path) -> None:
    before = state(run)
    with pytest.raises(InputError) as refused:
        resume(run, "stages.first.learner.optimizer.lr=0.1", "stages.second.run.steps=7")
    for words in ("The stage first was done with other values", "optimizer.lr: 0.002 -> 0.1  (command line)", "(labels, second)", "--allow-changes"):
        assert words in str(refused.value)
    with pytest.raises(InputError, match=r"run\.steps: 6 -> 7"):
        resume(run, "stages.second.run.steps=7")
    assert state(run) == before
    resume(run, "stages.first.learner.optimizer.lr=0.1", allow_changes=True)
    assert state(run) == before


def test_what_was_made_from_a_stage_that_is_gone_or_damaged_is_refused(run: Path) -> None:
    (run / "first" / "checkpoints" / "step_00000002" / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="labels was made from the stage first, which is not finished"):
        resume(run)
    shutil.rmtree(run / "labels")
    shutil.rmtree(run / "first")
    with pytest.raises(InputError, match="second was made from the stage first"):
        resume(run)
    shutil.rmtree(run / "second")
    resume(run)
    assert read_done(run / "second") == {"stage": 3, "step": 6}


def test_folders_that_hold_another_kind_of_run_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already holds a run; add --resume"):
        run_stages(recipe(tmp_path), run)
    with pytest.raises(InputError, match="there is no run in"):
        run_stages(recipe(tmp_path), tmp_path / "nothing", resume=True)
    with pytest.raises(InputError, match="holds a run without stages"):
        resume(run / "first")
    shutil.rmtree(run / "second")
    (run / "second").mkdir()
    (run / "second" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="second is not empty and holds no run"):
        resume(run)


def test_a_task_needs_images_and_a_plain_training_takes_no_stages(tmp_path: Path) -> None:
    from saccade.engine.experiment import Experiment

    with pytest.raises(InputError, match="goes over data"):
        run_stages(recipe(tmp_path, "stages.labels.data.train=!delete", "run.steps=1"), tmp_path / "run", accelerator="cpu")
    with pytest.raises(InputError, match="is a run in stages"):
        Experiment.from_recipe(recipe(tmp_path))
