"""The best and worst predictions of an evaluation, drawn beside the truth, for a report.

What is kept while the evaluation runs is small: of each image its quality, of the best and worst their predictions and truth. The pictures are read
again at the end, as the data set has them, so that they are seen in original pixels and not as the network saw them.
"""
from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Sequence
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
from saccade.structures import Annotations, Batch, Classification, Detections, Meta, Panoptic, Prediction

_WIDEST = 1200  # pixels of a written picture (truth and prediction together)
MIN_SCORE = 0.5  # of the detections that are drawn; the quality counts the same ones


@dataclass(frozen=True)
class _Seen:
    quality: float
    objects: int
    meta: Meta
    truth: Annotations
    prediction: Prediction


class Gallery:
    """An observer of evaluations: call it with each batch and its predictions, `close` it at the end.

    `folder` is where pictures and `gallery.json` go, `dataset` what is evaluated, `classes` the model's names of its labels, `count` how many of the
    best and how many of the worst are kept. Images without truth, and predictions that have no quality, are passed over.
    """

    def __init__(self, *, folder: str | Path, dataset: Dataset, classes: Sequence[str], count: int = 12) -> None:
        self.folder, self.dataset, self.classes, self.count = Path(folder), dataset, tuple(classes), count
        self._numbers = itertools.count()
        self._best: list[tuple[tuple[float, int], int, _Seen]] = []
        self._worst: list[tuple[tuple[float, int], int, _Seen]] = []
        self._kind = ""

    def __call__(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        """Look at one batch; its `originals` are the truth."""
        for prediction, truth, meta in zip(predictions, batch.originals or (), batch.metas):
            quality = image_quality(prediction, truth)
            if quality is None:
                continue
            self._kind = _quality_of(prediction)
            seen = _Seen(quality, truth.num_objects, meta, truth, prediction)
            # Among equals, images with more objects show more, on both sides; the number keeps the order of the rest and settles ties.
            number = -next(self._numbers)
            self._keep(self._best, (quality, seen.objects), number, seen)
            self._keep(self._worst, (-quality, seen.objects), number, seen)

    def _keep(self, heap: list[tuple[tuple[float, int], int, _Seen]], rank: tuple[float, int], number: int, seen: _Seen) -> None:
        if len(heap) == self.count and (rank, number) < heap[0][:2]:
            return
        entry = (rank, number, _Seen(seen.quality, seen.objects, seen.meta, seen.truth, _kept(seen.prediction)))
        if len(heap) < self.count:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)

    def close(self) -> None:
        """Draw what was kept and write it; an image that can't be read again is left out."""
        from saccade.engine.files import atomic_write

        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("*.jpg"):
            old.unlink()
        chosen = {kind: [entry[2] for entry in sorted(heap, key=lambda e: e[:2], reverse=True)] for kind, heap in self._heaps()}
        positions = self._positions({_key(seen.meta) for kept in chosen.values() for seen in kept})
        index = {kind: self._write(kind, kept, positions) for kind, kept in chosen.items()}
        text = json.dumps({"quality": self._kind, **index}, indent=1)
        atomic_write(self.folder / "gallery.json", text.encode())

    def _heaps(self) -> list[tuple[str, list[tuple[tuple[float, int], int, _Seen]]]]:
        return [("best", self._best), ("worst", self._worst)]

    def _write(self, kind: str, kept: Sequence[_Seen], positions: dict[str, int]) -> list[dict[str, object]]:
        entries: list[dict[str, object]] = []
        for number, seen in enumerate(kept):
            image = self._image(seen.meta, positions)
            if image is None:
                continue
            drawn = truth_beside_prediction(to_picture(image), seen.truth, seen.prediction, self.classes, MIN_SCORE)
            file = f"{kind}_{number:02d}.jpg"
            _shrunk(drawn).save(self.folder / file, quality=88)
            entries.append({"file": file, "id": seen.meta.id, "caption": _caption(seen.meta), "quality": round(seen.quality, 4)})
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
        case _:
            return f"F1 at IoU 0.5, scores above {MIN_SCORE}"


def _key(meta: Meta) -> str:
    return str(meta.id)


def _caption(meta: Meta) -> str:
    place = f"{meta.video}, frame {meta.frame}" if meta.video is not None else str(meta.id)
    return Path(meta.path).name if meta.path is not None and meta.video is None else place


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
