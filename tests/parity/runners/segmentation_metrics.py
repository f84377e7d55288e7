"""Runs the case of segmentation figures: label maps with ignored pixels and absent classes, all images in one matrix."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.metrics.segmentation import SegmentationIoU
from saccade.structures import IGNORE, Annotations, Meta, SegmentationMap

Outputs = dict[str, np.ndarray]


def run(folder: Path, case: dict[str, Any]) -> Outputs:
    """The matrix, IoU by class (-1 where undefined), and the means."""
    from inputs import make  # tests/parity is on the path of whoever runs a case

    inputs = case["inputs"]
    numbers = sorted(int(name.removeprefix("label")) for name in inputs if name.startswith("label"))
    num_classes = case["outputs"]["confusion"]["shape"][0]
    metric = SegmentationIoU(classes=[str(k) for k in range(num_classes)])
    for number in numbers:
        label, noise, agree = (make(inputs[f"{name}{number}"]) for name in ("label", "noise", "agree"))
        prediction = np.where(agree & (label != IGNORE), label, noise)
        truth = Annotations(segmentation=torch.from_numpy(label))
        metric.update([SegmentationMap(torch.from_numpy(prediction))], [truth], [Meta("case", number)])
    figures = metric.compute()
    by_class = np.array([figures[f"iou/class/{name}"] for name in metric.classes])
    named = {"mean_iou": "mIoU", "overall_accuracy": "accuracy", "mean_accuracy": "mean_accuracy", "frequency_weighted_iou": "fwIoU",
             "proda_mean_iou": "mIoU"}
    outputs = {name: np.array(figures[f"iou/{figure}"]) for name, figure in named.items()}
    return outputs | {"confusion": metric.confusion()[:, :-1], "iou": np.nan_to_num(by_class, nan=-1)}


RUNNERS: list[tuple[Callable[[dict[str, Any]], bool], Callable[[Path, dict[str, Any]], Outputs]]] = [
    (lambda case: case["case"].startswith("segmentation_metrics"), run),
]
