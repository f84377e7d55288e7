"""Runs the case of mmdetection's units: anchors, overlaps, assigners, coder, suppression, proposals, masks in boxes, dense losses."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from inputs import make
from torch import Tensor
from torch.nn import functional as F

from runners.faster_rcnn import assigned_numbers
from saccade.layers.anchors import cell_anchors, cells_inside, grid_anchors
from saccade.layers.assigning import MaxIoUAssigner
from saccade.layers.box_coder import decode_deltas, encode_deltas
from saccade.layers.classification_losses import SigmoidFocal
from saccade.layers.rpn import box_distance, clip_to_sizes, select_proposals
from saccade.ops.boxes import generalized_iou, pairwise_iou, pairwise_share
from saccade.ops.masks import crop_masks, paste_masks
from saccade.ops.suppression import best_of_regions, suppress_in_groups

Case = dict[str, Any]
Outputs = dict[str, Tensor]
_SIZE = (240, 320)
_RCNN_STDS = (0.1, 0.1, 0.2, 0.2)


def run(folder: Path, case: Case) -> dict[str, np.ndarray]:
    """All outputs of the case in `folder`."""
    given = {name: torch.from_numpy(make(spec)) for name, spec in case["inputs"].items()}
    gts, jitter = given["gts"], given["jitter"]
    own = torch.arange(len(jitter)) % len(gts)  # the object near which each of the first boxes lies
    boxes = given["boxes"].clone()
    boxes[: len(jitter)] = gts[own] + jitter
    near, wanted = boxes[: len(own)], gts[own]
    generators = case["settings"]["anchor generators"]
    results = _anchors("rpn", generators["rpn"], [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)])
    results |= _anchors("retina", generators["retina"], [(3, 4)] * 5) | _overlaps(boxes, near, gts, wanted)
    results |= _assignments(boxes, given, case["settings"]["assigners"]) | _coder(boxes, near, wanted, given["deltas"])
    results |= _suppression(boxes, given["deltas"], given["scores"]) | _proposals(given, generators["rpn"])
    results |= _masks(boxes, gts, given["mask_logits"]) | _losses(given)
    return {name: value.detach().numpy() for name, value in results.items()}


def _cells(generator: Case) -> list[Tensor]:
    if "scales" in generator:
        scales = generator["scales"]
    else:
        octaves = generator["scales_per_octave"]
        scales = [generator["octave_base_scale"] * 2 ** (step / octaves) for step in range(octaves)]
    return [cell_anchors(stride, generator["ratios"], scales) for stride in generator["strides"]]


def _anchors(name: str, generator: Case, grids: list[tuple[int, int]]) -> Outputs:
    cells = _cells(generator)
    size = torch.tensor([[90.0, 110.0]])
    inside = [cells_inside(grid, stride, size)[0] for grid, stride in zip(grids, generator["strides"], strict=True)]
    return {
        f"{name}_base_anchors": torch.stack(cells), f"{name}_grid_level1": grid_anchors(cells[1], (3, 4), (generator["strides"][1],) * 2),
        f"{name}_valid": torch.cat([own.repeat_interleave(len(cells[0])) for own in inside]),
    }


def _overlaps(boxes: Tensor, near: Tensor, gts: Tensor, wanted: Tensor) -> Outputs:
    some = boxes[::6]
    return {
        "overlap_iou": pairwise_iou(some, gts), "overlap_iof": pairwise_share(some, gts), "overlap_giou": generalized_iou(some[:, None], gts),
        "overlap_aligned": pairwise_iou(near[:, None], wanted[:, None])[:, 0, 0],
    }


def _assignments(boxes: Tensor, given: Outputs, assigners: Case) -> Outputs:
    results = {}
    for name, settings in assigners.items():
        low = settings["neg_iou_thr"]
        assigner = MaxIoUAssigner(
            positive=settings["pos_iou_thr"], negative=tuple(low) if isinstance(low, list) else low, minimum=settings["min_pos_iou"],
            low_quality=settings.get("match_low_quality", True), all_ties=settings.get("gt_max_assign_all", True),
            ignore_share=settings["ignore_iof_thr"] if settings["ignore_iof_thr"] > 0 else None,
        )
        found = assigner(boxes, given["gts"], given["ignore"])
        labels = torch.where(found.matched >= 0, given["gt_labels"][found.matched.clamp(min=0)], -1)
        results |= {f"assign_{name}": assigned_numbers(found), f"assign_{name}_labels": labels, f"assign_{name}_overlaps": found.overlaps}
    none = MaxIoUAssigner(positive=0.7, negative=0.3, minimum=0.3)(boxes, torch.zeros(0, 4))
    return results | {"assign_no_gt": assigned_numbers(none)}


def _coder(boxes: Tensor, near: Tensor, wanted: Tensor, deltas: Tensor) -> Outputs:
    results = {}
    for name, stds, factor in (("unit", (1.0,) * 4, 1), ("rcnn", _RCNN_STDS, 2)):
        decoded = decode_deltas(factor * deltas.unflatten(1, (-1, 4)), boxes[:, None], stds)  # (180, 4, 4)
        clipped = clip_to_sizes(decoded, torch.tensor([_SIZE]).expand(len(boxes), 2))
        results |= {f"encode_{name}": encode_deltas(wanted, near, stds), f"decode_{name}": clipped.flatten(1)}
        results |= {f"decode_{name}_unclipped": decode_deltas(deltas[:, :4], boxes, stds)}  # of the plain deltas in both
    return results


def _suppression(boxes: Tensor, deltas: Tensor, scores: Tensor) -> Outputs:
    class_boxes, results = boxes[:, None] + 3 * deltas.unflatten(1, (-1, 4)), {}
    for name, score, overlap, most in (("standard", 0.05, 0.5, 30), ("low", 0.2, 0.3, scores.numel())):
        image = torch.zeros(len(boxes), dtype=torch.int64)
        (region, label), = best_of_regions(class_boxes, scores[:, :-1], image, 1, score_threshold=score, iou_threshold=overlap, most=most)
        results |= {f"multiclass_{name}_boxes": class_boxes[region, label], f"multiclass_{name}_scores": scores[region, label]}
        results |= {f"multiclass_{name}_labels": label, f"multiclass_{name}_kept": region * (scores.shape[1] - 1) + label}
    groups = torch.arange(len(boxes)) % 3
    results["batched_kept"] = suppress_in_groups(boxes - 200, scores[:, 0], groups, 0.4, reference_quirks=True)
    return results | {"agnostic_kept": suppress_in_groups(boxes - 200, scores[:, 0], torch.zeros_like(groups), 0.4)}


def _proposals(given: Outputs, generator: Case) -> Outputs:
    logits, deltas = ([given[f"rpn_{kind}{level}"] for level in range(5)] for kind in ("cls", "reg"))
    grids = zip(_cells(generator), logits, generator["strides"], strict=True)
    anchors = [grid_anchors(cell, (own.shape[-2], own.shape[-1]), (stride, stride)) for cell, own, stride in grids]
    results, sizes = {}, torch.tensor([[92.0, 122.0]])
    for name, per_level, overlap, smallest, total in (("test", 300, 0.7, 0.0, 200), ("small", 100, 0.5, 16.0, 60)):
        (boxes, scores), = select_proposals(
            logits, deltas, anchors, sizes, per_level=per_level, total=total, iou_threshold=overlap, min_size=smallest
        )
        results |= {f"proposals_{name}": boxes, f"proposals_{name}_scores": scores}
    return results


def _masks(boxes: Tensor, gts: Tensor, logits: Tensor) -> Outputs:
    places = gts.clone()
    places[0], places[1] = torch.tensor([-20.5, -10.2, 60.3, 90.9]), torch.tensor([290.2, 200.7, 345.5, 260.1])
    pasted = paste_masks(logits.sigmoid(), places, _SIZE)
    centers, radii = (gts[:, :2] + gts[:, 2:]) / 2, (gts[:, 2:] - gts[:, :2]) / 2
    x = (torch.arange(_SIZE[1]) + 0.5 - centers[:, :1]) / radii[:, :1]
    y = (torch.arange(_SIZE[0]) + 0.5 - centers[:, 1:]) / radii[:, 1:]
    ellipses = x[:, None] ** 2 + y[:, :, None] ** 2 <= 1
    target = crop_masks(ellipses[torch.arange(12) % len(gts)], boxes[:12], 28)
    return {"pasted": pasted, "pasted_binary": pasted >= 0.5, "mask_target": target.float()}


def _losses(given: Outputs) -> Outputs:
    logits, labels, deltas = given["focal_logits"].requires_grad_(), given["focal_labels"], given["deltas"]
    rows = torch.arange(len(labels))
    weight = (rows % 4 != 0).float()
    focal = SigmoidFocal(gamma=2.0, alpha=0.25)(logits, F.one_hot(labels, logits.shape[1] + 1)[:, :-1].float()) * len(logits) / 17
    gradient, = torch.autograd.grad(focal, logits)
    # With a single logit the original's labels are class indices: 0 the class, 1 the background. So label > 1 is what is not the class.
    bce = F.binary_cross_entropy_with_logits(logits[:, 0], 1 - (labels > 1).float(), weight, reduction="sum") / 31 * 0.7
    ce = (F.cross_entropy(logits, labels % 4, reduction="none") * weight).sum() / 90
    odd = (torch.arange(len(deltas)) % 2 == 1)[:, None]
    results = {"focal": focal, "bce": bce, "ce": ce, "l1": box_distance(deltas[:, :4], deltas[:, 4:8], 0.0).sum() / 45}
    for beta in (1.0, 1 / 9):
        results[f"smooth_l1_{beta:.2f}"] = 2 * (box_distance(deltas[:, :4], deltas[:, 4:8], beta) * odd).sum() / 45
    return {name: value.reshape(1) for name, value in results.items()} | {"focal_gradient": gradient}


RUNNERS = [(lambda case: case["case"].startswith("mmdet_units"), run)]
