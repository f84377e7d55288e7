"""How ProDA's published code brings maps from the whole picture to its weak and strong crops, for `reference_quirks`; `warping` does it rightly.

After `models/adaptation_modelv2.py` (`full2weak`, `label_strong_T`) and `data/randaugment.py` (`affine_sample`) of the code of Zhang et al. 2021.
Both work on maps of a quarter of the picture. What is wrong with them (segmentation_adaptation.md, 9.8): offsets of the crop are rounded down to a
quarter, a translation along x is measured in heights, and operations are repeated in a fixed order, one of each kind, each to the nearest pixel.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.adaptation.warping import Place, places_of, reduced_size
from saccade.data.transforms.strong import FLIP, GEOMETRIC
from saccade.errors import InputError
from saccade.ops.class_maps import resize_maps
from saccade.structures import Batch, Meta

QUARTER = 4


class WeakCrop(NamedTuple):
    """How a weak view was made: the whole picture resized to `size` (height, width), cut to `window` (top, left, height, width), and flipped."""

    size: tuple[int, int]
    window: tuple[int, int, int, int]
    flip: bool


class StrongSteps(NamedTuple):
    """How a strong view was made of a weak one: `flip`, operations by name with shears as slopes, translations in pixels and rotations in degrees
    counter-clockwise, and the box (x1, y1, x2, y2) that was cut out, if any."""

    flip: bool
    operations: Mapping[str, float]
    box: tuple[int, int, int, int] | None


def weak_maps(maps: Tensor, crops: Sequence[WeakCrop]) -> Tensor:
    """`maps` (N, C, h, w) of the whole pictures as (N, C, h', w') of their weak crops, of a quarter of these."""
    moved = []
    for one, crop in zip(maps.split(1), crops, strict=True):
        resized = resize_maps(one, (crop.size[0] // QUARTER, crop.size[1] // QUARTER))
        top, left, height, width = (number // QUARTER for number in crop.window)
        part = resized[..., top:top + height, left:left + width]
        moved.append(part.flip(-1) if crop.flip else part)
    return torch.cat(moved)


def strong_maps(maps: Tensor, steps: Sequence[StrongSteps]) -> tuple[Tensor, Tensor]:
    """`maps` (N, C, h, w) of weak crops as those of the strong views, by nearest neighbours, and (N, h, w) bool: where something of them is left."""
    moved = torch.cat([maps.float(), torch.ones_like(maps[:, :1], dtype=torch.float32)], 1)
    results = []
    for one, step in zip(moved.split(1), steps, strict=True):
        one = one.flip(-1) if step.flip else one
        for name in GEOMETRIC:
            if name in step.operations:
                one = _shifted(one, name, step.operations[name])
        if step.box is not None:
            x1, y1, x2, y2 = (number // QUARTER for number in step.box)
            one = one.clone()
            one[..., y1:y2, x1:x2] = 0
        results.append(one)
    whole = torch.cat(results)
    return whole[:, :-1].to(maps.dtype), whole[:, -1] > 0


def _shifted(maps: Tensor, name: str, value: float) -> Tensor:
    """One operation on maps (1, C, h, w); what comes from outside is 0."""
    height, width = maps.shape[-2:]
    matrix = torch.tensor(_matrix(name, value, height, width), dtype=torch.float32, device=maps.device)
    grid = F.affine_grid(matrix[None], [1, 1, height, width], align_corners=False)
    return F.grid_sample(maps, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _matrix(name: str, value: float, height: int, width: int) -> list[list[float]]:
    """From places of the result to places of the map, both in -1..1. Shears leave the upper left corner where it is, rotations the centre."""
    upright, lying = height / width, width / height
    if name == "Rotate":
        cosine, sine = math.cos(math.radians(value)), math.sin(math.radians(value))
        return [[cosine, -sine * upright, 0], [sine * lying, cosine, 0]]
    if name == "ShearX":
        return [[1, value * upright, value * upright], [0, 1, 0]]
    if name == "ShearY":
        return [[1, 0, 0], [value * lying, 1, value * lying]]
    shift = 2 * int(value // QUARTER) / height  # of a width where it is along x, as it should be, this would be less
    return [[1, 0, shift], [0, 1, 0]] if name == "TranslateX" else [[1, 0, 0], [0, 1, shift]]


def in_weak_view(maps: Tensor, picture: Batch, weak: Batch) -> Tensor:
    """`maps` (N, C, h, w) that a network gave for `picture` as those of a quarter of its `weak` view. Raises InputError for views made otherwise."""
    crops = [_crop_between(*pair) for pair in zip(places_of(picture), places_of(weak), strict=True)]
    return weak_maps(resize_maps(maps.float(), reduced_size(picture, QUARTER)), crops)


def in_strong_view(maps: Tensor, weak: Batch, strong: Batch) -> tuple[Tensor, Tensor]:
    """`maps` of the weak view as those of the strong one that comes after it, and where something of them is left (see `strong_maps`)."""
    return strong_maps(maps, [_steps_between(before, after) for before, after in zip(weak.metas, strong.metas, strict=True)])


def _crop_between(picture: Place, weak: Place) -> WeakCrop:
    """How the weak view was made, by the way between the two pictures."""
    way = torch.linalg.inv(picture.geometry.as_subclass(Tensor)) @ weak.geometry.as_subclass(Tensor)
    (scale_x, shear_x, left), (shear_y, scale_y, top), _ = way.tolist()
    if max(abs(shear_x), abs(shear_y)) > 1e-6 or scale_y <= 0:
        raise InputError("reference_quirks repeats weak views that are resized, cropped and flipped; leave it out for views that are turned")
    (height, width), flip = weak.frame, scale_x < 0
    size = round(picture.frame[0] / scale_y), round(picture.frame[1] / abs(scale_x))
    first = left / abs(scale_x) - width if flip else left / scale_x
    return WeakCrop(size, (round(top / scale_y), round(first), height, width), flip)


def _steps_between(weak: Meta, strong: Meta) -> StrongSteps:
    """What was done to the weak view, as its samples noted it."""
    steps = {step.name: step.values for step in strong.applied[len(weak.applied):]}
    box = steps.get("Cutout")
    operations = {name: steps[name][0] for name in GEOMETRIC if name in steps}
    return StrongSteps(FLIP in steps, operations, None if box is None else tuple(int(number) for number in box))  # type: ignore[arg-type]
