"""Run folders made by code, as the engine writes them, and two small models that really work, for the tests of reports and predictions."""
from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from saccade.layers.pixels import PixelNorm
from saccade.models.contract import Model
from saccade.report.drawing import truth_beside_prediction
from saccade.structures import Annotations, Batch, Classification, Detections, Meta, Outputs, Prediction

CLASSES = ("person", "bicycle", "car", "dog")
FIGURES = {"coco/AP": 0.52, "coco/AP50": 0.84, "coco/APs": -1.0, "voc/mAP": 0.83}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run of a detector, evaluated on day, night and fog."""
    return write_run(tmp_path / "detector")


@pytest.fixture
def make_run() -> Callable[..., Path]:
    """`write_run`, for tests that want several or special runs."""
    return write_run


def write_run(
    folder: Path, classes: Sequence[str] = CLASSES, steps: int = 600, planned: int = 600, shift: float = 0.0,
    data: Sequence[str] = ("day", "night", "fog"),
) -> Path:
    """Write a run folder: `shift` is added to its figures."""
    folder.mkdir(parents=True)
    recipe = {
        "model": {"type": "SSD", "backbone": {"type": "TimmBackbone", "name": "mobilenetv3_small_100"}, "image_size": [320, 320], "levels": []},
        "data": {"train": {"type": "Town", "domain": "day"}, "evaluate": {name: {"type": "Town", "domain": name} for name in data}},
        "learner": {"type": "Supervised", "optimizer": {"type": "SGD", "lr": 0.01 + shift, "momentum": 0.9}},
        "run": {"steps": planned, "batch_size": 16, "best": f"{data[0]}/voc/mAP"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    origins = {"model.type": "zoo/ssd_town.yaml:3", "learner.optimizer.lr": "command line", "run.steps": "zoo/ssd_town.yaml:21"}
    (folder / "recipe_origins.json").write_text(json.dumps(origins))
    environment = {"python": "3.11.2", "torch": "2.15.0", "device": "cpu", "command": "saccade train ssd_town"}
    (folder / "environment.json").write_text(json.dumps(environment))
    _write_metrics(folder / "metrics.jsonl", steps, shift, data)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last").write_text(f"step_{steps:08d}\n")
    for loss, name in enumerate(data):
        _write_evaluation(folder / "evaluation" / name, name, classes, shift - 0.15 * loss)
    return folder


def _write_metrics(path: Path, steps: int, shift: float, data: Sequence[str]) -> None:
    dice = random.Random(0)
    lines = []
    for step in range(1, steps + 1):
        time = 1_790_000_000 + step * 0.4
        if step % 2 == 0:
            loss = 1.2 + 7 * math.exp(-step / 120) + dice.gauss(0, 0.25)
            terms = {"loss": loss, "classification": loss * 0.7, "localisation": loss * 0.3}
            record = {"kind": "train", "step": step, "epoch": step / 200, "time": time, **terms}
            lines.append(record | {"lr": 0.01 * min(1, step / 50), "grad_norm": 3 + dice.random()})
        if step % 100 == 0:
            figures = {}
            for i, name in enumerate(data):
                rise = (1 - math.exp(-step / 150)) * (1 - 0.25 * i)
                figures |= {f"{name}/{key}": value if value < 0 else min(1, value * rise + shift) for key, value in FIGURES.items()}
            lines.append({"kind": "evaluation", "step": step, "time": time, **figures})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_evaluation(folder: Path, name: str, classes: Sequence[str], shift: float) -> None:
    folder.mkdir(parents=True)
    figures = {f"{name}/{key}": value if value < 0 else max(0.0, value + shift) for key, value in FIGURES.items()}
    (folder / "figures.json").write_text(json.dumps(figures))
    n = len(classes)
    recall = [i / 100 for i in range(101)]
    rows = [[max(0.0, min(1.0, 1 - (r / (0.95 - 0.08 * k + shift)) ** 6)) for r in recall] for k in range(n)]
    matrix = [[90 - 10 * i if i == j else 3 + (i * 7 + j * 3) % 9 for j in range(n)] for i in range(n)]
    details = {
        "coco": {
            "per_class": {
                "classes": list(classes), "objects": [120 - 9 * k for k in range(n)], "AP": [0.6 - 0.07 * k for k in range(n)], "APs": [None] * n,
            },
            "pr_curves": {"recall": recall, "classes": list(classes), "precision": {"0.5": rows}},
        },
        "classification": {"classes": list(classes), "confusion_matrix": matrix},
    }
    (folder / "details.json").write_text(json.dumps(details))
    gallery = folder / "gallery"
    gallery.mkdir()
    index: dict[str, list[dict[str, object]]] = {"best": [], "worst": []}
    noise = np.random.default_rng(1)
    for i in range(4):
        picture = np.full((96, 128, 3), 90 + 20 * i, dtype=np.uint8) + noise.integers(0, 12, (96, 128, 3), dtype=np.uint8)
        boxes = torch.tensor([[20.0 + 9 * i, 20, 70 + 9 * i, 80], [60, 40, 100, 90]])
        truth = Annotations(boxes=boxes, labels=torch.tensor([0, 1]))
        found = Detections(boxes + i, torch.tensor([0.9, 0.6]), torch.tensor([0, 2]))
        kind = "best" if i < 2 else "worst"
        file = f"{kind}_{i % 2}.jpg"
        Image.fromarray(truth_beside_prediction(picture, truth, found, classes)).save(gallery / file)
        index[kind].append({"file": file, "id": f"frame_{i}", "caption": f"frame_{i}", "quality": 1 - i / 4})
    (gallery / "gallery.json").write_text(json.dumps({"quality": "F1 at IoU 0.5", **index}))


class BrightSpotDetector(Model):
    """A real, tiny detector: the box around the pixels brighter than half, class 0 where it is wide and 1 where it is high; score 0.9."""

    def __init__(self) -> None:
        super().__init__(("wide", "high"), PixelNorm())
        self.threshold = torch.nn.Parameter(torch.tensor(127.0))
        self.evaluation_transforms = [{"type": "Resize", "size": [64, 64]}]

    def forward(self, batch: Batch) -> Outputs:
        return {"bright": batch.images.float().mean(1) > self.threshold}

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        return [self._one(bright, meta) for bright, meta in zip(outputs["bright"], batch.metas, strict=True)]

    def _one(self, bright: Tensor, meta: Meta) -> Detections:
        rows, columns = bright.any(1).nonzero().flatten(), bright.any(0).nonzero().flatten()
        if not len(rows) or meta.geometry is None:
            return Detections.empty()
        box = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()[None]
        box = meta.geometry.boxes_to_original(box)
        high = int(box[0, 3] - box[0, 1] > box[0, 2] - box[0, 0])
        return Detections(box, torch.tensor([0.9]), torch.tensor([high]))


class BrightnessClassifier(Model):
    """A real, tiny classifier: how bright an image is."""

    def __init__(self) -> None:
        super().__init__(("dark", "grey", "bright"), PixelNorm())
        self.centres = torch.nn.Parameter(torch.tensor([0.0, 127.0, 255.0]))

    def forward(self, batch: Batch) -> Outputs:
        return {"logits": -(batch.images.float().mean((1, 2, 3))[:, None] - self.centres).abs() / 20}

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        return [Classification(scores) for scores in outputs["logits"].softmax(-1)]


@pytest.fixture
def detector() -> Model:
    """A detector of bright spots."""
    return BrightSpotDetector().eval()


@pytest.fixture
def classifier() -> Model:
    """A classifier by brightness."""
    return BrightnessClassifier().eval()
