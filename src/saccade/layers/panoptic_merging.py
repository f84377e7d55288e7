"""From the class and mask logits of queries to panoptic maps and instance masks (DETR, Carion et al. 2020, section 4.4 and the released code).

Every pixel goes to the query, of those with a confident class, whose mask is strongest there; stuff queries of one class become one segment; segments
of at most four pixels are dissolved until none is left. Of a padded batch each picture gets the masks that it would have alone.
The published code does otherwise, which `reference_quirks` brings back: once a segment has been dissolved, stuff is no longer merged, so that a
second query of a class (which merging had left without pixels) is deleted and its pixels go to whichever query is next; panoptic masks of a padded
batch are stretched to each picture's own size instead of being cut, instance masks are enlarged together with the padding; and instance masks come to
the original size without regard to pixel centres.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.structures import Panoptic, Segment

THRESHOLD = 0.85
SMALLEST = 5  # pixels; segments with fewer are dissolved
Size = tuple[int, int]  # (height, width)


def panoptic_from_queries(
    logits: Tensor, masks: Tensor, *, sizes: Sequence[Size], original_sizes: Sequence[Size], canvas: Size, things: Sequence[bool],
    logit_of_label: Tensor | None = None, threshold: float = THRESHOLD, reference_quirks: bool = False,
) -> list[Panoptic]:
    """One panoptic map an image, in its original size.

    `logits` (N, Q, R + 1), no object last; `masks` (N, Q, h4, w4) logits over the whole `canvas` (height, width of the padded batch); `sizes`: each
    image's own size on the canvas; `things` (K,): whether a label is a thing; `logit_of_label` (K,) its place among the R logits, 0..K-1 by default.
    A query counts where the best of all its probabilities is a label's and above `threshold`. Segments have the ids 1, 2, ... in the order of their
    (first) queries; the score of merged stuff is its best query's. An image in which no query counts is void, without segments.
    """
    scores, labels = _best_labels(logits, len(things), logit_of_label)
    kept = (labels >= 0) & (scores > threshold)
    found = []
    for number, (size, original) in enumerate(zip(sizes, original_sizes, strict=True)):
        keep = kept[number].nonzero()[:, 0]
        own = masks[number, keep].float()
        if not reference_quirks:
            own = _cut(own, size, canvas)
        at_original = _at_original(_enlarged(own, size), original)
        found.append(_merge(at_original, labels[number, keep], scores[number, keep], things, reference_quirks))
    return found


def masks_from_queries(
    masks: Tensor | Sequence[Tensor], *, sizes: Sequence[Size], original_sizes: Sequence[Size], canvas: Size, threshold: float = 0.5,
    reference_quirks: bool = False, queries_at_once: int = 20,
) -> list[Tensor]:
    """Instance masks (Q, H, W) bool, one tensor an image, in original size: where the mask's probability exceeds `threshold`.

    `masks` (N, Q, h4, w4) logits over the whole `canvas`, or one (Q_i, h4, w4) an image, for those queries alone that are wanted. Logits are enlarged
    `queries_at_once`, which bounds the memory.
    """
    found = []
    for own, size, original in zip(masks, sizes, original_sizes, strict=True):
        parts = [
            _instances(part.float(), size, original, canvas, threshold, reference_quirks) for part in own.split(max(1, queries_at_once))
        ]
        found.append(torch.cat(parts) if parts else own.new_zeros((0, *original), dtype=torch.bool))
    return found


def _best_labels(logits: Tensor, num_labels: int, logit_of_label: Tensor | None) -> tuple[Tensor, Tensor]:
    """Score and label (N, Q) of the most probable logit; -1 where that is no object, or no label's."""
    scores, best = logits.float().softmax(-1).max(-1)
    label_of_logit = torch.full((logits.shape[-1],), -1, dtype=torch.int64, device=logits.device)
    places = torch.arange(num_labels, device=logits.device) if logit_of_label is None else logit_of_label.to(logits.device)
    label_of_logit[places] = torch.arange(num_labels, device=logits.device)
    return scores, label_of_logit[best]


def _enlarged(masks: Tensor, size: Size) -> Tensor:
    """Mask logits (Q, h4, w4) at `size`."""
    if len(masks) == 0:
        return masks.new_zeros(0, *size)
    return F.interpolate(masks[None], size=size, mode="bilinear", align_corners=False)[0]


def _cut(masks: Tensor, size: Size, canvas: Size) -> Tensor:
    """What of masks (Q, h4, w4) of the whole canvas belongs to an image of `size`; their stride is a power of two."""
    strides = (2 ** round(math.log2(whole / small)) for whole, small in zip(canvas, masks.shape[-2:], strict=True))
    height, width = (-(-length // stride) for length, stride in zip(size, strides, strict=True))
    return masks[:, :height, :width]


def _instances(masks: Tensor, size: Size, original: Size, canvas: Size, threshold: float, reference_quirks: bool) -> Tensor:
    if not reference_quirks:
        return _at_original(_enlarged(_cut(masks, size, canvas), size).sigmoid() > threshold, original)
    inside = _enlarged(masks, canvas)[:, : size[0], : size[1]].sigmoid() > threshold
    if len(masks) == 0:
        return inside.new_zeros(0, *original)
    return F.interpolate(inside[None].to(torch.uint8), size=original, mode="nearest")[0].bool()


def _at_original(maps: Tensor, original: Size) -> Tensor:
    """`maps` (..., h, w) at the `original` size, each pixel from the one that its centre falls into (as Pillow resizes label maps)."""
    for axis, length in ((-2, original[0]), (-1, original[1])):
        if maps.shape[axis] != length:
            maps = maps.index_select(axis, nearest_places(maps.shape[axis], length).to(maps.device))
    return maps


def nearest_places(length: int, wanted: int) -> Tensor:
    """(wanted,) int64: for each of `wanted` pixels in a row which of `length` lies under its centre."""
    step = length / wanted
    # Pillow adds up the steps one by one, and centres that fall onto a border between pixels go by the rounding of that sum.
    centres = np.cumsum(np.concatenate([[step * 0.5], np.full(wanted - 1, step)]))
    return torch.from_numpy(np.minimum(centres.astype(np.int64), length - 1))


def _merge(masks: Tensor, labels: Tensor, scores: Tensor, things: Sequence[bool], reference_quirks: bool) -> Panoptic:
    """The panoptic map of the queries with `masks` (Q, H, W), `labels` (Q,) and `scores` (Q,)."""
    is_thing = torch.tensor(list(things), dtype=torch.bool, device=labels.device)[labels]
    queries = torch.arange(len(labels), device=labels.device)
    merged = (labels[:, None] == labels[None]) & ~is_thing | torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    groups = torch.where(merged, queries, len(queries)).amin(1) if len(queries) else queries  # the first query of each one's segment
    while len(queries):
        # In the original probabilities are compared, and those that rounding makes equal go to the first query.
        winners = (masks[queries].softmax(0) if reference_quirks else masks[queries]).argmax(0)
        segment_map = groups[queries][winners]  # (H, W), segments by the number of their first query
        areas = torch.bincount(segment_map.flatten(), minlength=len(labels))
        small = areas[groups[queries] if not reference_quirks else queries] < SMALLEST
        if not small.any():
            break
        queries = queries[~small]
        if reference_quirks:
            groups = torch.arange(len(labels), device=labels.device)
    if not len(queries):
        return Panoptic(torch.zeros(masks.shape[-2:], dtype=torch.int64, device=masks.device), ())
    firsts, of_query = groups[queries].unique(return_inverse=True)  # sorted, so in the order of the queries
    ids = torch.zeros(len(labels), dtype=torch.int64, device=labels.device)
    ids[firsts] = torch.arange(1, len(firsts) + 1, device=labels.device)
    best = torch.zeros(len(firsts), device=scores.device).scatter_reduce(0, of_query, scores[queries], "amax")
    rows = zip(labels[firsts].tolist(), is_thing[firsts].tolist(), best.tolist(), strict=True)
    return Panoptic(ids[segment_map], tuple(Segment(i, label, thing, score=score) for i, (label, thing, score) in enumerate(rows, 1)))
