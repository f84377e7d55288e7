"""The segments of a panoptic map as objects (what DETR's panoptic training learns: a box, a class and a mask for every thing and every stuff region),
and as the entries and pictures of COCO's panoptic files."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from saccade.errors import InputError
from saccade.structures import Annotations, Panoptic


def segment_objects(panoptic: Panoptic, *, masks: bool = True) -> Annotations:
    """One object a segment, in their order: `boxes` around its pixels (half-open), `labels`, `crowd`, `areas`, and `masks` where asked for.

    A segment without pixels, as a crop may leave, has a box of no size.
    """
    rows = panoptic.rows()
    labels = torch.tensor([segment.label for segment in panoptic.segments], dtype=torch.int64)
    crowd = torch.tensor([segment.is_crowd for segment in panoptic.segments], dtype=torch.bool)
    areas = torch.bincount(rows[rows >= 0], minlength=len(labels)).float()
    found = Annotations(boxes=segment_boxes(rows, len(labels)), labels=labels, crowd=crowd, areas=areas)
    if masks:
        found.masks = rows[None] == torch.arange(len(labels))[:, None, None]
    return found


def segment_boxes(rows: Tensor, count: int) -> Tensor:
    """(count, 4) float32 half-open boxes around the pixels of each value 0..count-1 of `rows` (H, W); zeros for a value without pixels."""
    where = ndimage.find_objects(np.maximum(rows.numpy(), -1).astype(np.int32) + 1, max_label=count)
    corners = [(0, 0, 0, 0) if w is None else (w[1].start, w[0].start, w[1].stop, w[0].stop) for w in where]
    return torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)


def colour_coded(segment_map: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of a map of ids: red + 256 green + 65536 blue, COCO's panoptic pictures. Raises `InputError` for ids of 2**24 and more."""
    ids = segment_map.as_subclass(Tensor).cpu().numpy().astype(np.int64)
    if ids.size and not 0 <= ids.min() <= ids.max() < 2**24:
        raise InputError(f"the colours of a panoptic png stand for ids from 0 to 16777215; the map has {ids.min()} to {ids.max()}, so number it anew")
    return np.stack([ids & 255, (ids >> 8) & 255, ids >> 16], -1).astype(np.uint8)


def segment_entries(panoptic: Panoptic, category_ids: Sequence[int], *, truth: bool) -> list[dict[str, object]]:
    """COCO's `segments_info`: id, category, area and box of each segment; the crowd flag of true ones, the score of predicted ones.

    Segments without pixels are left out, for COCO's tools refuse them.
    """
    rows = panoptic.rows().cpu()
    areas = torch.bincount(rows[rows >= 0], minlength=len(panoptic.segments)).tolist()
    boxes = segment_boxes(rows, len(panoptic.segments)).int().tolist()
    entries: list[dict[str, object]] = []
    for segment, area, (x1, y1, x2, y2) in zip(panoptic.segments, areas, boxes, strict=True):
        own = {"iscrowd": int(segment.is_crowd)} if truth else {"isthing": int(segment.is_thing), "score": round(segment.score, 5)}
        if area:
            entries.append({"id": segment.id, "category_id": category_ids[segment.label], "area": area, "bbox": [x1, y1, x2 - x1, y2 - y1], **own})
    return entries


def categories(classes: Sequence[str], category_ids: Sequence[int], things: Sequence[bool]) -> list[dict[str, object]]:
    """COCO's `categories` of a panoptic file."""
    return [
        {"id": number, "name": name, "isthing": int(thing)} for number, name, thing in zip(category_ids, classes, things, strict=True)
    ]
