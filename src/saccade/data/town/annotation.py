"""What there is to know about a frame, read off its map of layers: boxes, masks, semantic and panoptic map, ids, actions."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from saccade.data.town.rendering import Frame
from saccade.data.town.scene import NO_OBJECT
from saccade.data.town.vocabulary import SEMANTIC_CLASSES
from saccade.structures import IGNORE, Annotations, Panoptic, Segment

_SMALLEST = 0.0008  # of the squared height of the picture: 13 pixels at 128


@dataclass(frozen=True)
class Objects:
    """The annotated objects of a frame, from the back to the front: `tiles` (n,) are their numbers in the layer map; `visibility` (n,) in 0..1."""

    tiles: NDArray[np.int64]
    visibility: NDArray[np.float64]


def objects_of(frame: Frame, min_visibility: float) -> Objects:
    """The objects of which at least `min_visibility`, and more than a speck, is seen."""
    stack = frame.arrangement
    labels = np.array([t.layer.label for t in stack.tiles], dtype=np.int64)
    visibility = stack.visible / np.maximum(stack.full, 1)
    smallest = max(1.0, _SMALLEST * frame.size[0] ** 2)
    kept = np.flatnonzero((labels != NO_OBJECT) & (visibility >= min_visibility) & (stack.visible >= smallest))
    return Objects(kept + 1, visibility[kept])


def annotate(frame: Frame, min_visibility: float, masks: bool, segmentation: bool, panoptic: bool) -> Annotations:
    """The annotations of `frame`; masks and the two maps only where asked for.

    Things too hidden or too small to be annotated are 255 in the semantic map and 0 in the panoptic map.
    """
    found = objects_of(frame, min_visibility)
    stack = frame.arrangement
    layers = [stack.tiles[i - 1].layer for i in found.tiles]
    slices = ndimage.find_objects(stack.layer_map, max_label=len(stack.tiles))
    boxes = np.array([_corners(slices[i - 1]) for i in found.tiles], dtype=np.float32).reshape(-1, 4)
    known = Annotations(
        boxes=torch.from_numpy(boxes),
        labels=torch.tensor([layer.label for layer in layers], dtype=torch.int64),
        track_ids=torch.tensor([layer.track_id for layer in layers], dtype=torch.int64),
        areas=torch.from_numpy(stack.visible[found.tiles - 1].astype(np.float32)),
        actions=torch.tensor([layer.action for layer in layers], dtype=torch.int64),
    )
    if masks:
        known.masks = torch.from_numpy(stack.layer_map[None] == found.tiles[:, None, None])
    if segmentation or panoptic:
        semantic = _semantic(frame, found)
        if segmentation:
            known.segmentation = torch.from_numpy(semantic)
        if panoptic:
            known.panoptic = _panoptic(frame, found, semantic)
    return known


def _corners(where: tuple[slice, slice]) -> tuple[int, int, int, int]:
    rows, columns = where
    return columns.start, rows.start, columns.stop, rows.stop


def _semantic(frame: Frame, found: Objects) -> NDArray[np.uint8]:
    stack = frame.arrangement
    table = np.array([0, *(t.layer.semantic if t.layer.label == NO_OBJECT else IGNORE for t in stack.tiles)], dtype=np.uint8)
    table[found.tiles] = [stack.tiles[i - 1].layer.semantic for i in found.tiles]
    return np.where(stack.layer_map == 0, frame.street_map, table[stack.layer_map])


def _panoptic(frame: Frame, found: Objects, semantic: NDArray[np.uint8]) -> Panoptic:
    """Stuff segments have the id 1 + their semantic class, things follow after them in the order of the objects."""
    first = 1 + len(SEMANTIC_CLASSES)
    segment_map = np.where(semantic == IGNORE, 0, semantic.astype(np.int64) + 1)
    table = np.zeros(len(frame.arrangement.tiles) + 1, dtype=np.int64)
    table[found.tiles] = first + np.arange(len(found.tiles))
    things = table[frame.arrangement.layer_map]
    segment_map = np.where(things > 0, things, segment_map)
    present = np.flatnonzero(np.bincount(segment_map.reshape(-1), minlength=first)[:first])
    stuff = [Segment(int(i), int(i) - 1, False) for i in present if i > 0]
    labels = [frame.arrangement.tiles[i - 1].layer.label for i in found.tiles]
    objects = [Segment(first + i, label, True) for i, label in enumerate(labels)]
    return Panoptic(torch.from_numpy(segment_map), tuple(stuff + objects))
