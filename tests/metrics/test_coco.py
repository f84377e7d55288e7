"""COCO's figures: equal to pycocotools on random data, defined on empty and odd data, the same however the data come."""
from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as runs
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from saccade.errors import DataError, NumericError
from saccade.metrics.coco import CocoDetection, summarise
from saccade.structures import Annotations, Detections, Meta

Image = tuple[Detections, Annotations, Meta]
NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def random_images(seed: int, images: int = 25, classes: int = 4, masks: bool = False, ties: bool = False) -> list[Image]:
    random, result = np.random.default_rng(seed), []
    for number in range(images):
        true, found = int(random.integers(0, 7)), int(random.integers(0, 30))
        corner, side = random.uniform(0, 100, (true, 2)), random.uniform(4, 140, (true, 2))
        near = random.integers(0, max(true, 1), found if true else 0)
        corners = corner[near] + random.normal(0, 8, (len(near), 2))
        sides = side[near] * np.exp(random.normal(0, 0.2, (len(near), 2)))
        scores = random.random(len(near))
        truth = torch.from_numpy(np.concatenate([corner, corner + side], 1)).float()
        boxes = torch.from_numpy(np.concatenate([corners, corners + sides], 1)).float()
        labels = torch.from_numpy(random.integers(0, classes, true))
        other = torch.from_numpy(random.integers(0, classes, len(near)))
        guessed = torch.where(torch.from_numpy(random.random(len(near)) < 0.7), labels[near], other)
        prediction = Detections(boxes, torch.from_numpy(scores.round(1) if ties else scores).float(), guessed, masks=drawn(boxes) if masks else None)
        target = Annotations(
            truth,
            labels,
            crowd=torch.from_numpy(random.random(true) < 0.15),
            areas=(truth[:, 2:] - truth[:, :2]).prod(1) * 0.8,
            masks=drawn(truth) if masks else None,
        )
        result.append((prediction, target, Meta("set", number)))
    return result


def drawn(boxes: torch.Tensor) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(260), torch.arange(270), indexing="ij")
    inside = (x >= boxes[:, 0, None, None]) & (x < boxes[:, 2, None, None]) & (y >= boxes[:, 1, None, None]) & (y < boxes[:, 3, None, None])
    return inside & ((x + y) % 7 > 0)


def metric_of(images: list[Image], classes: int = 4, **settings: Any) -> CocoDetection:
    metric = CocoDetection(classes=[f"c{k}" for k in range(classes)], **settings)
    for prediction, target, meta in images:
        metric.update([prediction], [target], [meta])
    return metric


def pycocotools_figures(images: list[Image], kind: str, use_categories: bool = True, classes: int = 4) -> np.ndarray:
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": k} for k in range(classes)]}
    results = []
    for found, true, meta in images:
        truth["images"].append({"id": meta.id, "width": 270, "height": 260})
        for objects, rows in ((true, truth["annotations"]), (found, results)):
            for i, box in enumerate(objects.boxes.double().tolist()):
                row = {"image_id": meta.id, "category_id": int(objects.labels[i]), "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
                if kind == "segm":
                    row["segmentation"] = runs.encode(np.asfortranarray(objects.masks[i].numpy().astype(np.uint8)))
                if rows is results:
                    row["score"] = float(found.scores[i])
                    if kind == "segm":
                        del row["bbox"]
                else:
                    row |= {"id": len(rows) + 1, "iscrowd": int(true.crowd[i]), "area": float(true.areas[i])}
                rows.append(row)
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = truth
        index.createIndex()
        evaluation = COCOeval(index, index.loadRes(results), kind)
        evaluation.params.useCats = int(use_categories)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_box_figures_equal_pycocotools(seed: int, class_agnostic: bool, ties: bool) -> None:
    images = random_images(seed, ties=ties)
    figures = metric_of(images, class_agnostic=class_agnostic).compute()
    expected = pycocotools_figures(images, "bbox", not class_agnostic)
    np.testing.assert_allclose([figures[f"coco/{name}"] for name in NAMES], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_mask_figures_equal_pycocotools(seed: int) -> None:
    images = random_images(seed, images=8, masks=True)
    figures = metric_of(images).compute()
    np.testing.assert_allclose([figures[f"coco/segm/{name}"] for name in NAMES], pycocotools_figures(images, "segm"), rtol=0, atol=1e-12)
    np.testing.assert_allclose([figures[f"coco/{name}"] for name in NAMES], pycocotools_figures(images, "bbox"), rtol=0, atol=1e-12)


def test_more_than_a_hundred_detections_of_one_class_are_cut_as_pycocotools_does() -> None:
    ((_, target, meta),) = [i for i in random_images(5) if i[1].num_objects > 2][:1]
    boxes = target.boxes.repeat(80, 1) + torch.randn(80 * len(target.boxes), 4, generator=torch.Generator().manual_seed(0)) * 5
    many = Detections(boxes, torch.rand(len(boxes), generator=torch.Generator().manual_seed(1)), torch.full((len(boxes),), int(target.labels[0])))
    images = [(many, target, meta)]
    figures = metric_of(images).compute()
    np.testing.assert_allclose([figures[f"coco/{name}"] for name in NAMES], pycocotools_figures(images, "bbox"), rtol=0, atol=1e-12)


def one(boxes: list[list[float]], labels: list[int], scores: list[float] | None = None) -> Any:
    values = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    if scores is None:
        return Annotations(values, torch.tensor(labels, dtype=torch.int64))
    return Detections(values, torch.tensor(scores), torch.tensor(labels, dtype=torch.int64))


BOX = [0.0, 0.0, 50.0, 50.0]
SHIFTED = [0.0, 0.0, 50.0, 35.0]  # IoU .7 with BOX: found at the thresholds .5 to .7, five of ten


@pytest.mark.parametrize(
    ("found", "truth", "expected"),
    [
        (one([BOX], [0], [0.9]), one([BOX], [0]), {"AP": 1.0, "AP50": 1.0, "AR1": 1.0, "APm": 1.0, "APs": -1.0, "APl": -1.0}),
        (one([SHIFTED], [0], [0.9]), one([BOX], [0]), {"AP": 0.5, "AP50": 1.0, "AP75": 0.0}),
        (one([BOX], [1], [0.9]), one([BOX], [0]), {"AP": 0.0, "AR100": 0.0}),
        (one([], [], []), one([BOX], [0]), {"AP": 0.0, "AP50": 0.0, "AR100": 0.0}),
        (one([BOX], [0], [0.9]), one([], []), {"AP": -1.0, "AR100": -1.0}),
        (one([], [], []), one([], []), {"AP": -1.0, "AR1": -1.0}),
        (one([BOX, BOX], [0, 0], [0.9, 0.8]), one([BOX], [0]), {"AP": 1.0}),
        (one([[90, 90, 99, 99], BOX], [0, 0], [0.9, 0.8]), one([BOX], [0]), {"AP": 0.5}),
        (one([[5, 5, 6, 6]], [0], [0.5]), one([[5, 5, 6, 6]], [0]), {"AP": 1.0, "APs": 1.0}),
    ],
    ids=["perfect", "half-overlap", "wrong-class", "nothing-found", "nothing-true", "nothing-at-all", "found-twice", "false-first", "one-pixel"],
)
def test_small_cases(found: Detections, truth: Annotations, expected: dict[str, float]) -> None:
    figures = metric_of([(found, truth, Meta("set", 0))], classes=2).compute()
    for name, value in expected.items():
        assert figures[f"coco/{name}"] == pytest.approx(value, abs=1e-9), name


def test_without_any_image_every_figure_is_minus_one() -> None:
    assert set(CocoDetection(classes=["a"]).compute().values()) == {-1.0}


def test_crowds_are_neither_found_nor_missed() -> None:
    crowd = Annotations(torch.tensor([BOX, [100.0, 0, 180, 80]]), torch.tensor([0, 0]), crowd=torch.tensor([True, False]))
    inside_crowd = one([[10, 10, 30, 30], [100, 0, 180, 80]], [0, 0], [0.9, 0.8])
    assert metric_of([(inside_crowd, crowd, Meta("set", 0))], classes=1).compute()["coco/AP"] == pytest.approx(1.0)


def test_annotated_areas_decide_about_sizes() -> None:
    target = Annotations(torch.tensor([BOX]), torch.tensor([0]), areas=torch.tensor([100.0]))
    figures = metric_of([(one([BOX], [0], [0.9]), target, Meta("set", 0))], classes=1).compute()
    assert figures["coco/APs"] == pytest.approx(1.0) and figures["coco/APm"] == -1.0


def test_merging_processes_equals_one_process_and_counts_duplicates_once() -> None:
    images = random_images(3, ties=True)
    whole, first, second = metric_of(images), metric_of(images[1::2] + images[:1]), metric_of(images[::2])
    first.merge(second)
    assert first.compute() == whole.compute()
    whole.update(*([column] for column in images[0]))
    assert first.compute() == whole.compute()


def test_reset_forgets_and_figures_follow_updates() -> None:
    metric = metric_of(random_images(1))
    before = metric.compute()
    metric.reset()
    assert set(metric.compute().values()) == {-1.0}
    for prediction, target, meta in random_images(1):
        metric.update([prediction], [target], [meta])
    assert metric.compute() == before


def test_details_agree_with_the_figures() -> None:
    metric = metric_of(random_images(2))
    details, figures = metric.details()["coco"], metric.compute()
    assert np.mean(details["per_class"]["AP"]) == pytest.approx(figures["coco/AP"])
    assert np.mean(details["pr_curves"]["precision"]["0.5"]) == pytest.approx(figures["coco/AP50"])
    assert len(details["pr_curves"]["recall"]) == 101 and details["per_class"]["classes"] == ["c0", "c1", "c2", "c3"]
    true = sum(int((~target.crowd).sum()) for _, target, _ in random_images(2))
    assert sum(details["per_class"]["objects"]) == true


def test_a_class_without_objects_has_no_curve() -> None:
    details = metric_of([(one([BOX], [0], [0.9]), one([BOX], [0]), Meta("set", 0))], classes=2).details()["coco"]
    assert details["per_class"]["AP"] == [pytest.approx(1.0), None] and details["pr_curves"]["precision"]["0.5"][1] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_and_boxes_that_are_not_finite_are_refused_with_the_sample(value: float) -> None:
    metric = CocoDetection(classes=["a"])
    with pytest.raises(NumericError, match="scores") as caught:
        metric.update([one([BOX], [0], [value])], [one([BOX], [0])], [Meta("town", 17)])
    assert "17" in str(caught.value) and "town" in str(caught.value)
    with pytest.raises(NumericError, match="boxes"):
        metric.update([one([[0, 0, value, 1]], [0], [0.5])], [one([BOX], [0])], [Meta("town", 17)])


def test_truth_that_is_unknown_is_refused() -> None:
    metric = CocoDetection(classes=["a"])
    with pytest.raises(DataError, match="neither boxes nor masks"):
        metric.update([one([BOX], [0], [0.5])], [Annotations(label=1)], [Meta("town", 17)])
    with pytest.raises(DataError, match="labels 3 to 3"):
        metric.update([one([BOX], [0], [0.5])], [one([BOX], [3])], [Meta("town", 17)])
    with pytest.raises(DataError, match="prediction of sample 18"):
        metric.update([one([BOX], [2], [0.5])], [one([BOX], [0])], [Meta("town", 18)])


def test_boxes_are_taken_from_masks_where_there_are_none() -> None:
    mask = torch.zeros(1, 60, 60, dtype=torch.bool)
    mask[:, :50, :50] = True
    found = Detections(torch.tensor([BOX]), torch.tensor([0.9]), torch.tensor([0]), masks=mask)
    figures = metric_of([(found, Annotations(masks=mask, labels=torch.tensor([0])), Meta("set", 0))], classes=1).compute()
    assert figures["coco/AP"] == pytest.approx(1.0) and figures["coco/segm/AP"] == pytest.approx(1.0)


def test_half_precision_predictions_are_taken() -> None:
    found = one([BOX], [0], [0.9])
    half = Detections(found.boxes.bfloat16(), found.scores.bfloat16(), found.labels)
    assert metric_of([(half, one([BOX], [0]), Meta("set", 0))], classes=1).compute()["coco/AP"] == pytest.approx(1.0)


def test_summary_names_are_stable() -> None:
    assert list(summarise(metric_of(random_images(0)).tables()["bbox"])) == NAMES
