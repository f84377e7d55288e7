"""DETR from the command line: train, evaluate, predict, go on from released weights to other classes; boxes and panoptic maps."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision

from command_line import run
from saccade import load
from saccade.data.town.dataset import Town
from saccade.recipes import build, load_recipe
from saccade.weights.maps import detr

TINY = """\
base: [detr_town]
model:
  transformer: {channels: 32, heads: 4, encoder_layers: 1, decoder_layers: 2, feedforward: 32}
  positions: {channels: 32}
  num_queries: 12
data:
  train: {num_videos: 16}
  evaluate: {day: {num_videos: 6}}
run: {steps: 3, batch_size: 4, evaluate_every: 3, save_every: 3, log_every: 1}
"""

PANOPTIC = """\
base: [tiny.yaml]
model: {masks: panoptic, backbone: {output_stride: 32, out_indices: [1, 2, 3, 4]}, panoptic_threshold: 0.1}
data:
  train: !delete
  evaluate: !delete
metrics: [{type: PanopticQuality}]
run: {best: null}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its run and a photo."""
    folder = tmp_path_factory.mktemp("detr")
    (folder / "tiny.yaml").write_text(TINY)
    torchvision.io.write_png(Town(split="test", size=96)[0].image, str(folder / "photo.png"))
    assert run("train", str(folder / "tiny.yaml"), "--out", str(folder / "run"), "--accelerator", "cpu") == 0
    return folder


def test_training_records_every_layers_losses_and_the_errors_worth_watching(folder: Path) -> None:
    records = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    train, evaluation = [r for r in records if r["kind"] == "train"], records[-1]
    assert len(train) == 3 and {"loss_ce", "loss_bbox", "loss_giou", "loss_ce_0", "class_error", "cardinality_error"} <= train[0].keys()
    terms = sum(value for name, value in train[0].items() if name.startswith("loss_"))
    assert train[0]["loss"] == pytest.approx(terms, rel=1e-5)
    assert evaluation["kind"] == "evaluation" and "day/coco/AP50" in evaluation


def test_fast_prediction_finds_the_same(folder: Path) -> None:
    for name, flags in (("plain", []), ("fast", ["--fast"])):
        assert run("predict", str(folder / "run"), str(folder / "photo.png"), "--out", str(folder / name), "--score-threshold", "0", *flags) == 0
    plain, fast = (json.loads((folder / name / "predictions.json").read_text()) for name in ("plain", "fast"))
    assert len(plain) == len(fast) == 12
    for a, b in zip(plain, fast, strict=True):
        assert a["bbox"] == pytest.approx(b["bbox"], abs=0.05) and a["score"] == pytest.approx(b["score"], abs=1e-3)


def test_released_weights_go_on_to_other_classes_with_a_new_class_head(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    released = build(load_recipe(str(folder / "tiny.yaml")).section("model"), classes=[f"other {k}" for k in range(90)])
    torch.save({"model": detr.from_saccade(released.state_dict(), released)}, folder / "released.pth")
    words = ("train", str(folder / "tiny.yaml"), f"weights.source={folder / 'released.pth'}", "--accelerator", "cpu", "run.steps=1")
    assert run(*words, "--out", str(folder / "refused")) == 2
    assert "class_embed.weight: 91x32 in the file, 7x32 in the model" in capsys.readouterr().err
    assert run(*words, "weights.reinitialise=[heads]", "--out", str(folder / "tuned")) == 0
    assert "2 drawn anew: class_embed.weight, class_embed.bias" in (folder / "tuned/log.txt").read_text() + capsys.readouterr().err
    assert load(folder / "tuned").classes == load(folder / "run").classes


def test_recipe_with_weights_asks_for_no_others(folder: Path) -> None:
    (folder / "whole.yaml").write_text("base: [tiny.yaml]\nmodel: {backbone: {pretrained: true}}\n")
    model = load(folder / "run")
    torch.save(detr.from_saccade(model.state_dict(), model), folder / "whole.pth")
    words = (folder / "whole.yaml", folder / "photo.png", "--weights", folder / "whole.pth", "--out", folder / "whole", "--score-threshold", "0")
    assert run("predict", *words) == 0
    assert len(json.loads((folder / "whole/predictions.json").read_text())) == 12


def test_panoptic_model_trains_and_scores_on_files_and_keeps_which_classes_are_things(folder: Path) -> None:
    data = folder / "panoptic"
    assert run("data", "make", "town", "--out", str(data), "--format", "coco_panoptic", "--size", "96", "--frames", "6") == 0
    (folder / "panoptic.yaml").write_text(PANOPTIC)
    split = sorted(p.stem.removeprefix("panoptic_") for p in (data / "annotations").glob("panoptic_*.json"))[0]
    where = f"{{type: CocoPanoptic, root: {data}, split: {split}}}"
    words = (str(folder / "panoptic.yaml"), f"data.train={where}", f"data.evaluate={{val: {where}}}")
    assert run("train", *words, "--out", str(folder / "panoptic_run"), "--accelerator", "cpu", "run.steps=2", "run.batch_size=2") == 0
    record = json.loads((folder / "panoptic_run/metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= record["val/panoptic/PQ"] <= 1 or record["val/panoptic/PQ"] != record["val/panoptic/PQ"]
    model = load(folder / "panoptic_run")
    assert any(model.things) and not all(model.things)  # type: ignore[arg-type]
    assert run("predict", str(folder / "panoptic_run"), str(folder / "photo.png"), "--out", str(folder / "maps")) == 0
    assert any((folder / "maps").glob("*.jpg"))


def test_explanation_shows_queries_and_losses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", str(folder / "tiny.yaml")) == 0
    said = capsys.readouterr().out
    assert "transformer" in said and "loss_giou_0" in said and "query_embed" in said
