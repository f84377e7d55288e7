"""What our per-sample transforms share: one random draw for a whole clip, and moving a sample's image, boxes, masks, maps and geometry together.

Any transform of torchvision.transforms.v2 works on a `Sample` as it is; ours exist where a published definition differs from torchvision's, or where
objects have to leave the sample with all that belongs to them (torchvision's transforms never drop an object).

Used from torchvision because they are equal to what mmclassification 0.x defines: `RandomHorizontalFlip`, `RandomVerticalFlip`, `RandomCrop` (padding
and its order), `RandomGrayscale`, `ColorJitter` (there a strength in 0..x with random sign, here a factor in 1 - x..1 + x: the same), `Resize` with a
single size (the long side is truncated; `antialias: false` for what OpenCV computes, true for Pillow's).
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from saccade.structures import IGNORE, Sample


class SampleTransform(ABC):
    """A transform of one sample, or of a clip (a list of samples) with one random draw for all its frames.

    Subclasses give `draw`, which takes all random numbers (through torch's, NumPy's or Python's global generators, which the loader seeds for each
    sample) and `apply`, which is a pure function.
    """

    def draw(self, samples: Sequence[Sample]) -> Any:
        """The random parameters for `samples` (one, or the frames of a clip); None where there is nothing random."""
        return None

    @abstractmethod
    def apply(self, sample: Sample, drawn: Any) -> Sample:
        """`sample` changed as `drawn` says; the sample given is left as it is."""

    @overload
    def __call__(self, sample: Sample) -> Sample: ...
    @overload
    def __call__(self, sample: Sequence[Sample]) -> list[Sample]: ...
    def __call__(self, sample: Sample | Sequence[Sample]) -> Sample | list[Sample]:
        """The sample, or every frame of the clip, transformed."""
        if isinstance(sample, Sample):
            return self.apply(sample, self.draw([sample]))
        drawn = self.draw(sample)
        return [self.apply(frame, drawn) for frame in sample]

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({settings})"


def move(sample: Sample, functional: Callable[..., Any], *arguments: Any, **options: Any) -> Sample:
    """`functional` (geometric, of torchvision.transforms.v2.functional) on everything in `sample` that has a place in the image.

    Masks, maps and boxes ignore what only concerns pixels (interpolation, antialias).
    """
    return _on_leaves(sample, lambda leaf: functional(leaf, *arguments, **options))


def crop(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """The part of `sample` in a rectangle that lies inside the image; objects outside stay, with empty boxes."""
    cut = move(sample, F.crop, top, left, height, width)
    pixels = cut.image.as_subclass(Tensor)
    if pixels.stride(0) == 1 and pixels.stride(2) == 3 and pixels.stride(1) != 3 * width:
        # Decoded JPEG files have their channels innermost, which torch resizes fast; but with gaps between the rows it takes a path that is ten times
        # slower. Closing the gaps costs next to nothing.
        cut = replace(cut, image=tv_tensors.Image(pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1)))
    return cut


def move_with_fill(sample: Sample, functional: Callable[..., Any], *arguments: Any, fill: Sequence[float] | float, **options: Any) -> Sample:
    """The same for functionals that bring in new pixels: `fill` in the image, "ignore" (255) in the segmentation, nothing in masks."""
    values = list(fill) if isinstance(fill, Sequence) else [float(fill)] * 3
    if not sample.image.is_floating_point():
        values = [float(round(v)) for v in values]

    def apply(leaf: tv_tensors.TVTensor) -> Any:
        pixels = isinstance(leaf, tv_tensors.Image)
        nothing = {"fill": IGNORE if leaf is sample.segmentation else 0} if isinstance(leaf, tv_tensors.Mask) else {}
        return functional(leaf, *arguments, **options, **({"fill": values} if pixels else nothing))

    return _on_leaves(sample, apply)


def _on_leaves(sample: Sample, change: Callable[[tv_tensors.TVTensor], Any]) -> Sample:
    """`change` on every part of `sample` that has a place in the image; field by field, which takes a third of the time of going through pytrees."""
    changed: dict[str, Any] = {"image": change(sample.image)}
    for name in ("boxes", "masks", "segmentation"):
        value = getattr(sample, name)
        if isinstance(value, tv_tensors.TVTensor):
            changed[name] = change(value)
    if sample.panoptic is not None:
        changed["panoptic"] = replace(sample.panoptic, segment_map=change(sample.panoptic.segment_map))  # type: ignore[arg-type]
    if sample.meta.geometry is not None:
        changed["meta"] = replace(sample.meta, geometry=change(sample.meta.geometry))
    return replace(sample, **changed)


def change_image(sample: Sample, change: Callable[[Tensor], Tensor]) -> Sample:
    """`sample` with `change` applied to its pixels (3, H, W); size and annotations stay."""
    return replace(sample, image=tv_tensors.Image(change(sample.image.as_subclass(Tensor))))


def without_degenerate(sample: Sample, min_size: float = 0.0) -> Sample:
    """Without the objects whose box is at most `min_size` pixels wide or high, or not finite; all their fields go with them."""
    if sample.boxes is None or len(sample.boxes) == 0:
        return sample
    boxes = sample.boxes.as_subclass(Tensor)
    sides = boxes[:, 2:] - boxes[:, :2]
    keep = ((sides > min_size) & (sides < float("inf"))).all(1)  # where a corner is not a number, neither holds
    return sample if bool(keep.all()) else sample.select(keep)


class RemoveDegenerate(SampleTransform):
    """Drops objects whose box has no width or height (at most `min_size` pixels), with masks, ids and all else that is theirs.

    SSD's pipeline does so after every step. `clip` first limits boxes to the image, so that objects outside of it go, too. torchvision's
    `SanitizeBoundingBoxes` does not know a sample's fields, so it can't be used.
    """

    def __init__(self, *, min_size: float = 0.0, clip: bool = False) -> None:
        self.min_size, self.clip = min_size, clip

    def apply(self, sample: Sample, drawn: None) -> Sample:
        """`sample` without the objects."""
        return without_degenerate(clip_boxes(sample) if self.clip else sample, self.min_size)


def clip_boxes(sample: Sample) -> Sample:
    """`sample` with its boxes limited to the image."""
    return sample if sample.boxes is None else replace(sample, boxes=F.clamp_bounding_boxes(sample.boxes, clamping_mode="hard"))


def uniform(low: float, high: float) -> float:
    """One number from [low, high), from torch's global generator."""
    return low + (high - low) * torch.rand(()).item()


def chance(probability: float) -> bool:
    """True with `probability`."""
    return torch.rand(()).item() < probability
