"""B4: COCO box AP against pycocotools and plain faster-coco-eval, from predictions in memory to the twelve figures.

1000 synthetic images with 7000 true boxes and 98 000 detections in 80 classes. pycocotools and faster-coco-eval start from the json's dictionaries,
already parsed, and their time includes building their index and loading the results; ours starts from tensors and includes `update`. The three
alternate; the figures are compared, then median and fastest are printed. Goal: at least 7 times as fast as pycocotools.

    python benchmarks/b04_coco_ap.py [--repeats 7]
"""
from __future__ import annotations

import argparse
import contextlib
import copy
import io
import statistics
import time
from typing import Any

import faster_coco_eval
import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from saccade.metrics.coco import CocoDetection, summarise
from saccade.structures import Annotations, Detections, Meta

Images = list[tuple[Detections, Annotations, Meta]]


def synthetic(images: int = 1000, true: int = 7, found: int = 98, classes: int = 80, seed: int = 0) -> Images:
    """Random truth and detections around it, as the tensors that a model and a reader give."""
    random, result = np.random.default_rng(seed), []
    for number in range(1, images + 1):
        corner, side = random.uniform(0, 400, (true, 2)), random.uniform(5, 240, (true, 2))
        labels, near = random.integers(0, classes, true), random.integers(0, true, found)
        corners, sides = corner[near] + random.normal(0, 12, (found, 2)), side[near] * np.exp(random.normal(0, 0.2, (found, 2)))
        guessed = np.where(random.random(found) < 0.5, labels[near], random.integers(0, classes, found))
        truth = torch.from_numpy(np.concatenate([corner, corner + side], 1)).float()
        boxes = torch.from_numpy(np.concatenate([corners, corners + sides], 1)).float()
        areas = (truth[:, 2:] - truth[:, :2]).prod(1)
        crowd = torch.from_numpy(random.random(true) < 0.02)
        prediction = Detections(boxes, torch.from_numpy(random.random(found)).float(), torch.from_numpy(guessed))
        result.append((prediction, Annotations(truth, torch.from_numpy(labels), crowd=crowd, areas=areas), Meta("town", number)))
    return result


def as_json(images: Images, classes: int = 80) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same truth and results as COCO's dictionaries."""
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)]}
    results = []

    def sides(boxes: torch.Tensor) -> list[list[float]]:
        wide = boxes.double()
        return torch.cat([wide[:, :2], wide[:, 2:] - wide[:, :2]], 1).tolist()

    for found, true, meta in images:
        assert true.boxes is not None and true.labels is not None and true.crowd is not None and true.areas is not None
        truth["images"].append({"id": meta.id, "width": 640, "height": 480})
        for box, label, crowd, area in zip(sides(true.boxes), true.labels.tolist(), true.crowd.tolist(), true.areas.tolist(), strict=True):
            number = len(truth["annotations"]) + 1
            row = {"id": number, "image_id": meta.id, "category_id": label + 1, "bbox": box, "area": area, "iscrowd": int(crowd)}
            truth["annotations"].append(row)
        for box, label, score in zip(sides(found.boxes), found.labels.tolist(), found.scores.tolist(), strict=True):
            results.append({"image_id": meta.id, "category_id": label + 1, "bbox": box, "score": score})
    return truth, results


def ours(images: Images) -> np.ndarray:
    """The twelve figures by saccade."""
    metric = CocoDetection(classes=[str(k) for k in range(80)])
    for prediction, target, meta in images:
        metric.update([prediction], [target], [meta])
    return np.array(list(summarise(metric.tables()["bbox"]).values()))


def theirs(truth: dict[str, Any], results: list[dict[str, Any]]) -> np.ndarray:
    """The twelve figures by pycocotools."""
    index = COCO()
    index.dataset = truth
    index.createIndex()
    evaluation = COCOeval(index, index.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return np.asarray(evaluation.stats)


def faster(truth: dict[str, Any], results: list[dict[str, Any]]) -> np.ndarray:
    """The twelve figures by faster-coco-eval as it is."""
    index = faster_coco_eval.COCO(truth)
    evaluation = faster_coco_eval.COCOeval_faster(index, index.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return np.asarray(evaluation.stats)


def main() -> None:
    """Compares the figures, then alternates the three and prints their times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    images = synthetic()
    json = as_json(images)
    runs = {"saccade": lambda _: ours(images), "faster-coco-eval": lambda data: faster(*data), "pycocotools": lambda data: theirs(*data)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    figures: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            data = copy.deepcopy(json)  # loading writes into the dictionaries
            with contextlib.redirect_stdout(io.StringIO()):
                start = time.perf_counter()
                figures[name] = run(data)
                times[name].append(time.perf_counter() - start)
    difference = max(float(np.abs(figures["saccade"] - figures[name]).max()) for name in runs)
    assert difference <= 1e-12, f"the figures differ by {difference}"
    print(f"B4 COCO AP, 1000 images, 105 000 boxes, {torch.get_num_threads()} threads, {repeats} repetitions")
    print(f"largest difference of a figure {difference:.1e}")
    for name, seconds in times.items():
        print(f"{name:18s} median {statistics.median(seconds):6.3f} s   fastest {min(seconds):6.3f} s")
    for name in ("pycocotools", "faster-coco-eval"):
        ratios = [theirs_s / ours_s for theirs_s, ours_s in zip(times[name], times["saccade"], strict=True)]
        print(f"saccade is {statistics.median(ratios):.2f} times as fast as {name} (median of the pairs; {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
