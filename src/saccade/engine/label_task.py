"""The task that writes pseudo labels: what a network says about every image of the target, for the stages after it.

ProDA's soft labels and its hard ones (Zhang et al. 2021; `generate_pseudo_label.py` of the code), and those of any self-training. An image whose
files are there is not looked at again.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2 import RandomHorizontalFlip

from saccade.adaptation.labels import limits_of
from saccade.adaptation.views import View, make_views
from saccade.adaptation.warping import Place, bring, maps_of
from saccade.data.formats.label_files import (
    COLOURS,
    CONFIDENCE,
    COUNTS,
    LABELS,
    SUFFIX,
    ConfidenceCounts,
    colour_file,
    confidence_file,
    label_file,
    read_labels,
)
from saccade.data.formats.soft_labels import SUFFIX as SOFT_SUFFIX
from saccade.data.formats.soft_labels import SoftLabels
from saccade.data.formats.stored import file_of
from saccade.data.loading import Loader
from saccade.engine.files import atomic_write, storage_errors, write_json
from saccade.errors import DataError, InputError
from saccade.models.contract import Model
from saccade.structures import IGNORE, Batch, Geometry
from saccade.structures.ranges import Probability

_MIRRORED = "mirrored"


class WriteLabels:
    """Writes what a segmentation network says about every image of `data.train`, by the ids of the samples.

    `kind`: "soft" keeps the probabilities of all classes at the network's resolution (see `data.formats.soft_labels`), "hard" the label of each pixel
    in the original size with its confidence and colour (see `data.formats.label_files`). `flip`: means of the probabilities of the image and of its
    mirror image. `threshold`, of hard labels: pixels at most that sure, as one number or one a class, get no label; their confidence is written. Read
    them with `StoredSoftLabels` and `StoredLabels`.
    """

    def __init__(self, *, kind: Literal["soft", "hard"], flip: bool = False, threshold: Probability | dict[str, Probability] = 0.0) -> None:
        if kind == "soft" and threshold != 0.0:
            raise InputError("WriteLabels: a threshold is for hard labels; soft ones keep every probability, so give it to what reads them")
        self.kind, self.flip, self.threshold = kind, flip, threshold

    def run(self, model: Model, batches: Loader, folder: Path, progress: Callable[[int], object]) -> None:
        """Write the files into `folder`. Raises DataError for two images of one id, InputError for a model without maps of class scores."""
        seen: dict[str, str] = {}
        done = 0
        limits = limits_of(self.threshold, model.classes, "WriteLabels")
        for batch in batches.batches():
            files = [self._file_of(folder, meta.id) for meta in batch.metas]
            for meta in batch.metas:
                if str(meta.id) in seen:
                    raise DataError(f"two images have the id {meta.id}, of {seen[str(meta.id)]} and of {meta.dataset}; labels need one name an image")
                seen[str(meta.id)] = meta.dataset
            if not all(file.is_file() for file in files):
                self._write(model, batch, folder, limits, getattr(batches.dataset, "colours", None))
            done += len(batch)
            progress(done)
        if self.kind == "hard":
            self._count(folder, list(seen), model.classes)

    def _file_of(self, folder: Path, item: str | int) -> Path:
        """The file of an image that is written last."""
        return file_of(folder, item, SOFT_SUFFIX) if self.kind == "soft" else file_of(folder / LABELS, item, SUFFIX)

    def _write(self, model: Model, batch: Batch, folder: Path, limits: Tensor, colours: Sequence[tuple[int, int, int]] | None) -> None:
        batch = batch.to(next(model.parameters()).device)
        views = {_MIRRORED: View(transforms=[RandomHorizontalFlip(p=1.0)])} if self.flip else {}
        looks = [_look(model, view) for view in make_views(views, batch, None).values()]
        for index, meta in enumerate(batch.metas):
            maps, place = looks[0][index]
            if self.kind == "soft":
                size = (int(maps.shape[-2]), int(maps.shape[-1]))
                content = SoftLabels(_mean(looks, index, place, size), place.frame, place.geometry, model.classes).as_bytes()
                _put(self._file_of(folder, meta.id), content)
                continue
            size = meta.original_size or place.frame
            confidence, labels = _mean(looks, index, Place(size, Geometry.identity(size)), size).max(0)
            sure = labels.masked_fill(confidence <= limits.to(labels.device)[labels], IGNORE)
            if colours is not None:
                _put(file_of(folder / COLOURS, meta.id, SUFFIX), colour_file(sure, colours))
            _put(file_of(folder / CONFIDENCE, meta.id, SUFFIX), confidence_file(confidence))
            _put(self._file_of(folder, meta.id), label_file(sure))

    def _count(self, folder: Path, items: Sequence[str], classes: Sequence[str]) -> None:
        """How sure each class is, from the files, so that it does not matter how often the task was interrupted."""
        counts = ConfidenceCounts(classes)
        for item in items:
            stored = read_labels(folder, item)
            assert stored.confidence is not None
            counts.add(stored.labels, stored.confidence)
        write_json(folder / COUNTS, counts.as_json())


def _look(model: Model, batch: Batch) -> list[tuple[Tensor, Place]]:
    """The logits (C, h, w) of each image of `batch`, padding left out, and their places."""
    outputs: Mapping[str, Tensor] = model(batch)
    logits = outputs.get("logits")
    if logits is None or logits.ndim != 4:
        given = ", ".join(outputs) if logits is None else f"logits {tuple(logits.shape)}"
        raise InputError(f"WriteLabels needs maps of class scores, logits (N, C, h, w); {type(model).__name__} gives {given}")
    maps, places = maps_of(outputs, "logits", batch)
    return list(zip(maps, places, strict=True))


def _mean(looks: Sequence[Sequence[tuple[Tensor, Place]]], index: int, place: Place, size: tuple[int, int]) -> Tensor:
    """(C, *size) the mean over the views of the probabilities of image `index`, its logits brought to `place`."""
    total = torch.zeros(())
    for look in looks:
        maps, own = look[index]
        there = own is place and tuple(maps.shape[-2:]) == size
        moved = maps if there else bring(maps[None], [own], [place], size)[0][0]
        total = moved.float().softmax(0) + total.to(moved.device)
    return total / len(looks)


def _put(path: Path, content: bytes) -> None:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content)

