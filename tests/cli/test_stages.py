"""Staged recipes on the command line: one command runs all stages, and the run's folder stands for the network that comes out."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from command_line import run
from saccade.engine.checkpoints import find_checkpoint, load_tensors, read_card
from saccade.recipes import load_recipe
from saccade.recipes.registry import TABLE
from tiny_stages import RECIPE

ADAPT = """\
# A teacher, the classes that it sees, and a student that begins with it: seconds.
data:
  train: {type: TownClassification, split: val, domain: fog, size: 32, num_images: 8}
  evaluate: {fog: "${data.train}"}
metrics: [{type: ClassificationAccuracy}]
run: {steps: 2, batch_size: 4, log_every: 1}
stages:
  teach:
    learner: {type: Adapting, terms: [{type: Entropy}], teacher: {type: MovingAverage, momentum: 0.5}, optimizer: {type: Adam, lr: 0.01}}
  labels: {task: {type: Write, into: classes}, weights: {source: "stage:teach/teacher"}}
  student:
    weights: {source: "stage:teach/teacher"}
    learner: {type: Adapting, terms: [{type: Entropy}], optimizer: {type: Adam, lr: 0.01}}
"""


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, "tasks", dict(TABLE["tasks"]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "adapt.yaml").write_text(ADAPT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TABLE, "tasks", dict(TABLE["tasks"]))
        assert run("train", folder / "tiny.yaml", "--plugin", "tiny_stages", "--out", folder / "run", "--accelerator", "cpu") == 0
    return folder


def test_progress_names_the_stage_and_each_has_its_log(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained / "run", tmp_path / "run", ignore=shutil.ignore_patterns("labels", "second"))
    assert run("train", tmp_path / "run", "--resume", "--plugin", "tiny_stages", "--accelerator", "cpu") == 0
    said = capsys.readouterr().err
    for words in (
        "stage 1/3 first: finished before", "stage 2/3 labels: begins", "2/3 labels image 16/16", "stage 3/3 second: begins", "3/3 second step 6/6",
        f"saccade report {tmp_path / 'run'}",
    ):
        assert words in said, words
    assert "-> model: 10 tensors" in (tmp_path / "run" / "labels" / "log.txt").read_text()
    assert (tmp_path / "run" / "second" / "log.txt").is_file()


def test_the_folder_is_evaluated_predicted_with_reported_and_explained_by_its_last_training(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (40, 40), (90, 20, 20)).save(tmp_path / "a.jpg")
    before = json.loads((trained / "run/second/evaluation/val/figures.json").read_text())
    assert run("evaluate", trained / "run", "--out", tmp_path, "--device", "cpu") == 0
    assert json.loads((tmp_path / "evaluation/val/figures.json").read_text()) == pytest.approx(before)
    assert run("predict", trained / "run", tmp_path / "a.jpg", "--out", tmp_path / "p", "--device", "cpu") == 0
    assert run("report", trained / "run", "--out", tmp_path / "r.html") == 0
    assert "run/second" in (tmp_path / "r.html").read_text()
    capsys.readouterr()
    assert run("explain", trained / "run") == 0
    assert "Cosine" in capsys.readouterr().out
    assert run("explain", trained / "run", "--stage", "first") == 0
    assert "Constant" in capsys.readouterr().out


def test_a_run_without_a_finished_training_says_so(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained / "run", tmp_path / "run", ignore=shutil.ignore_patterns("done.json"))
    for command in ("evaluate", "report", "explain"):
        assert run(command, tmp_path / "run") == 2
        assert "none of them has finished a training yet; name the folder of one: first, labels, second" in " ".join(capsys.readouterr().err.split())


def test_recipes_are_shown_checked_compared_and_explained_by_stage(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, plugin = trained / "tiny.yaml", ("--plugin", "tiny_stages")
    assert run("recipe", "show", recipe, "--stage", "second", "--plain") == 0
    (tmp_path / "second.yaml").write_text(capsys.readouterr().out)
    assert load_recipe(tmp_path / "second.yaml").section("run")["steps"] == 6
    assert run("recipe", "show", recipe, "--stage", "third") == 2
    assert "its stages are first, labels, second" in capsys.readouterr().err
    assert run("recipe", "check", recipe, *plugin) == 0
    assert "in 3 stages, no mistakes found" in capsys.readouterr().out
    assert run("recipe", "diff", recipe, recipe, "stages.second.run.steps=7") == 0
    said = capsys.readouterr().out
    assert "stages.second.run.steps" in said and "1 values differ" in said
    assert run("explain", recipe, *plugin) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Constant" in said and "this is the stage first of first, labels, second" in said
    assert run("explain", recipe, *plugin, "--stage", "second") == 0
    assert "Cosine" in capsys.readouterr().out


def test_a_recipe_with_weights_is_that_of_its_last_training(trained: Path, tmp_path: Path) -> None:
    weights = find_checkpoint(trained / "run") / "model.safetensors"
    words = ("--weights", weights, "--plugin", "tiny_stages", "--out", tmp_path, "--device", "cpu")
    assert run("evaluate", trained / "tiny.yaml", *words) == 0
    before = json.loads((trained / "run/second/evaluation/val/figures.json").read_text())
    assert json.loads((tmp_path / "evaluation/val/figures.json").read_text()) == pytest.approx(before)


def test_an_adaptation_in_stages_takes_the_source_model_and_the_target_for_all_of_them(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = ("--plugin", "tiny_stages", "--accelerator", "cpu")
    words = ("adapt", trained / "adapt.yaml", "--from", trained / "run", *plugin)
    assert run(*words, "--out", tmp_path / "run") == 0
    source, teacher = (load_tensors(find_checkpoint(p)) for p in (trained / "run", tmp_path / "run" / "teach" / "teacher"))
    assert source.keys() == teacher.keys() and any(not torch.equal(source[k], teacher[k]) for k in source)
    assert read_card(find_checkpoint(tmp_path / "run" / "teach" / "teacher")).provenance["network"] == "teacher"
    stages = {name: load_recipe(tmp_path / "run" / name) for name in ("teach", "labels", "student")}
    assert [stage.section("weights")["source"] for stage in stages.values()] == [
        str(find_checkpoint(trained / "run") / "model.safetensors"), *[str(tmp_path / "run" / "teach" / "teacher")] * 2]
    assert all(stage.section("model")["backbone"] == {"type": "LeNet5"} for stage in stages.values())

    for name in range(4):
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.effect_noise((40, 40), 60).convert("RGB").save(tmp_path / "frames" / f"{name}.jpg")
    assert run(*words, "--to", tmp_path / "frames", "--out", tmp_path / "mine") == 0
    assert len(list((tmp_path / "mine" / "labels" / "classes").iterdir())) == 4
    assert not (tmp_path / "mine" / "student" / "evaluation").exists()
    assert run("train", tmp_path / "mine", "--resume", *plugin) == 0
    capsys.readouterr()
    for wrong, said in (
        ((*words, "--online"), "leave --online out"),
        (("train", trained / "adapt.yaml", *plugin), "saccade adapt"),
        (("adapt", trained / "tiny.yaml", "--from", trained / "run", *plugin), "does not adapt"),
    ):
        assert run(*wrong, "--out", tmp_path / "x") == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_a_run_killed_before_its_first_checkpoint_begins_with_its_weights_again(trained: Path, tmp_path: Path) -> None:
    weights = find_checkpoint(trained / "run") / "model.safetensors"
    (tmp_path / "plain.yaml").write_text(f"base: [tiny.yaml]\nstages: !delete\nweights: {{source: {weights}}}\n")
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    words = ("train", tmp_path / "plain.yaml", "--out", tmp_path / "run", "--accelerator", "cpu")
    assert run(*words) == 0
    first = load_tensors(find_checkpoint(tmp_path / "run"))
    for entry in (tmp_path / "run" / "checkpoints").iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    assert run(*words, "--resume") == 0
    again = load_tensors(find_checkpoint(tmp_path / "run"))
    assert all(torch.equal(first[name], again[name]) for name in first)
