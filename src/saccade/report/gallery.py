"""The best and worst predictions of an evaluation, drawn beside the truth, for a report.

What is kept while the evaluation runs is small: of each image its quality, of the best and worst their predictions and truth. The pictures are read
again at the end, as the data set has them, so that they are seen in original pixels and not as the network saw them. Of label maps some images are
kept besides that are the same in every evaluation of a data set, so that reports can show what two models make of them.
"""
from __future__ import annotations

import functools
import heapq
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from saccade.data.contract import Dataset
from saccade.data.decoding import read_image
from saccade.errors import DataError
from saccade.metrics.image_quality import image_quality
from saccade.report.drawing import to_picture, truth_beside_prediction
from saccade.report.palette import class_colours, hexadecimal
from saccade.report.segmentation_sheet import SheetMaps, sheet_maps, write_panels
from saccade.structures import Annotations, Batch, Classification, Detections, Meta, Panoptic, Prediction, SegmentationMap

_WIDEST = 1200  # pixels of a written picture (truth and prediction together)
MIN_SCORE = 0.5  # of the detections that are drawn; the quality counts the same ones


@dataclass(frozen=True)
class _Drawn:
    """What is drawn on an image."""

    truth: Annotations
    prediction: Prediction


@dataclass(frozen=True)
class _Seen:
    """What is kept of an image; its quality is None where nothing is known about it."""

    quality: float | None
    meta: Meta
    shown: _Drawn | SheetMaps


_Heap = list[tuple[tuple[float, int], int, _Seen]]


class Gallery:
    """An observer of evaluations: call it with each batch and its predictions, `close` it at the end.

    `folder` is where pictures and `gallery.json` go, `dataset` what is evaluated, `classes` the model's names of its labels, `count` how many of the
    best and how many of the worst are kept, `samples` how many of the images that are the same every time. Images without truth (but for samples),
    and predictions that have no quality, are passed over.
    """

    def __init__(self, *, folder: str | Path, dataset: Dataset, classes: Sequence[str], count: int = 12, samples: int = 6) -> None:
        self.folder, self.dataset, self.classes, self.count, self.samples = Path(folder), dataset, tuple(classes), count, samples
        self.colours = class_colours(classes, getattr(dataset, "colours", None))
        self._numbers = itertools.count()
        self._best: _Heap = []
        self._worst: _Heap = []
        self._samples: dict[str, _Seen] = {}
        self._kind = ""

    def __call__(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        """Look at one batch; its `originals` are the truth."""
        for prediction, truth, meta in zip(predictions, batch.originals or (), batch.metas):
            quality = image_quality(prediction, truth)
            seen = functools.partial(_seen, quality, meta, truth, prediction)
            if isinstance(prediction, SegmentationMap) and _key(meta) in self._sample_ids:
                self._samples[_key(meta)] = seen()
            if quality is None:
                continue
            self._kind = _quality_of(prediction)
            # Among equals, images with more objects show more, on both sides; the number keeps the order of the rest and settles ties.
            number = -next(self._numbers)
            self._keep(self._best, (quality, truth.num_objects), number, seen)
            self._keep(self._worst, (-quality, truth.num_objects), number, seen)

    @functools.cached_property
    def _sample_ids(self) -> frozenset[str]:
        """Images at equal distances through the data set."""
        count = min(self.samples, len(self.dataset))
        return frozenset(str(self.dataset.item_id((2 * number + 1) * len(self.dataset) // (2 * count))) for number in range(count))

    def _keep(self, heap: _Heap, rank: tuple[float, int], number: int, seen: Callable[[], _Seen]) -> None:
        if len(heap) == self.count and (rank, number) < heap[0][:2]:
            return
        entry = (rank, number, seen())
        if len(heap) < self.count:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)

    def close(self) -> None:
        """Draw what was kept and write it; an image that can't be read again is left out."""
        from saccade.engine.files import atomic_write

        self.folder.mkdir(parents=True, exist_ok=True)
        for old in (file for file in self.folder.iterdir() if file.suffix in (".jpg", ".png")):
            old.unlink()
        heaps = (("best", self._best), ("worst", self._worst))
        chosen = {kind: [entry[2] for entry in sorted(heap, key=lambda e: e[:2], reverse=True)] for kind, heap in heaps}
        index: dict[str, object] = {"quality": self._kind}
        if self._samples:
            chosen["samples"] = list(self._samples.values())
            index["legend"] = [[name, hexadecimal(colour)] for name, colour in zip(self.classes, self.colours, strict=True)]
        positions = self._positions({_key(seen.meta) for kept in chosen.values() for seen in kept})
        index |= {kind: self._write(kind, kept, positions) for kind, kept in chosen.items()}
        atomic_write(self.folder / "gallery.json", json.dumps(index, indent=1).encode())

    def _write(self, kind: str, kept: Sequence[_Seen], positions: dict[str, int]) -> list[dict[str, object]]:
        entries: list[dict[str, object]] = []
        for number, seen in enumerate(kept):
            image = self._image(seen.meta, positions)
            if image is None:
                continue
            quality = None if seen.quality is None else round(seen.quality, 4)
            entry: dict[str, object] = {"id": seen.meta.id, "caption": _caption(seen.meta), "quality": quality}
            stem = f"{kind}_{number:02d}"
            if isinstance(seen.shown, SheetMaps):
                panels = write_panels(self.folder, stem, to_picture(image), seen.shown, self.colours)
                entry |= {"file": panels[0]["file"], "panels": panels}
            else:
                drawn = truth_beside_prediction(to_picture(image), seen.shown.truth, seen.shown.prediction, self.classes, MIN_SCORE)
                entry["file"] = f"{stem}.jpg"
                _shrunk(drawn).save(self.folder / f"{stem}.jpg", quality=88)
            entries.append(entry)
        return entries

    def _positions(self, wanted: set[str]) -> dict[str, int]:
        """Where the images of those ids lie in the data set."""
        found: dict[str, int] = {}
        for position in range(len(self.dataset)):
            if len(found) == len(wanted):
                break
            item = str(self.dataset.item_id(position))
            if item in wanted:
                found[item] = position
        return found

    def _image(self, meta: Meta, positions: dict[str, int]) -> Tensor | None:
        position = positions.get(_key(meta))
        try:
            if position is not None:
                return self.dataset[position].image
            return read_image(meta.path) if meta.path is not None else None
        except DataError:
            return None


def gallery_of(name: str, dataset: Dataset, folder: Path, classes: Sequence[str]) -> list[Gallery]:
    """The gallery of the data set called `name` as further observers of a run's evaluation (an `engine.training.ObserverFactory`).

    It lies in `folder/gallery`, where reports look for it.
    """
    return [Gallery(folder=folder / "gallery", dataset=dataset, classes=classes)]


def _quality_of(prediction: Prediction) -> str:
    """What the quality of such a prediction is."""
    match prediction:
        case Classification():
            return "probability of the true class"
        case Panoptic():
            return "panoptic quality"
        case SegmentationMap():
            return "mIoU of the image"
        case _:
            return f"F1 at IoU 0.5, scores above {MIN_SCORE}"


def _key(meta: Meta) -> str:
    return str(meta.id)


def _caption(meta: Meta) -> str:
    place = f"{meta.video}, frame {meta.frame}" if meta.video is not None else str(meta.id)
    return Path(meta.path).name if meta.path is not None and meta.video is None else place


def _seen(quality: float | None, meta: Meta, truth: Annotations, prediction: Prediction) -> _Seen:
    """What is kept of an image."""
    return _Seen(quality, meta, sheet_maps(prediction, truth) if isinstance(prediction, SegmentationMap) else _Drawn(truth, _kept(prediction)))


def _kept(prediction: Prediction) -> Prediction:
    """What is needed for drawing, on the CPU and no longer tied to the batch."""
    if isinstance(prediction, Detections):
        return prediction.above(MIN_SCORE).to("cpu")
    if isinstance(prediction, Classification):
        return Classification(prediction.scores.detach().cpu().clone())
    if isinstance(prediction, Panoptic):
        return prediction.to("cpu")
    return prediction


def _shrunk(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(picture)
    if image.width > _WIDEST:
        image = image.resize((_WIDEST, max(1, round(image.height * _WIDEST / image.width))), Image.Resampling.LANCZOS)
    return image
