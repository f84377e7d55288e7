"""`saccade train` and `saccade evaluate` from the command line."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from command_line import run

RECIPE = """\
# A classifier of seconds.
model: {type: ImageClassifier, backbone: {type: LeNet5}}
data:
  train: {type: TownClassification, size: 32, num_images: 24}
  evaluate: {val: {type: TownClassification, split: val, size: 32, num_images: 12}}
  evaluation_transforms: [{type: Resize, size: [32, 32]}]
learner: {type: Supervised, optimizer: {type: SGD, lr: 0.01}, groups: {head: {lr: 10}}}
metrics: [{type: ClassificationAccuracy}]
run: {epochs: 2, batch_size: 8, save_every: 1 epoch, best: val/classification/top1}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(RECIPE)
    assert run("train", str(folder / "tiny.yaml"), "run.log_every=1", "--out", str(folder / "run"), "--accelerator", "cpu") == 0
    return folder / "run"


def test_the_folder_holds_what_a_report_needs(trained: Path) -> None:
    names = {p.relative_to(trained).as_posix() for p in trained.rglob("*")}
    assert {"recipe.yaml", "recipe_origins.json", "environment.json", "metrics.jsonl", "log.txt", "checkpoints/last", "checkpoints/best"} <= names
    assert {f"evaluation/val/{n}" for n in ("figures.json", "details.json", "predictions.json", "gallery/gallery.json")} <= names
    kinds = [json.loads(line)["kind"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["train"] * 6 + ["evaluation"]
    assert json.loads((trained / "recipe_origins.json").read_text())["run.log_every"] == "command line"


def test_the_start_tells_total_batch_size_steps_and_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    changes = ("run.accumulate=2", "data.evaluate=!delete", "run.best=null")
    assert run("train", str(tmp_path / "tiny.yaml"), *changes, "--out", str(tmp_path / "run"), "--accelerator", "cpu") == 0
    said = capsys.readouterr().err
    assert "total batch size 8 = 4 images x 2 parts" in said
    assert "6 steps = 2 epochs of 3 steps" in said
    assert "head: " in said and "learning rate 0.1" in said and "learning rate 0.01" in said


def test_a_run_folder_is_enough_to_resume(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", str(trained), "--resume", "--accelerator", "cpu") == 0
    assert "resuming at step 6" in capsys.readouterr().err


def test_what_can_not_be_done_ends_with_code_2_and_creates_nothing(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "run"
    recipe.write_text(RECIPE)
    words = ("train", str(recipe), "--out", str(out), "--accelerator", "cpu")
    for wrong, expected in (
        (["run.stepz=3"], "did you mean"),
        (["--resume"], "no run in"),
        (["--allow-changes"], "for --resume"),
        (["run.precision=fp16"], "fp16 needs a GPU"),
        (["run.best=val/accuracy"], "val/classification/top1"),
        (["model.classes=[a, b]"], "classes of the model"),
    ):
        assert run(*words, *wrong) == 2, wrong
        assert expected in capsys.readouterr().err
        assert not out.exists()
    assert run("train", str(recipe), "--out", str(trained), "--accelerator", "cpu") == 2
    assert "--resume" in capsys.readouterr().err


def test_evaluate_gives_the_figures_of_the_run(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((trained / "evaluation/val/figures.json").read_text())
    assert run("evaluate", str(trained), "--out", str(tmp_path), "--device", "cpu", "--batch-size", "5") == 0
    assert json.loads((tmp_path / "evaluation/val/figures.json").read_text()) == pytest.approx(before)
    assert "classification/top1" in capsys.readouterr().out


def test_evaluate_takes_any_folder_with_the_same_classes(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("person", "car", "bus", "truck", "bicycle", "dog"):
        for split in ("good", "bad"):
            folder = tmp_path / split / (name if split == "good" else f"a {name}")
            folder.mkdir(parents=True)
            Image.new("RGB", (40, 30), (90, 10, 50)).save(folder / "1.png")
    checkpoint = str(trained / "checkpoints" / "step_00000006")
    assert run("evaluate", checkpoint, "--data", str(tmp_path / "bad"), "--out", str(tmp_path), "--device", "cpu") == 2
    said = capsys.readouterr().err
    assert "a dog" in said and "classes" in said
    assert run("evaluate", checkpoint, "--data", str(tmp_path / "nowhere"), "--device", "cpu") == 2
    assert "val" in capsys.readouterr().err
