"""Sizes at the edge of what there is: pictures and objects of one pixel, hundreds of objects, ten thousand classes, videos of one and 2000 frames."""
from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_detector import SIZE, small_ssd, train_and_evaluate

from saccade.data.contract import Video
from saccade.data.media import VideoReader, VideoWriter, find_media
from saccade.layers.lenet import LeNet5
from saccade.metrics.classification import ClassificationAccuracy
from saccade.models.classifier import ImageClassifier
from saccade.report.media_prediction import predict_media
from saccade.report.prediction import predict_images
from saccade.structures import Annotations, Classification, Detections, Sample, collate, make_sample

MANY = 10_000


class Pictures:
    """Four noisy pictures of one size with the same boxes, labels counted through the classes."""

    name, videos = "pictures", tuple[Video, ...]()

    def __init__(self, size: tuple[int, int], boxes: list[list[float]], classes: int = 3) -> None:
        self.size, self.boxes = size, torch.tensor(boxes).reshape(-1, 4)
        self.classes = tuple(f"class {k}" for k in range(classes))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        image = torch.randint(0, 256, (3, *self.size), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        return make_sample(image, self.annotations(index), dataset=self.name, id=index)

    def annotations(self, index: int) -> Annotations:
        return Annotations(boxes=self.boxes.clone(), labels=torch.arange(len(self.boxes)) * 37 % len(self.classes))

    def item_id(self, index: int) -> str:
        return str(index)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


def boxes_in(size: int, count: int, side: float) -> list[list[float]]:
    """`count` squares of `side` pixels somewhere in a picture of `size`."""
    places = torch.rand(count, 2, generator=torch.Generator().manual_seed(count)) * (size - side)
    return torch.cat([places, places + side], 1).tolist()


ODD = {
    "pictures of one pixel": Pictures((1, 1), [[0, 0, 1, 1]]),
    "pictures of one pixel without objects": Pictures((1, 1), []),
    "pictures of one row": Pictures((1, 200), [[0, 0, 100, 1], [120, 0, 121, 1]]),
    "pictures of one column": Pictures((300, 1), [[0, 10, 1, 30]]),
    "objects of one pixel": Pictures((100, 120), [[0, 0, 1, 1], [50, 50, 51, 51], [119, 99, 120, 100]]),
    "objects of a part of a pixel": Pictures((100, 120), [[5.2, 5.2, 5.5, 5.6]]),
    "800 objects": Pictures((200, 200), boxes_in(200, 800, 12)),
    "800 equal objects": Pictures((60, 60), [[10, 10, 40, 40]] * 800),
}


@pytest.mark.parametrize("what", ODD)
def test_a_detector_trains_on_it_and_is_evaluated(what: str) -> None:
    figures = train_and_evaluate(ODD[what])
    assert "coco/AP" in figures and all(math.isfinite(value) and value <= 1 for name, value in figures.items() if name.startswith("coco/"))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_predictions_for_the_smallest_pictures_lie_inside_them(size: tuple[int, int]) -> None:
    model = small_ssd(["a", "b"]).eval()
    model.evaluation_transforms = [{"type": "Resize", "size": [SIZE, SIZE]}]  # type: ignore[assignment]
    (found,) = predict_images(model, [torch.full((3, *size), 90, dtype=torch.uint8)])
    assert isinstance(found, Detections) and bool(found.boxes.isfinite().all())
    assert not len(found.boxes) or bool((found.boxes >= 0).all() and (found.boxes[:, 2] <= size[1]).all() and (found.boxes[:, 3] <= size[0]).all())


def test_a_detector_of_ten_thousand_classes_takes_a_step_and_predicts() -> None:
    data = Pictures((64, 64), [[4, 4, 30, 40], [20, 10, 60, 60]], classes=MANY)
    model = small_ssd(data.classes)
    figures = train_and_evaluate(data, model, steps=1)
    assert {"coco/AP", "voc/mAP"} <= set(figures)


def test_a_classifier_of_ten_thousand_classes_takes_a_step_and_is_scored() -> None:
    classes = [f"class {k}" for k in range(MANY)]
    torch.manual_seed(0)
    model = ImageClassifier(classes=classes, backbone=LeNet5())
    samples = [make_sample(torch.full((3, 32, 32), 30 * k, dtype=torch.uint8), Annotations(label=k * 1111), dataset="d", id=k) for k in range(8)]
    batch = collate(samples, originals=[s.annotations() for s in samples])
    loss = sum(model.losses(model(batch), batch).values(), torch.zeros(()))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(MANY), rel=0.1)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    metric = ClassificationAccuracy(classes=classes)
    with torch.inference_mode():
        found = model.eval().predictions(model(batch), batch)
    assert all(isinstance(p, Classification) for p in found)
    metric.update(found, batch.originals or [], batch.metas)
    assert 0 <= metric.compute()["classification/top5"] <= 1
    assert len(json.dumps(metric.details())) < 2_000_000, "a full confusion matrix has 300 million characters"


def video(path: Path, frames: int, size: int = 16) -> Path:
    with VideoWriter(path, Fraction(25)) as writer:
        for number in range(frames):
            writer.write(np.full((size, size, 3), number % 256, dtype=np.uint8))
    return path


@pytest.fixture
def brightness() -> Callable[[], Any]:
    def make() -> Any:
        torch.manual_seed(0)
        model = ImageClassifier(classes=["dark", "light"], backbone=LeNet5()).eval()
        model.evaluation_transforms = [{"type": "Resize", "size": [32, 32]}]  # type: ignore[assignment]
        return model

    return make


@pytest.mark.parametrize("frames", [1, 2000])
def test_a_video_of_any_length_is_predicted_frame_by_frame(tmp_path: Path, brightness: Callable[[], Any], frames: int) -> None:
    torch.set_num_threads(1)
    path = video(tmp_path / "film.mp4", frames)
    summary = predict_media(brightness(), find_media([path]), tmp_path / "out", batch_size=64)
    assert summary.frames == frames and not summary.failed and not summary.broken_off
    assert sum(1 for _ in VideoReader(tmp_path / "out" / "film.mp4")) == frames
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [row["frame"] for row in rows] == list(range(frames))
