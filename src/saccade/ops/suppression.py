"""Non-maximum suppression of a whole batch at once, exactly as a loop over images and classes would do it.

Only the best few detections of an image are wanted, and greedy suppression looks at candidates from the best down: what survives among the best m
candidates does not depend on the others. So the search starts with the best m of each image and widens only for want of survivors.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import nms

_MMCV_SPLITS = 10_000
_ONE_GROUP_AT_A_TIME = 1000  # boxes from which, on the CPU, suppression group by group is faster than all groups at once


def suppress_in_groups(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, *, reference_quirks: bool = False) -> Tensor:
    """Indices of the boxes that survive greedy suppression among their own group, best score first.

    `boxes` (n, 4), `scores` (n,), `groups` (n,) non-negative integers. Groups are moved apart in float64, where the shift costs no precision.
    `reference_quirks`: moved by the largest coordinate only, in the boxes' own precision, as mmcv does with fewer than 10000 boxes: negative
    coordinates then reach into the group before.
    """
    if boxes.numel() == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    if reference_quirks and len(boxes) < _MMCV_SPLITS:
        return nms(boxes + (groups.to(boxes.dtype) * (boxes.max() + 1)).unsqueeze(1), scores, iou_threshold)
    apart, order = boxes.double(), scores.double()
    if boxes.device.type == "cpu" and len(boxes) > _ONE_GROUP_AT_A_TIME:
        members = groups.argsort(stable=True).split(torch.bincount(groups).tolist())
        kept = torch.cat([own[nms(apart[own], order[own], iou_threshold)] for own in members if len(own)]).sort().values
        return kept[order[kept].argsort(descending=True, stable=True)]
    low, high = apart.aminmax()
    return nms(apart + (groups * (high - low + 1)).unsqueeze(1), order, iou_threshold)


def best_detections(
    scores: Tensor, boxes_of: Callable[[Tensor, Tensor], Tensor], *, score_threshold: float, iou_threshold: float, most: int, first_look: int = 256
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The best `most` (boxes (n, 4), scores (n,), classes (n,)) of every image after suppression within each class, best first.

    `scores` (N, P, K): candidates are the pairs of a place p and a class k with a score above `score_threshold`. `boxes_of(image, place)` gives the
    boxes (m, 4) of candidates (two index vectors), so that only candidates are ever decoded. `first_look`: how many candidates an image is first
    searched for; it changes the time, never the result.
    """
    num_images, _, num_classes = scores.shape
    passing = scores > score_threshold
    largest = int(passing.flatten(1).sum(1).max()) if scores.numel() else 0
    look = largest if largest <= 2 * first_look else max(first_look, most)
    while True:
        image, place, label = passing.nonzero(as_tuple=True) if look >= largest else _best_candidates(scores, passing, look)
        found, boxes = scores[image, place, label], boxes_of(image, place)
        kept = suppress_in_groups(boxes, found, image * num_classes + label, iou_threshold)
        survivors = torch.bincount(image[kept], minlength=num_images)
        if look >= largest or bool((survivors >= most).all()):
            break
        look *= 4
    return [(boxes[index], found[index], label[index]) for index in best_per_image(kept, image, num_images, most)]


def best_of_regions(
    boxes: Tensor, scores: Tensor, image: Tensor, num_images: int, *, score_threshold: float, iou_threshold: float, most: int,
    min_size: float | None = None, reference_quirks: bool = False,
) -> list[tuple[Tensor, Tensor]]:
    """(region (n,), class (n,)) indices of the best `most` detections of every image after suppression within each class, best first.

    `boxes` (R, K, 4): each region's box as each class; `scores` (R, K); `image` (R,) of each region. Candidates score above `score_threshold`, and
    neither of their sides is below `min_size`.
    """
    candidates = scores > score_threshold
    if min_size is not None:
        candidates &= ((boxes[..., 2:] - boxes[..., :2]) >= min_size).all(-1)
    region, label = candidates.nonzero(as_tuple=True)
    image = image[region]
    groups = image * scores.shape[1] + label
    kept = suppress_in_groups(boxes[region, label], scores[region, label], groups, iou_threshold, reference_quirks=reference_quirks)
    return [(region[index], label[index]) for index in best_per_image(kept, image, num_images, most)]


def best_per_image(kept: Tensor, image: Tensor, num_images: int, most: int) -> list[Tensor]:
    """The first `most` of the indices `kept` (k,) that belong to each image, in their order; `image` (n,) says whose each of the n boxes is."""
    counts = torch.bincount(image[kept], minlength=num_images).tolist()
    in_order = kept[image[kept].argsort(stable=True)]  # image after image
    return [index[:most] for index in in_order.split(counts)]


def _best_candidates(scores: Tensor, passing: Tensor, look: int) -> tuple[Tensor, Tensor, Tensor]:
    """(image, place, class) of the best `look` candidates of every image, or all of those that have fewer."""
    flat = scores.flatten(1).topk(look, dim=1).indices  # (N, look)
    image, rank = passing.flatten(1).gather(1, flat).nonzero(as_tuple=True)
    where = flat[image, rank]
    return image, where // scores.shape[2], where % scores.shape[2]
