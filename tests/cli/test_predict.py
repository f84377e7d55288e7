"""`saccade predict` on a real checkpoint: exit codes, messages, files."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import run
from saccade.engine.checkpoints import ModelCard, save_checkpoint
from saccade.recipes import build

MODEL = {"type": "SSD", "image_size": 320, "backbone": {"type": "SSDMobileNetV2"}, "predictor": "ssdlite"}
CLASSES = ("person", "car")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with drawn weights in a run folder's place."""
    torch.manual_seed(0)
    model = build(MODEL, classes=CLASSES)
    card = ModelCard(MODEL, CLASSES, [{"type": "Resize", "size": [320, 320]}], {})
    return save_checkpoint(tmp_path_factory.mktemp("run") / "checkpoints", 3, model.state_dict(), card, {})


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(path)
    return path


def test_pictures_and_results_are_written_and_broken_files_named(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "broken.png").write_bytes(b"no")
    code = run("predict", checkpoint, tmp_path / "in", "--out", tmp_path / "out", "--score-threshold", "0", "--device", "cpu")
    told = capsys.readouterr()
    assert code == 0 and "broken.png" in told.err and "1 image in" in told.out
    assert (tmp_path / "out" / "a.jpg").is_file()
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert rows and all(row["file_name"] == "a.jpg" and row["category_id"] in (1, 2) for row in rows)


def test_a_run_folder_stands_for_its_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg")
    assert run("predict", checkpoint.parents[1], path, "--out", tmp_path / "out", "--no-pictures") == 0
    assert not (tmp_path / "out" / "a.jpg").exists()


def test_a_recipe_takes_a_file_of_weights(checkpoint: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    data = {"evaluation_transforms": [{"type": "Resize", "size": [320, 320]}]}
    recipe.write_text(json.dumps({"model": MODEL | {"classes": list(CLASSES)}, "data": data}))
    path = photo(tmp_path / "a.jpg")
    options = ("--weights", checkpoint / "model.safetensors", "--out", tmp_path / "out", "--score-threshold", "0")
    assert run("predict", recipe, path, *options) == 0
    from_recipe = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert run("predict", checkpoint, path, "--out", tmp_path / "again", "--score-threshold", "0") == 0
    assert from_recipe == json.loads((tmp_path / "again" / "predictions.json").read_text())


def test_nothing_readable_ends_with_three(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.png").write_bytes(b"no")
    assert run("predict", checkpoint, tmp_path / "broken.png", "--out", tmp_path / "out") == 3
    assert "broken.png" in capsys.readouterr().err


MISTAKES = ["missing_run {photo}", "{checkpoint} missing.jpg", "{checkpoint} {photo} --weights x", "{photo} {photo}"]


@pytest.mark.parametrize("words", MISTAKES)
def test_what_can_not_be_is_the_users_mistake(checkpoint: Path, tmp_path: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = photo(tmp_path / "a.jpg")
    given = [word.format(photo=path, checkpoint=checkpoint) for word in words.split()]
    assert run("predict", *given, "--out", tmp_path / "out") == 2
    assert "error: " in capsys.readouterr().err and not (tmp_path / "out" / "predictions.json").exists()
