"""Runs `detr_criterion*`: Hungarian matching and every term of the set criterion, for the case's batch and for one without objects."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inputs import make
from torch import Tensor

from saccade.layers.set_criterion import SetCriterion
from saccade.layers.set_matching import Matches, SetTruth

Case = dict[str, Any]
Outputs = dict[str, np.ndarray]


def criterion_of(settings: dict[str, Any]) -> SetCriterion:
    """The criterion of a case's `settings`."""
    costs = {name: settings[name] for name in ("cost_class", "cost_bbox", "cost_giou")}
    weights = {name.replace("loss", "weight"): value for name, value in settings["weights"].items()}
    return SetCriterion(eos_coef=settings["eos_coef"], **costs, **weights)


def run(folder: Path, case: Case) -> Outputs:
    """Matches, losses without weights and figures of the batch, the weighted total, and the same (`empty_*`) of the images without objects."""
    given = {name: torch.from_numpy(make(spec)) for name, spec in case["inputs"].items()}
    earlier = sorted((name.removesuffix("_boxes") for name in given if name.startswith("aux") and name.endswith("_boxes")), key=lambda n: int(n[3:]))
    outputs = {name: torch.stack([*(given[f"{layer}_{name}"] for layer in earlier), given[name]]) for name in ("logits", "boxes")}
    if "masks" in case["settings"]["losses"]:
        outputs["masks"] = given["masks"]
    images = range(sum(name.startswith("target") and name.endswith("_labels") for name in given))
    objects = [{name: given.get(f"target{i}_{name}") for name in ("labels", "boxes", "masks")} for i in images]
    criterion = criterion_of(case["settings"])
    results = _results(criterion, outputs, _truth(objects))
    empty = [i for i, own in enumerate(objects) if own["labels"] is not None and not len(own["labels"])]
    if empty:
        alone = {name: value[empty] if name == "masks" else value[:, empty] for name, value in outputs.items()}
        without = _results(criterion, alone, _truth([objects[i] for i in empty]))
        results |= {f"empty_{name}": value for name, value in without.items() if "match" not in name}
    return {name: value.detach().numpy() for name, value in results.items()}


def _truth(objects: list[dict[str, Tensor | None]]) -> SetTruth:
    """Targets as the cases give them: boxes are relative already, masks have the size of their image."""
    labels, boxes, masks = ([own[name] for own in objects if own[name] is not None] for name in ("labels", "boxes", "masks"))
    counts = torch.tensor([len(own) for own in labels])
    padded = None
    if masks:
        height, width = (max(m.shape[axis] for m in masks) for axis in (1, 2))
        padded = torch.cat([torch.nn.functional.pad(m, (0, width - m.shape[2], 0, height - m.shape[1])) for m in masks])
    return SetTruth(torch.cat(labels), torch.cat(boxes), torch.arange(len(labels)).repeat_interleave(counts), counts, padded)


def _results(criterion: SetCriterion, outputs: dict[str, Tensor], truth: SetTruth) -> dict[str, Tensor]:
    unweighted = dataclasses.replace(criterion, **{f"weight_{name}": 1.0 for name in ("ce", "bbox", "giou", "mask", "dice")})
    matches = criterion.match(outputs, truth)
    total = torch.stack(list(criterion.losses(outputs, truth, matches=matches).values())).sum()
    losses = unweighted.losses(outputs, truth, matches=matches)
    return {**losses, **criterion.figures(outputs, truth, matches), "total": total, **_pairs(matches, truth, len(outputs["logits"]))}


def _pairs(matches: Matches, truth: SetTruth, layers: int) -> dict[str, Tensor]:
    """`match{i}` of the last layer and `aux{l}_match{i}`: (2, n) query and target, numbered within the image."""
    starts = truth.counts.cumsum(0) - truth.counts
    pairs: dict[str, Tensor] = {}
    for layer in range(layers):
        own = matches.of_layer(layer)
        for image in range(len(truth.counts)):
            here = own.image == image
            name = f"match{image}" if layer == layers - 1 else f"aux{layer}_match{image}"
            pairs[name] = torch.stack([own.query[here], own.target[here] - starts[image]])
    return pairs


RUNNERS: list[tuple[Callable[[Case], bool], Callable[[Path, Case], Outputs]]] = [
    (lambda case: case["case"].startswith("detr") and "criterion" in case["case"], run),
]
