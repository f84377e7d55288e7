"""How a step shows its images to the networks: one view for the teacher, another for the student, a third to contrast with, or whatever a method
needs.

A view is a list of transforms on each image of the batch, by itself or `after` another view, with which it then shares the geometry: transforms of
samples move an image, its pseudo objects, its maps and the way back to the original together, so nothing has to be carried along by hand. Views are
made on the device of the images, from torch's global random numbers, which checkpoints keep.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torchvision import tv_tensors

from saccade.adaptation.context import RAW, SOURCE
from saccade.errors import InputError
from saccade.structures import Annotations, Batch, Sample, collate, make_sample

Transform = Callable[[Sample], Sample]


@dataclass(frozen=True, kw_only=True)
class View:
    """`transforms` on every image and its objects, on top of the view named `after` (the batch as it was loaded where it is None).

    A view after "source" shows the images of the source domain, with their labels. `holes`: the view says where it shows nothing of the picture,
    because a transform moved pixels in from outside or cut them out: there the `segmentation` of its targets is 255, elsewhere 0.
    """

    transforms: list[Transform] = field(default_factory=list)
    after: str | None = None
    holes: bool = False


def ordered_views(views: Mapping[str, View]) -> list[str]:
    """The names of `views`, each behind the one that it comes after. Raises InputError for a name that is taken or missing, and for circles."""
    for name, meaning in ((RAW, "the batch as it was loaded"), (SOURCE, "the batch of data.source")):
        if name in views:
            raise InputError(f"learner.views.{name}: this is the name of {meaning}; call the view something else")
    names: list[str] = []
    waiting = dict(views)
    while waiting:
        ready = [name for name, view in waiting.items() if view.after in (None, RAW, SOURCE, *names)]
        if not ready:
            name, view = next(iter(waiting.items()))
            reason = "which comes after it in turn" if view.after in views else f"which is no view; there are {', '.join([RAW, SOURCE, *views])}"
            raise InputError(f"learner.views.{name} comes after {view.after!r}, {reason}")
        names += ready
        for name in ready:
            del waiting[name]
    return names


def make_views(views: Mapping[str, View], batch: Batch, objects: Sequence[Annotations] | None, size_divisor: int = 1) -> dict[str, Batch]:
    """Every view of `batch`, the batch itself as "raw", and its source, where it has one, as "source".

    `objects`: pseudo objects of each image in pixels of the batch; without them views have empty annotations. Views without transforms share the
    tensors of what they come after. Padding is as the loader's: on the right and below, to a multiple of `size_divisor`. Raises InputError for a view
    of a source that is not there.
    """
    targets = [Annotations() for _ in batch.metas] if objects is None else list(objects)
    made = {RAW: Batch(batch.images, targets, batch.metas, batch.padding)}
    if batch.source is not None:
        made[SOURCE] = batch.source
    samples: dict[str, list[Sample]] = {}
    for name in ordered_views(views):
        view, source = views[name], views[name].after or RAW
        if source not in made:
            raise InputError(f"learner.views.{name} comes after the source, but the data has none; name its labelled images in data.source")
        if not view.transforms:
            made[name] = made[source]
            if source in samples:
                samples[name] = samples[source]
            continue
        if source not in samples:
            samples[source] = samples_of(made[source])
        samples[name] = [_transformed(_with_hole_map(s) if view.holes else s, view.transforms) for s in samples[source]]
        made[name] = collate(samples[name], size_divisor).to(batch.images.device)
    return made


def samples_of(batch: Batch) -> list[Sample]:
    """The images of `batch` without their padding as samples, with its targets in CPU memory, where boxes are transformed fastest."""
    samples = []
    for image, target, meta in zip(batch.images, batch.targets, batch.metas, strict=True):
        height, width = meta.geometry.canvas_size if meta.geometry is not None else tuple(image.shape[-2:])
        sample = make_sample(image[..., :height, :width], target.to("cpu"))
        samples.append(replace(sample, meta=meta if meta.geometry is not None else replace(meta, geometry=sample.meta.geometry)))
    return samples


def _with_hole_map(sample: Sample) -> Sample:
    """`sample` with a segmentation that has no hole yet, unless it has one."""
    return replace(sample, segmentation=tv_tensors.Mask(torch.zeros(sample.size, dtype=torch.uint8))) if sample.segmentation is None else sample


def _transformed(sample: Sample, transforms: Sequence[Transform]) -> Sample:
    for transform in transforms:
        sample = transform(sample)
    return sample
