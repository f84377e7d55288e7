"""One-to-one matching of queries with objects (Carion et al. 2020, section 3.1; detr_family.md 1.7): costs, the Hungarian core, the truth it takes.

Costs are computed on the device, for all decoder layers together and only between an image and its own objects; they go to the host once, where SciPy
solves one assignment an image and layer. `match_sets` takes any such costs, so also those that somebody else built (a row an instance, a column a
sequence of queries), and pairs that are fixed beforehand (track queries). Left out: one-to-many matching.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert

from saccade.errors import DataError, NumericError
from saccade.ops.boxes import generalized_iou
from saccade.structures import Annotations

_log = logging.getLogger(__name__)
_SHOWN = 5
_warned_of_crowds = False


class SetTruth(NamedTuple):
    """The T objects of a batch of N images, one image after another.

    `labels` (T,) int64, places among the logits; `boxes` (T, 4) float32 (cx, cy, w, h) relative to their image without padding; `image` (T,) int64,
    non-decreasing; `counts` (N,) int64, objects of each image, on the CPU; `masks` (T, H, W) bool in the padded size, or None.
    """

    labels: Tensor
    boxes: Tensor
    image: Tensor
    counts: Tensor
    masks: Tensor | None = None


class Matches(NamedTuple):
    """Pairs of a query and an object, ordered by layer, image and query: (M,) int64 each.

    `layer` of the decoder, `image` of the batch, `query` of that image, and `target`, the row of the object in the truth.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor

    def of_layer(self, layer: int) -> Matches:
        """The pairs of one decoder layer."""
        return Matches(*(part[self.layer == layer] for part in self))


class CostWeights(NamedTuple):
    """What the terms of the cost count: class, L1 distance of the boxes, generalised IoU. In the order of `cost_terms`."""

    label: float = 1.0
    bbox: float = 5.0
    giou: float = 2.0


def set_truth(
    targets: Sequence[Annotations], sizes: Tensor, logit_of_label: Tensor, device: torch.device, masks: bool = False,
    mask_size: tuple[int, int] | None = None,
) -> SetTruth:
    """The objects of a batch; crowds and boxes without area (or not finite) are left out.

    `targets`: boxes in pixels of the network's images, whose own sizes without padding are `sizes` (N, 2) (height, width). `logit_of_label` (K,): the
    place of each class among the logits. With `masks` the masks are filled up with zeros to `mask_size` (height, width), by default the largest
    height and width in the batch. Raises DataError for boxes without labels, or without masks where those are asked for.
    """
    _check_annotated(targets, masks)
    numbers = torch.tensor([0 if t.boxes is None else len(t.boxes) for t in targets])
    known = [t for t in targets if t.boxes is not None and len(t.boxes)]
    if not known:
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        none = torch.zeros(0, *(mask_size or _largest(targets)), dtype=torch.bool, device=device) if masks else None
        return SetTruth(empty, torch.zeros(0, 4, device=device), empty, torch.zeros_like(numbers), none)
    boxes = _joined([t.boxes for t in known]).to(device, torch.float32)
    regular = boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    crowd = [torch.zeros_like(t.boxes[:, 0], dtype=torch.bool) if t.crowd is None else t.crowd for t in known if t.boxes is not None]
    keep = (regular & ~_joined(crowd).to(device, torch.bool)).cpu().nonzero()[:, 0]
    image = torch.arange(len(targets)).repeat_interleave(numbers)[keep]  # on the CPU, as is `keep`
    counts, image, kept = image.bincount(minlength=len(targets)), image.to(device), keep.to(device)
    boxes = box_convert(boxes[kept], "xyxy", "cxcywh") / sizes.to(device, torch.float32).flip(1).repeat(1, 2)[image]
    labels = logit_of_label.to(device)[_joined([t.labels for t in known]).to(device)[kept]]
    padded = _padded_masks(known, keep, numbers[numbers > 0], mask_size or _largest(targets), device) if masks else None
    return SetTruth(labels, boxes, image, counts, padded)


def _check_annotated(targets: Sequence[Annotations], masks: bool) -> None:
    for number, target in enumerate(targets):
        if target.boxes is None or not len(target.boxes):
            continue
        missing = [name for name, wanted in (("labels", True), ("masks", masks)) if wanted and getattr(target, name) is None]
        if missing:
            raise DataError(
                f"Image {number} of the batch has {len(target.boxes)} boxes but no {' and no '.join(missing)}, which this model learns from; use a "
                "data set that has them (and is told to read them)."
            )


def _joined(parts: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([part.as_subclass(Tensor) for part in parts if part is not None])


def _largest(targets: Sequence[Annotations]) -> tuple[int, int]:
    shapes = [t.masks.shape[-2:] for t in targets if t.masks is not None]
    return max((s[0] for s in shapes), default=0), max((s[1] for s in shapes), default=0)


def _padded_masks(known: Sequence[Annotations], keep: Tensor, numbers: Tensor, size: tuple[int, int], device: torch.device) -> Tensor:
    masks = torch.zeros(len(keep), *size, dtype=torch.bool, device=device)
    starts = torch.cumsum(numbers, 0) - numbers
    at = 0
    for target, start, number in zip(known, starts.tolist(), numbers.tolist(), strict=True):  # images: each has its own size
        assert target.masks is not None
        own = keep[(keep >= start) & (keep < start + number)] - start
        height, width = target.masks.shape[-2:]
        masks[at : at + len(own), :height, :width] = target.masks.as_subclass(Tensor)[own.to(target.masks.device)].to(device, torch.bool)
        at += len(own)
    return masks


@torch.no_grad()
def matching_costs(
    logits: Tensor, boxes: Tensor, truth: SetTruth, weights: CostWeights, kind: Literal["softmax", "focal"] = "softmax", *, alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Cost (L, T, Q) float32 of every object with every query of its own image; the weighted sum of `cost_terms`, without gradient."""
    terms = cost_terms(logits, boxes, truth, kind, alpha=alpha, gamma=gamma)
    total, *others = (term.mul_(weight) for term, weight in zip(terms.values(), weights, strict=True))
    for term in others:
        total += term
    return total


@torch.no_grad()
def cost_terms(
    logits: Tensor, boxes: Tensor, truth: SetTruth, kind: Literal["softmax", "focal"] = "softmax", *, alpha: float = 0.25, gamma: float = 2.0
) -> dict[str, Tensor]:
    """The terms `class`, `L1` and `GIoU` of the cost without weights, (L, T, Q) float32 each.

    `logits` (L, N, Q, R + 1) with "no object" last, or for `focal` (L, N, Q, R); `boxes` (L, N, Q, 4) relative (cx, cy, w, h). `class` is minus the
    softmax probability, or the focal loss of the object's class less that of its absence; `L1` the sum over the four coordinates; `GIoU` is negative.
    """
    logits, centers = logits.detach().float(), boxes.detach().float()
    scores = logits.softmax(-1) if kind == "softmax" else logits.sigmoid()
    score = scores.transpose(2, 3)[:, truth.image, truth.labels]  # (L, T, Q)
    label = score.neg_() if kind == "softmax" else _focal_cost(score, alpha, gamma)

    def of_its_image(values: Tensor) -> Tensor:
        return values.movedim(-1, 0).contiguous()[:, :, truth.image]  # (L, N, Q, 4) -> (4, L, T, Q): coordinates apart, so that each is contiguous

    distance = (of_its_image(centers) - truth.boxes.T[:, None, :, None]).abs_().sum(0)
    corners = of_its_image(box_convert(centers, "cxcywh", "xyxy")).movedim(0, -1)
    overlap = generalized_iou(corners, box_convert(truth.boxes, "cxcywh", "xyxy")[:, None])
    return {"class": label, "L1": distance, "GIoU": overlap.neg_()}


def _focal_cost(score: Tensor, alpha: float, gamma: float) -> Tensor:
    present = alpha * (1 - score) ** gamma * -(score + 1e-8).log()
    return present - (1 - alpha) * score**gamma * -(1 - score + 1e-8).log()


def match_sets(
    costs: Tensor, counts: Tensor, *, forced: Tensor | None = None, forbidden: Tensor | None = None, sample_names: Sequence[str] = (),
    terms: Callable[[], Mapping[str, Tensor]] | None = None,
) -> Matches:
    """The cheapest one-to-one assignment of objects to queries, for every decoder layer and image by itself.

    `costs` (L, T, Q): rows image after image, `counts` (N,) of each. `forced` (P, 2): pairs (row, query) that match in every layer, whatever they
    cost. `forbidden` (N, Q) bool: queries that match nothing. Where an image has more objects than queries that are free, the cheapest are matched
    and a warning says so, once a process. Raises NumericError for a cost that is not finite, naming the sample (`sample_names`, one an image) and,
    given `terms` (called only then: name -> (L, T, Q)), the terms it comes from; ValueError for counts or pairs that contradict each other.
    """
    numbers = [int(n) for n in counts.tolist()]
    if sum(numbers) != costs.shape[1]:
        raise ValueError(f"{costs.shape[1]} rows of costs for {sum(numbers)} objects ({numbers})")
    values = costs.detach().cpu().numpy()  # the step's one copy to the host
    if not np.isfinite(values).all():
        raise _not_finite(values, numbers, sample_names, terms)
    fixed = np.zeros((0, 2), np.int64) if forced is None else forced.cpu().numpy()
    barred = np.zeros((len(numbers), costs.shape[2]), bool) if forbidden is None else forbidden.cpu().numpy().copy()
    fixed_image = np.repeat(np.arange(len(numbers)), numbers)[fixed[:, 0]]
    _check_pairs(fixed, fixed_image, barred)
    barred[fixed_image, fixed[:, 1]] = True
    free = np.ones(costs.shape[1], bool)
    free[fixed[:, 0]] = False

    layers, starts = np.arange(len(values)), np.cumsum([0, *numbers])
    repeated = [np.repeat(layers, len(fixed)), *(np.tile(part, len(layers)) for part in (fixed_image, fixed[:, 1], fixed[:, 0]))]
    found = [np.stack(repeated)]  # rows: layer, image, query, target
    for image, (start, number) in enumerate(zip(starts, numbers)):
        rows, queries = start + np.flatnonzero(free[start : start + number]), np.flatnonzero(~barred[image])
        if len(rows) > len(queries):
            _warn_of_crowd(len(rows), len(queries), _name(sample_names, image))
        if not len(rows) or not len(queries):
            continue
        block = values[:, start : start + number]
        if len(rows) < number or len(queries) < values.shape[2]:
            block = values[:, rows][:, :, queries]
        for layer in layers:
            row, column = linear_sum_assignment(block[layer])
            found.append(np.stack([np.full_like(row, layer), np.full_like(row, image), queries[column], rows[row]]))
    pairs = np.concatenate(found, 1)
    pairs = pairs[:, np.lexsort(pairs[2::-1])]
    return Matches(*torch.from_numpy(pairs).to(costs.device).unbind(0))


def _check_pairs(fixed: np.ndarray, image: np.ndarray, barred: np.ndarray) -> None:
    query = fixed[:, 1]
    distinct = len(np.unique(fixed[:, 0])) == len(fixed) == len(np.unique(np.stack([image, query], 1), axis=0))
    if not distinct or barred[image, query].any():
        raise ValueError(
            f"forced pairs (row, query) must have distinct objects and, in an image, distinct queries that are not forbidden; got {fixed.tolist()}"
        )


def _warn_of_crowd(objects: int, queries: int, name: str) -> None:
    global _warned_of_crowds
    if not _warned_of_crowds:
        _log.warning(
            "%d objects for %d queries in %s: only the %d that are cheapest to match are learned there; a model for such crowds needs more queries "
            "(said once)", objects, queries, name, queries,
        )
    _warned_of_crowds = True


def _name(sample_names: Sequence[str], image: int) -> str:
    return sample_names[image] if image < len(sample_names) else f"image {image} of the batch"


def _not_finite(
    values: np.ndarray, numbers: Sequence[int], sample_names: Sequence[str], terms: Callable[[], Mapping[str, Tensor]] | None
) -> NumericError:
    """The error that says where: the first layer and sample with a cost that is not finite, the terms that are not, and further samples."""
    bad = ~np.isfinite(values)
    image_of = np.repeat(np.arange(len(numbers)), numbers)
    images = np.unique(image_of[bad.any((0, 2))])
    own = image_of == images[0]
    layer = int(bad[:, own].any((1, 2)).argmax())
    named = {} if terms is None else {name: ~np.isfinite(term.cpu().numpy()[layer, own]) for name, term in terms().items()}
    where = [f"its {name} term in {int(wrong.sum())} of {wrong.size} values" for name, wrong in named.items() if wrong.any()]
    others = [_name(sample_names, i) for i in images[1:]]
    also = f" So are those of {', '.join(others[:_SHOWN])}{f' and {len(others) - _SHOWN} more' if len(others) > _SHOWN else ''}." if others else ""
    return NumericError(
        f"Training stopped before the update: the costs of matching queries with the objects of {_name(sample_names, int(images[0]))} are not finite "
        f"at decoder layer {layer + 1} of {len(values)}{': ' if where else ''}{', '.join(where)}.{also} The class term comes from the logits, L1 and "
        "GIoU from the predicted boxes. Look at this sample; otherwise lower the learning rate, warm up longer, or set learner.clip_norm."
    )
