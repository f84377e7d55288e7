"""VOC's average precision: hand-made cases, a plain re-statement of the rule on random data, merging and bad input."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from saccade.errors import NumericError
from saccade.metrics.voc import VocDetection
from saccade.structures import Annotations, Detections, Meta

Image = tuple[Detections, Annotations, Meta]
A, B, C = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0], [60.0, 60.0, 90.0, 90.0]
FAR = [200.0, 200.0, 220.0, 220.0]


def found(boxes: list[list[float]], labels: list[int], scores: list[float]) -> Detections:
    return Detections(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64))


def true(boxes: list[list[float]], labels: list[int], difficult: list[bool] | None = None) -> Annotations:
    flags = None if difficult is None else torch.tensor(difficult, dtype=torch.bool)
    return Annotations(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), difficult=flags)


def metric_of(images: list[Image], classes: int = 2, **settings: object) -> VocDetection:
    metric = VocDetection(classes=[str(k) for k in range(classes)], **settings)  # type: ignore[arg-type]
    for prediction, target, meta in images:
        metric.update([prediction], [target], [meta])
    return metric


@pytest.mark.parametrize(
    ("prediction", "target", "area", "eleven"),
    [
        (found([A, B], [0, 0], [0.9, 0.8]), true([A, B], [0, 0]), 1.0, 1.0),
        (found([A], [0], [0.9]), true([A, B], [0, 0]), 0.5, 6 / 11),  # recall .5 reaches the points 0 to .5
        (found([FAR, A], [0, 0], [0.9, 0.8]), true([A], [0]), 0.5, 0.5),
        (found([A, A], [0, 0], [0.9, 0.8]), true([A], [0]), 1.0, 1.0),  # the second hit is wrong, but after full recall
        (found([A, A, B], [0, 0, 0], [0.9, 0.8, 0.7]), true([A, B], [0, 0]), 0.5 + 0.5 * 2 / 3, (6 + 5 * 2 / 3) / 11),
        (found([A, B], [0, 0], [0.9, 0.8]), true([A, B], [0, 0], [True, False]), 1.0, 1.0),  # a difficult object costs and gives nothing
        (found([A, A, B], [0, 0, 0], [0.9, 0.85, 0.8]), true([A, B], [0, 0], [True, False]), 1.0, 1.0),
        (found([], [], []), true([A], [0]), 0.0, 0.0),
        (found([A], [1], [0.9]), true([A], [0]), 0.0, 0.0),
        (found([A], [0], [0.9]), true([A], [0], [True]), math.nan, math.nan),
        (found([A], [0], [0.9]), true([], []), math.nan, math.nan),
        (found([], [], []), true([], []), math.nan, math.nan),
    ],
)
def test_small_cases(prediction: Detections, target: Annotations, area: float, eleven: float) -> None:
    figures = metric_of([(prediction, target, Meta("set", 0))]).compute()
    assert figures["voc/mAP"] == pytest.approx(area, nan_ok=True)
    assert figures["voc/mAP07"] == pytest.approx(eleven, nan_ok=True)


def test_a_class_without_objects_does_not_enter_the_mean() -> None:
    metric = metric_of([(found([A, B], [0, 1], [0.9, 0.8]), true([A], [0]), Meta("set", 0))], classes=3)
    assert metric.compute()["voc/mAP"] == pytest.approx(1.0)
    assert metric.details()["voc"]["per_class"]["AP"] == [pytest.approx(1.0), None, None]
    assert metric.details()["voc"]["per_class"]["objects"] == [1, 0, 0]


def test_further_thresholds_have_their_own_figures() -> None:
    shifted = [0.0, 0.0, 10.0, 6.0]  # overlap .6
    metric = metric_of([(found([shifted], [0], [0.9]), true([A], [0]), Meta("set", 0))], iou_thresholds=(0.5, 0.7))
    assert metric.compute() == {"voc/mAP": 1.0, "voc/mAP07": pytest.approx(1.0), "voc/mAP@0.7": 0.0, "voc/mAP07@0.7": 0.0}


def test_whole_pixel_boxes_overlap_more_with_the_pixel_added() -> None:
    target, prediction = true([[0.0, 0.0, 9.0, 9.0]], [0]), found([[0.0, 5.0, 9.0, 9.0]], [0], [0.9])
    assert metric_of([(prediction, target, Meta("set", 0))], pixel_inclusive=False).compute()["voc/mAP"] == 0.0  # 36 of 81
    assert metric_of([(prediction, target, Meta("set", 0))], pixel_inclusive=True).compute()["voc/mAP"] == 1.0  # 50 of 100
    assert "1 added" in metric_of([], pixel_inclusive=True).details()["voc"]["convention"]


def random_images(seed: int) -> list[Image]:
    random, images = np.random.default_rng(seed), []
    for number in range(30):
        count, more = int(random.integers(0, 6)), int(random.integers(0, 12))
        corner, side = random.uniform(0, 60, (count, 2)), random.uniform(8, 40, (count, 2))
        near = random.integers(0, max(count, 1), more if count else 0)
        moved = corner[near] + random.normal(0, 4, (len(near), 2))
        labels = random.integers(0, 3, count)
        guessed = np.where(random.random(len(near)) < 0.8, labels[near] if count else 0, random.integers(0, 3, len(near)))
        boxes = np.concatenate([moved, moved + side[near]], 1) if count else np.zeros((0, 4))
        prediction = found(boxes.tolist(), guessed.tolist(), random.random(len(near)).tolist())
        target = true(np.concatenate([corner, corner + side], 1).tolist(), labels.tolist(), (random.random(count) < 0.2).tolist())
        images.append((prediction, target, Meta("set", number)))
    return images


def plainly(images: list[Image], k: int, threshold: float) -> float:
    """The devkit's rule, one detection after the other."""
    rows = sorted(
        ((float(s), n, i) for n, (p, _, _) in enumerate(images) for i, s in enumerate(p.scores) if int(p.labels[i]) == k), key=lambda row: -row[0]
    )
    total = sum(int(((t.labels == k) & ~t.difficult).sum()) for _, t, _ in images)
    taken: set[tuple[int, int]] = set()
    right, wrong, points = 0, 0, [(0.0, 0.0)]
    for _, n, i in rows:
        x1, y1, x2, y2 = images[n][0].boxes[i].double().tolist()
        best, index = -1.0, -1
        for j, (u1, v1, u2, v2) in enumerate(images[n][1].boxes.double().tolist()):
            inside = max(0.0, min(x2, u2) - max(x1, u1)) * max(0.0, min(y2, v2) - max(y1, v1))
            overlap = inside / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inside)
            if int(images[n][1].labels[j]) == k and overlap > best:
                best, index = overlap, j
        if best >= threshold:
            if not bool(images[n][1].difficult[index]):
                right, wrong = (right + 1, wrong) if (n, index) not in taken else (right, wrong + 1)
                taken.add((n, index))
        else:
            wrong += 1
        points.append((right / total, right / max(right + wrong, 1)))
    return sum((points[i][0] - points[i - 1][0]) * max(p for _, p in points[i:]) for i in range(1, len(points)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_area_equals_the_rule_followed_one_by_one(seed: int, threshold: float) -> None:
    images = random_images(seed)
    curves = metric_of(images, classes=3, iou_thresholds=(threshold,)).curves()[threshold]
    for k in range(3):
        assert curves[k].area() == pytest.approx(plainly(images, k, threshold), abs=1e-12)


def test_merging_processes_equals_one_process_and_counts_duplicates_once() -> None:
    images = random_images(7)
    whole, first, second = metric_of(images, 3), metric_of(images[1::2] + images[:2], 3), metric_of(images[::2], 3)
    first.merge(second)
    assert first.compute() == whole.compute()


def test_no_images_give_nan_and_a_nan_score_is_refused() -> None:
    metric = metric_of([])
    assert all(math.isnan(value) for value in metric.compute().values())
    with pytest.raises(NumericError, match="sample 'a7'"):
        metric.update([found([A], [0], [math.nan])], [true([A], [0])], [Meta("set", "a7")])
