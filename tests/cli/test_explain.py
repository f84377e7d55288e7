"""`saccade explain`: a recipe, a run and a checkpoint taken apart."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from command_line import run
from saccade.engine.checkpoints import ModelCard, save_checkpoint
from saccade.recipes import build

RECIPE = """# A small detector
model:
  type: SSD
  image_size: 128
  backbone: {type: TimmSSD, name: resnet10t, extra_channels: [256, 128]}
data:
  train: {type: Town, size: 96, num_videos: 2, frames_per_video: 2}
  train_transforms:
    - {type: Resize, size: [128, 128]}
learner:
  type: Supervised
  optimizer: {type: SGD, lr: 0.01, momentum: 0.9}
  schedule: {type: MultiStep, milestones: [50], gamma: 0.1}
  groups: {backbone: {lr: 0.1}}
metrics: [{type: CocoDetection}]
run: {steps: 100, batch_size: 4}
"""


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that needs no files."""
    (tmp_path / "small.yaml").write_text(RECIPE)
    return tmp_path / "small.yaml"


def test_a_recipe_is_taken_apart_with_file_and_line(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", recipe, "run.batch_size=8", "--depth", 1, "--html", tmp_path / "inside.html") == 0
    told = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in told.splitlines() if line.strip()}
    assert lines["model.image_size"] == ["model.image_size", "128", f"{recipe}:4"]
    assert lines["run.batch_size"] == ["run.batch_size", "8", "command", "line"]
    assert "uint8 Image" in told and "3 x 96 x 96" in told and "3 x 128 x 128" in told
    assert "saccade/models/ssd.py:" in told and "reg_loss" in told and "cls_loss" in told
    assert lines["backbone"][-2:] == ["0.001", "0"] and "MultiStep: 0.01 at 0" in told and "saccade/metrics/coco.py:" in told
    steps = ("parts = fetch()", "figures = learner.step(*parts)", "record(step, figures)", "save(step)", "evaluate(step)")
    order = [told.index(step) for step in steps]
    assert order == sorted(order) and "saccade/engine/loop.py:" in told
    page = (tmp_path / "inside.html").read_text()
    assert "BasicBlock" in page and "BasicBlock" not in told


def test_training_data_that_is_not_here_is_stood_in_for_and_said_so(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    present, absent = "{type: Town, size: 96, num_videos: 2, frames_per_video: 2}", "{type: Voc, root: /no/such/folder, split: train}"
    recipe.write_text(RECIPE.replace(present, absent))
    assert run("explain", recipe, "--depth", 0) == 0
    told = capsys.readouterr().out
    assert "Town stands in" in told and "reg_loss" in told


def test_a_run_keeps_the_origins_that_it_was_started_with(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"type": "SSD", "image_size": 128, "backbone": {"type": "TimmSSD", "name": "resnet10t", "extra_channels": [256, 128]}}
    torch.manual_seed(0)
    classes = tuple(build({"type": "Town"}).classes)
    folder = tmp_path / "run"
    card = ModelCard(spec, classes, [{"type": "Resize", "size": [128, 128]}], {})
    saved = save_checkpoint(folder / "checkpoints", 1, build(spec, classes=classes).state_dict(), card, {})
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "recipe_origins.json").write_text(json.dumps({"model.image_size": "zoo/ssd_town.yaml:7"}))
    (folder / "metrics.jsonl").write_text("")
    assert run("explain", folder, "--depth", 0) == 0
    assert "zoo/ssd_town.yaml:7" in capsys.readouterr().out
    assert run("explain", saved, "--depth", 0) == 0
    assert "no training data; Town stands in" in capsys.readouterr().out
    assert run("explain", saved, "run.steps=3") == 2


def test_a_mistake_in_the_recipe_is_named_before_anything_is_built(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", recipe, "model.image_sise=3") == 2
    assert "image_sise" in capsys.readouterr().err
