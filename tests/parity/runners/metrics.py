"""Runs the metric cases: COCO, VOC and classification figures on stored or filled predictions."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.metrics.classification import ClassificationAccuracy
from saccade.metrics.coco import CocoDetection, summarise
from saccade.metrics.coco_evaluation import Tables
from saccade.metrics.voc import VocDetection
from saccade.structures import Annotations, Classification, Detections, Meta

Outputs = dict[str, np.ndarray]
_VOC_INPUTS = ("pred_boxes", "pred_scores", "pred_labels", "gt_boxes", "gt_labels", "gt_difficult")


def _masks(segmentations: list[Any], size: tuple[int, int]) -> torch.Tensor:
    from pycocotools import mask

    runs = []
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            runs.append(mask.merge(mask.frPyObjects(segmentation, *size)))
        elif isinstance(segmentation["counts"], list):
            runs.append(mask.frPyObjects(segmentation, *size))
        else:
            runs.append(segmentation)
    return torch.from_numpy(mask.decode(runs).transpose(2, 0, 1).copy()).bool() if runs else torch.zeros(0, *size, dtype=torch.bool)


def _corners(boxes: list[list[float]]) -> torch.Tensor:
    values = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    return torch.cat([values[:, :2], values[:, :2] + values[:, 2:]], 1)


def _coco_metric(folder: Path, masks: bool, class_agnostic: bool) -> CocoDetection:
    truth = json.loads((folder / "gt.json").read_text())
    rows = json.loads((folder / ("detections_segm.json" if masks else "detections_bbox.json")).read_text())
    label = {c["id"]: i for i, c in enumerate(sorted(truth["categories"], key=lambda c: c["id"]))}
    metric = CocoDetection(classes=[c["name"] for c in sorted(truth["categories"], key=lambda c: c["id"])], class_agnostic=class_agnostic)
    for image in truth["images"]:
        size = (image["height"], image["width"])
        found = [r for r in rows if r["image_id"] == image["id"]]
        true = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        prediction = Detections(
            boxes=torch.zeros(len(found), 4) if masks else _corners([r["bbox"] for r in found]),
            scores=torch.tensor([r["score"] for r in found], dtype=torch.float64),
            labels=torch.tensor([label[r["category_id"]] for r in found], dtype=torch.int64),
            masks=_masks([r["segmentation"] for r in found], size) if masks else None,
        )
        target = Annotations(
            boxes=_corners([a["bbox"] for a in true]),
            labels=torch.tensor([label[a["category_id"]] for a in true], dtype=torch.int64),
            crowd=torch.tensor([bool(a["iscrowd"]) for a in true], dtype=torch.bool),
            areas=torch.tensor([a["area"] for a in true], dtype=torch.float64),
            masks=_masks([a["segmentation"] for a in true], size) if masks else None,
        )
        metric.update([prediction], [target], [Meta(dataset="case", id=image["id"])])
    return metric


def _per_area(tables: Tables) -> np.ndarray:
    categories, areas = tables.precision.shape[2:4]
    result = np.full((categories, areas), -1.0)
    for k in range(categories):
        for a in range(areas):
            defined = tables.precision[:, :, k, a, -1]
            defined = defined[defined > -1]
            result[k, a] = defined.mean() if defined.size else -1.0
    return result


def run_coco(folder: Path, case: dict[str, Any]) -> Outputs:
    """The summaries, tables and per-category figures of boxes and masks, with and without categories."""
    outputs: Outputs = {}
    for kind in ("bbox", "segm"):
        tables = _coco_metric(folder, kind == "segm", False).tables()[kind]  # type: ignore[index]
        agnostic = _coco_metric(folder, kind == "segm", True).tables()[kind]  # type: ignore[index]
        per_area = _per_area(tables)
        outputs |= {
            f"{kind}_stats": np.array(list(summarise(tables).values())),
            f"{kind}_precision": tables.precision[:, :, :, 0, -1],
            f"{kind}_recall": tables.recall[:, :, 0, -1],
            f"{kind}_ap_per_category": per_area[:, 0],
            f"{kind}_ap_per_area": per_area,
            f"{kind}_scores_at_recall": tables.scores[0, ::4, :, 0, -1],
            f"{kind}_nocats_stats": np.array(list(summarise(agnostic).values())),
        }
    return outputs


def run_voc(folder: Path, case: dict[str, Any]) -> Outputs:
    """Both averages at the thresholds that the outputs name, and the curve of class 0 at the first."""
    golden = np.load(folder / "golden.npz")
    thresholds = sorted({float(name.split("_")[1]) for name in case["outputs"] if name.startswith(("area_", "points11_"))})
    num_classes = case["outputs"][f"area_{thresholds[0]:g}_ap"]["shape"][0]
    metric = VocDetection(classes=[str(k) for k in range(num_classes)], iou_thresholds=thresholds, pixel_inclusive=True)
    found, true = np.cumsum(golden["in_pred_count"])[:-1], np.cumsum(golden["in_gt_count"])[:-1]
    split = {name: np.split(golden[f"in_{name}"], found if name.startswith("pred") else true) for name in _VOC_INPUTS}
    for number in range(len(golden["in_pred_count"])):
        row = {name: torch.from_numpy(parts[number]) for name, parts in split.items()}
        prediction = Detections(row["pred_boxes"], row["pred_scores"], row["pred_labels"].long())
        target = Annotations(row["gt_boxes"], row["gt_labels"].long(), difficult=row["gt_difficult"].bool())
        metric.update([prediction], [target], [Meta("case", number)])
    figures, curves, outputs = metric.compute(), metric.curves(), {}
    for threshold in thresholds:
        suffix = "" if threshold == thresholds[0] else f"@{threshold:g}"
        outputs |= {
            f"area_{threshold:g}_ap": np.nan_to_num([c.area() for c in curves[threshold]], nan=-1),
            f"area_{threshold:g}_map": np.array(figures[f"voc/mAP{suffix}"]),
            f"points11_{threshold:g}_ap": np.nan_to_num([c.eleven_points() for c in curves[threshold]], nan=-1),
            f"points11_{threshold:g}_map": np.array(figures[f"voc/mAP07{suffix}"]),
        }
    first = curves[thresholds[0]][0]
    return outputs | {"precision_class0": first.precision, "recall_class0": np.asarray(first.recall)}


def run_classification(folder: Path, case: dict[str, Any]) -> Outputs:
    """Every rate as a percentage, on the filled scores and (z_*) on the scores with one column of zeros."""
    from inputs import make  # tests/parity is on the path of whoever runs a case

    scores, labels = make(case["inputs"]["scores"]), make(case["inputs"]["labels"])
    zeroed = scores.copy()
    zeroed[:, make(case["inputs"]["zero_column"])] = 0
    return _rates(scores, labels, case["settings"], "") | _rates(zeroed, labels, case["settings"], "z_")


def _rates(scores: np.ndarray, labels: np.ndarray, settings: dict[str, Any], prefix: str) -> Outputs:
    metric = ClassificationAccuracy(classes=[str(k) for k in range(settings["classes"])])
    predictions = [Classification(row) for row in torch.from_numpy(scores)]
    metric.update(predictions, [Annotations(label=int(y)) for y in labels], [Meta("case", i) for i in range(len(labels))])
    thresholds = settings["thresholds"]
    tables, plain = [metric.class_table(t) for t in thresholds], metric.class_table(None)
    outputs = {f"top{k}": 100 * np.array([metric.accuracy(k)]) for k in settings["topk"]}
    outputs |= {f"top{k}_thr": 100 * np.array([metric.accuracy(k, t) for t in thresholds]) for k in settings["topk"]}
    for name in ("precision", "recall", "f1"):
        by_class = 100 * np.stack([getattr(table, name) for table in tables])
        outputs |= {f"{name}_none_thr": by_class, f"{name}_macro_thr": by_class.mean(1)}
    outputs |= {
        "support_none": tables[0].support,
        "support_macro": np.array(tables[0].support.sum()),
        "prf_none_threshold": 100 * np.array([plain.precision.mean(), plain.recall.mean(), plain.f1.mean()]),
        "confusion": metric.confusion(),
    }
    return {prefix + name: value for name, value in outputs.items()}


RUNNERS: list[tuple[Callable[[dict[str, Any]], bool], Callable[[Path, dict[str, Any]], Outputs]]] = [
    (lambda case: case["case"].startswith("coco_metrics"), run_coco),
    (lambda case: case["case"].startswith("voc_metrics"), run_voc),
    (lambda case: case["case"].startswith("mmcls_metrics"), run_classification),
]
