"""One image and what is known about it, from disk to loss."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node
from torchvision import tv_tensors

from saccade.structures.geometry import Geometry
from saccade.structures.panoptic import Panoptic

IGNORE = 255  # the value of a pixel without a label in `segmentation`
Annotated = TypeVar("Annotated", bound="Annotations")

_PER_OBJECT = ("boxes", "labels", "masks", "track_ids", "crowd", "difficult", "areas", "actions")


class Applied(NamedTuple):
    """One thing that a random transform did to a sample: its name, and the numbers that say how much."""

    name: str
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Meta:
    """Where a sample comes from.

    `original_size` is (height, width) before any transform, `video` and `frame` (0-based) are set for frames of a video, `geometry` leads back
    from the image at hand to the original (None until an image is attached). `applied`: what those random transforms did that say so.
    """

    dataset: str = ""
    id: str | int = 0
    path: str | None = None
    original_size: tuple[int, int] | None = None
    video: str | None = None
    frame: int | None = None
    geometry: Geometry | None = None
    applied: tuple[Applied, ...] = ()


@dataclass
class Annotations:
    """What is known about one image; absent knowledge is None, not an empty tensor.

    Per object (n rows each): `boxes` (n, 4) float32 (x1, y1, x2, y2) in pixels of the image at hand, half-open; `labels` (n,) int64 in 0..K-1;
    `masks` (n, H, W) bool; `track_ids` (n,) int64; `crowd` and `difficult` (n,) bool; `areas` (n,) float32 in pixels of the *original* image;
    `actions` (n,) int64, -1 for an object without one.
    Per image: `segmentation` (H, W) uint8 or int64 with 255 = ignore; `panoptic`; `label`: a class index, or a (K,) float tensor where labels are
    soft or several.
    """

    boxes: Tensor | None = None
    labels: Tensor | None = None
    masks: Tensor | None = None
    track_ids: Tensor | None = None
    crowd: Tensor | None = None
    difficult: Tensor | None = None
    areas: Tensor | None = None
    actions: Tensor | None = None
    segmentation: Tensor | None = None
    panoptic: Panoptic | None = None
    label: int | Tensor | None = None

    @property
    def num_objects(self) -> int:
        """How many objects are annotated (0 where there are no boxes and no masks)."""
        known = next((v for v in (self.boxes, self.masks, self.labels) if v is not None), None)
        return 0 if known is None else len(known)

    def select(self: Annotated, keep: Tensor) -> Annotated:
        """The same with the objects that `keep` names (bool mask or indices, (n,)); what belongs to the whole image stays."""
        changed: dict[str, Any] = {}
        for name in _PER_OBJECT:
            value = getattr(self, name)
            if value is not None:
                changed[name] = _like(value, value[keep])
        return replace(self, **changed)

    def annotations(self) -> Annotations:
        """The annotations alone, without image or meta, as plain tensors."""
        plain: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(Annotations)}
        plain = {k: v.as_subclass(Tensor) if isinstance(v, Tensor) else v for k, v in plain.items()}
        return Annotations(**plain)

    def to(self: Annotated, device: torch.device | str, non_blocking: bool = False) -> Annotated:
        """The same on `device`."""
        moved: dict[str, Any] = {}
        for f in fields(Annotations):
            value = getattr(self, f.name)
            if isinstance(value, Tensor | Panoptic):
                moved[f.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, **moved)


@dataclass
class Sample(Annotations):
    """One image (3, H, W) uint8 RGB with its annotations and origin. torchvision's v2 transforms take it, or a list of it (a clip), as it is."""

    image: tv_tensors.Image = field(default_factory=lambda: tv_tensors.Image(torch.zeros(3, 0, 0, dtype=torch.uint8)))
    meta: Meta = field(default_factory=Meta)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image at hand."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])


Clip = Sequence[Sample]


def first_frame(item: Sample | Clip) -> Sample:
    """The sample itself, of a clip (a data set of pairs gives such) the first frame."""
    return item if isinstance(item, Sample) else item[0]


def make_sample(image: Tensor, annotations: Annotations | None = None, **meta: Any) -> Sample:
    """A sample from a (3, H, W) uint8 image, annotations in its pixels, and the fields of `Meta`.

    Wraps boxes, masks and maps as tv_tensors, so that transforms move them together.
    """
    size = (int(image.shape[-2]), int(image.shape[-1]))
    known = {f.name: getattr(annotations, f.name) for f in fields(Annotations)} if annotations is not None else {}
    if known.get("boxes") is not None:
        boxes = torch.as_tensor(known["boxes"], dtype=torch.float32).reshape(-1, 4)
        known["boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)  # type: ignore[call-overload]
    for name in ("masks", "segmentation"):
        if known.get(name) is not None:
            known[name] = tv_tensors.Mask(known[name])
    meta.setdefault("original_size", size)
    return Sample(image=tv_tensors.Image(image), meta=Meta(geometry=Geometry.identity(size), **meta), **known)


def _like(original: Tensor, value: Tensor) -> Tensor:
    return tv_tensors.wrap(value, like=original) if isinstance(original, tv_tensors.TVTensor) else value


_NAMES = [f.name for f in fields(Sample) if f.name != "meta"]


def _flatten(sample: Sample) -> tuple[list[Any], Meta]:
    # The image first: the v2 transforms look at the first image for its size.
    return [sample.image, *(getattr(sample, n) for n in _NAMES if n != "image"), sample.meta.geometry], sample.meta


def _unflatten(children: Sequence[Any], meta: Meta) -> Sample:
    image, *others, geometry = children
    names = [n for n in _NAMES if n != "image"]
    return Sample(image=image, meta=replace(meta, geometry=geometry), **dict(zip(names, others, strict=True)))


register_pytree_node(Sample, _flatten, _unflatten)  # type: ignore[arg-type]
