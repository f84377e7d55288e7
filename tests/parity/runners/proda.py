"""Runs the ProDA cases that pin its algorithm: class means, prototypes, denoised labels, losses, and the published warps of maps."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from inputs import make
from torch import Tensor

from saccade.adaptation.label_losses import label_cross_entropy, reverse_cross_entropy, symmetric_cross_entropy
from saccade.adaptation.prototypes import ClassMeans, PrototypeBank, assignment, class_means, denoised
from saccade.adaptation.published_warps import StrongSteps, WeakCrop, strong_maps, weak_maps
from saccade.adaptation.terms.spread import spread
from saccade.adaptation.terms.structure_consistency import structure_consistency
from saccade.data.transforms.strong import GEOMETRIC
from saccade.structures import IGNORE

Outputs = dict[str, np.ndarray]
_IGNORED = 250  # of the reference


def run_algorithm(folder: Path, case: dict[str, Any]) -> Outputs:
    """`proda_algorithm`."""
    given = {name: torch.from_numpy(make(spec)) for name, spec in case["inputs"].items()}
    settings = case["settings"]
    outputs = _means(given, settings) | _banks(given, settings) | _denoising(given, settings)
    return {name: value.detach().numpy() for name, value in outputs.items()}


def _rows(means: ClassMeans) -> tuple[Tensor, Tensor]:
    """(class, vector) of everything found, images first."""
    return means.found.nonzero()[:, 1].int(), means.vectors[means.found]


def _means(given: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    features, best, classes = given["feat"], given["out"].argmax(1), settings["classes"]
    sure = given["out"].softmax(1).amax(1) >= settings.get("confidence", 0.5)
    found = {
        "mean": class_means(features, best, classes), "labelled": class_means(features, best, classes, labels=given["labels"]),
        "confident": class_means(features, best, classes, sure=sure), "source": class_means(features, best, classes, labels=given["labels"]),
    }
    rows = {name: _rows(means) for name, means in found.items()}
    return {f"{name}_ids": ids for name, (ids, _) in rows.items()} | {f"{name}_vectors": vectors for name, (_, vectors) in rows.items()}


def _banks(given: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    first, second = (class_means(given[f"feat{n}"], given[f"out{n}"].argmax(1), settings["classes"]) for n in ("", "2"))
    bank = PrototypeBank.empty(settings["classes"], settings["features"]).averaged(first).averaged(second)
    start = bank.averaged(second)
    moving = start.moved(first, settings.get("proto_momentum", 0.01))
    return {
        "prototypes_mean": bank.vectors, "prototypes_mean_counts": bank.counts, "prototypes_start": start.vectors,
        "prototypes_moving": moving.vectors, "prototypes_moving_counts": moving.counts,
    }


def _denoising(given: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    temperature, student = settings["proto_temperature"], given["student"].requires_grad_()
    bank = PrototypeBank(given["prototypes"], torch.ones(settings["classes"]))
    features = weak_maps(given["feat"], _weak_crops(settings["weak_params"]))
    distances = bank.distances(features)
    weights = assignment(distances, temperature)
    labels, confidence = denoised(weights, given["soft"])
    known = labels.masked_fill(confidence < settings.get("train_thred", 0.5), IGNORE)
    reverse, symmetric, even = reverse_cross_entropy(student, known), symmetric_cross_entropy(student, known), spread(student, "kld")
    (gradient,) = torch.autograd.grad(symmetric + 0.1 * even, student)
    steps = _strong_steps(settings["strong_params"], len(student))
    strong_labels, left = strong_maps(known[:, None], steps)
    strong_distances, _ = strong_maps(distances, steps)
    consistency = structure_consistency(
        bank.distances(given["student_feat"]), strong_distances, left, temperature=temperature, reference_quirks=True)
    return {
        "weak_feat": features, "distance": distances, "prototype_weight": weights, "rectified_label": labels.int(),
        "rectified_confidence": confidence, "thresholded_label": _as_published(known), "cross_entropy": label_cross_entropy(student, known),
        "reverse_cross_entropy": reverse, "symmetric": symmetric, "regular_mrkld": even, "regular_mrent": spread(student, "entropy"),
        "symmetric_grad_norm": gradient.norm(), "symmetric_grad": gradient[:, ::3, ::4, ::5],
        "strong_label": _as_published(strong_labels[:, 0].masked_fill(~left, IGNORE)),
        "strong_distance": strong_distances.masked_fill(~left[:, None], _IGNORED), "consistency": consistency,
    }


def _as_published(labels: Tensor) -> Tensor:
    return labels.masked_fill(labels == IGNORE, _IGNORED).int()


def _weak_crops(given: dict[str, Any]) -> list[WeakCrop]:
    crops = []
    for height, width, y1, y2, x1, x2, flip in zip(*given["RandomSized"], *given["RandomCrop"], given["RandomHorizontallyFlip"], strict=True):
        crops.append(WeakCrop((height, width), (y1, x1, y2 - y1, x2 - x1), bool(flip)))
    return crops


def _strong_steps(given: dict[str, Any], number: int) -> list[StrongSteps]:
    boxes = next((value for name, value in given.items() if name.startswith("Cutout")), [None] * number)
    flips = given.get("Hflip", [0] * number)
    operations = [{name: given[name][i] for name in GEOMETRIC if given.get(name, [None] * number)[i] is not None} for i in range(number)]
    return [StrongSteps(bool(flip), own, None if box is None else tuple(box)) for flip, own, box in zip(flips, operations, boxes, strict=True)]


RUNNERS = [(lambda case: case["case"].startswith("proda_algorithm"), run_algorithm)]
