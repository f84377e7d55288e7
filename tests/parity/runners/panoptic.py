"""Runs the panoptic cases: panoptic quality on stored maps, and DETR's panoptic and instance post-processing on filled logits."""
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.layers.panoptic_merging import masks_from_queries, panoptic_from_queries
from saccade.metrics.panoptic import PanopticQuality
from saccade.structures import Annotations, Meta, Panoptic, Segment

Outputs = dict[str, np.ndarray]


def run_metrics(folder: Path, case: dict[str, Any]) -> Outputs:
    """Quality over all, things, stuff and by category."""
    golden = np.load(folder / "golden.npz")
    (flags,) = (value for key, value in case["settings"].items() if key.startswith("categories"))
    things = {int(number): bool(thing) for number, thing in flags.items()}
    label = {number: row for row, number in enumerate(things)}
    metric = PanopticQuality(classes=[str(number) for number in things])
    for image, segments in enumerate(case["inputs"]["segments"]):
        truth = [Segment(i, label[c], things[c], bool(crowd)) for i, c, crowd in segments["gt"]]
        found = [Segment(i, label[c], things[c]) for i, c in segments["pred"]]
        true_map, map_ = (torch.from_numpy(golden[f"in_{kind}{image}"]).long() for kind in ("gt", "pred"))
        metric.update([Panoptic(map_, tuple(found))], [Annotations(panoptic=Panoptic(true_map, tuple(truth)))], [Meta("case", image)])
    table = metric.table()
    outputs: Outputs = {}
    for name, rows in {"all": table.occurs, "things": table.occurs & table.things, "stuff": table.occurs & ~table.things}.items():
        outputs[name] = np.array([*(float(column[rows].mean()) for column in (table.pq, table.sq, table.rq)), rows.sum()])
    columns = (np.array(list(things)), table.pq, table.sq, table.rq, table.tp, table.fp, table.fn)
    return outputs | {"per_category": np.stack(columns, 1)}


def run_postprocess(folder: Path, case: dict[str, Any]) -> Outputs:
    """The id maps and segments of every image, those without any query, and the instance masks."""
    from inputs import make  # tests/parity is on the path of whoever runs a case

    settings = case["settings"]
    logits, masks = (torch.from_numpy(make(case["inputs"][name])) for name in ("logits", "masks"))
    sizes, originals = ([tuple(size) for size in settings[key]] for key in ("processed_sizes", "target_sizes"))
    last_thing = int(re.findall(r"\d+", settings["is_thing"])[-1])
    labels = logits.shape[-1] - 1
    things = [number <= last_thing for number in range(labels)]
    canvas = (max(s[0] for s in sizes), max(s[1] for s in sizes))
    shared: dict[str, Any] = {"sizes": sizes, "canvas": canvas, "things": things, "reference_quirks": True}
    found = panoptic_from_queries(logits, masks, original_sizes=originals, threshold=settings["threshold"], **shared)
    none = panoptic_from_queries(logits, masks, original_sizes=sizes, threshold=1.1, **shared)
    scores, best = logits.softmax(-1).max(-1)
    outputs: Outputs = {"above_threshold": ((best < labels) & (scores > settings["threshold"])).sum(1).numpy()}
    for prefix, maps in (("", found), ("none_", none)):
        for number, panoptic in enumerate(maps):
            outputs[f"{prefix}ids{number}"], outputs[f"{prefix}segments{number}"] = _as_published(panoptic)
    binary = masks_from_queries(
        masks, sizes=sizes, original_sizes=originals, canvas=canvas, threshold=settings["segm_threshold"], reference_quirks=True
    )
    for number, instance in enumerate(binary):
        outputs[f"binary{number}_area"] = instance.sum((1, 2)).numpy()
        for name in case["outputs"]:
            if query := re.fullmatch(rf"binary{number}_query(\d+)", name):
                outputs[name] = instance[int(query[1])].numpy().astype(np.uint8)
    return outputs


def _as_published(panoptic: Panoptic) -> tuple[np.ndarray, np.ndarray]:
    """Ids from 0 and rows of id, is thing, category, area: the original counts its segments from 0, which here is void."""
    ids = panoptic.segment_map.numpy() - (1 if panoptic.segments else 0)
    rows = [[s.id - 1, s.is_thing, s.label, area] for s, area in zip(panoptic.segments, panoptic.areas().tolist(), strict=True)]
    return ids, np.array(rows, dtype=np.int64).reshape(-1, 4)


RUNNERS: list[tuple[Callable[[dict[str, Any]], bool], Callable[[Path, dict[str, Any]], Outputs]]] = [
    (lambda case: case["case"].startswith("panoptic_metrics"), run_metrics),
    (lambda case: case["case"].startswith("detr_panoptic_post"), run_postprocess),
]
