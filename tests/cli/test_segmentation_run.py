"""A segmentation network from training to the report, on data with and without labels: what is chosen, written, scored and shown."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from command_line import run
from saccade.data.formats.label_files import read_labels

TOWN = "{type: TownSegmentation, size: 64, num_images: 6"
SOURCE = f"""\
# A segmentation network of seconds.
model:
  type: DeepLabV2
  backbone: {{type: TimmBackbone, name: resnet10t, out_indices: [4], output_stride: 8}}
  head: aspp2
  rates: [1, 2]
data:
  train: {TOWN}}}
  evaluate: {{day: {TOWN}, split: val}}, night: {TOWN}, split: val, domain: night, labelled: false}}}}
  evaluation_transforms: [{{type: Resize, size: [64, 64]}}]
learner: {{type: Supervised, optimizer: {{type: AdamW, lr: 1.0e-3}}}}
metrics: [{{type: SegmentationIoU, subsets: {{vehicles: [car, bus]}}}}, {{type: MeanEntropy}}, {{type: SoftNeighborhoodDensity, pixels: 20}}]
run: {{steps: 4, batch_size: 2, evaluate_every: 2, save_every: 2, best: night/unlabelled/entropy, best_is: lowest}}
"""
STATISTICS = f"""\
# The target's batch statistics, in seconds.
data:
  train: {TOWN}, domain: night, labelled: false}}
  evaluate: {{night: {TOWN}, split: val, domain: night}}}}
learner: {{type: Adapting, trainable: nothing, terms: [{{type: BatchNormStatistics}}], optimizer: {{type: Adam, lr: 1.0e-4}}}}
metrics: [{{type: SegmentationIoU}}, {{type: MeanEntropy}}]
run: {{steps: 1, batch_size: 2, best: night/iou/mIoU}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that chose by entropy."""
    folder = tmp_path_factory.mktemp("segmentation")
    (folder / "source.yaml").write_text(SOURCE)
    (folder / "statistics.yaml").write_text(STATISTICS)
    assert run("train", folder / "source.yaml", "--out", folder / "run", "--accelerator", "cpu") == 0
    return folder


def records(folder: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "evaluation"]


def test_the_checkpoint_of_the_lowest_entropy_is_chosen_on_data_without_labels(trained: Path) -> None:
    rows = records(trained / "run")
    entropies = {row["step"]: row["night/unlabelled/entropy"] for row in rows}
    assert set(entropies) == {2, 4} and all(isinstance(value, float) and 0 < value < 1 for value in entropies.values())
    best = min(entropies, key=lambda step: entropies[step])  # type: ignore[arg-type, return-value]
    assert (trained / "run/checkpoints/best").read_text().strip().endswith(f"{best}")
    assert all(row["night/iou/mIoU"] in (None, "NaN") and isinstance(row["day/iou/mIoU_vehicles"], float) for row in rows)
    assert "night: none of the 6 images has labels, so there is nothing to score" in (trained / "run/log.txt").read_text()
    assert not (trained / "run/evaluation/day/predictions").exists()  # they come many times; `saccade evaluate` writes them


def test_evaluate_writes_label_maps_and_says_what_can_not_be_scored(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", trained / "run", "--out", tmp_path, "--device", "cpu") == 0
    said = capsys.readouterr()
    assert "6 label maps in" in said.err and "night: none of the 6 images has labels, so there is nothing to score" in said.err
    assert "iou/class/road" in said.out and "unlabelled/snd" in said.out
    place = tmp_path / "evaluation" / "day" / "predictions"
    stored = read_labels(place, "val_0000_0000")
    assert stored.labels.shape == (64, 64) and stored.confidence is not None and len(list((place / "colours").iterdir())) == 6
    figures = json.loads((tmp_path / "evaluation/day/figures.json").read_text())
    recipe = trained / "run/recipe.yaml"
    assert run("evaluate", "--results", place, "--recipe", recipe, "--data", "day", "--out", tmp_path / "again") == 0
    again = json.loads((tmp_path / "again/evaluation/day/figures.json").read_text())
    assert again["iou/mIoU"] == figures["iou/mIoU"] and again["iou/accuracy"] == figures["iou/accuracy"]


def test_predict_writes_maps_colours_and_confidence_of_any_picture(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "run/evaluation/day/gallery/samples_00_image.jpg", tmp_path / "street.jpg")
    assert run("predict", trained / "run", tmp_path / "street.jpg", "--out", tmp_path / "out", "--device", "cpu") == 0
    (row,) = json.loads((tmp_path / "out/predictions.json").read_text())
    assert all((tmp_path / "out" / row[kind]).is_file() for kind in ("segmentation_map", "colour_map", "confidence_map"))


def test_a_run_that_adapts_and_chooses_by_labels_says_so_and_its_report_shows_before_and_after(trained: Path, tmp_path: Path) -> None:
    assert run("adapt", trained / "statistics.yaml", "--from", trained / "run", "--out", tmp_path / "adapted", "--accelerator", "cpu") == 0
    assert "the best checkpoint is chosen by night/iou/mIoU, that is with labels of night" in (tmp_path / "adapted/log.txt").read_text()
    before = trained / "run"
    recipe = yaml.safe_load((tmp_path / "adapted/recipe.yaml").read_text())
    (tmp_path / "labelled.yaml").write_text(yaml.safe_dump({"data": {"evaluate": recipe["data"]["evaluate"]}, "metrics": recipe["metrics"]}))
    assert run("evaluate", before, "--recipe", tmp_path / "labelled.yaml", "--out", tmp_path / "before", "--device", "cpu") == 0
    assert run("report", tmp_path / "before", tmp_path / "adapted", "--out", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "The same images by all runs" in page and "IoU by class" in page and "with labels of night" in page
