"""Scoring a model on a data set: predictions of every image into metrics and observers, over one process or several.

With several processes each predicts its own part; the metrics' states are merged in the first one, where images are told apart by their ids, so that
none counts twice.
"""
from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from saccade.data.formats.results import PanopticResult, coco_results, panoptic_result, panoptic_results
from saccade.engine.files import atomic_write, storage_errors, write_json
from saccade.engine.run_folder import SKIPPED, strict_number
from saccade.engine.streaming import follower
from saccade.errors import InputError
from saccade.learning.wrapping import is_sharded
from saccade.metrics.contract import Metric
from saccade.metrics.notes import notes_in
from saccade.models.contract import Model
from saccade.structures import Batch, Classification, Detections, Panoptic, Prediction

if TYPE_CHECKING:
    from saccade.engine.launch import Together

Observer = Callable[[Batch, Sequence[Prediction]], object]

_log = logging.getLogger(__name__)


class BatchSource(Protocol):
    """What gives the batches of an evaluation, each with `originals`."""

    def batches(self) -> Iterator[Batch]: ...


class EvaluationStoppedError(Exception):
    """The run was asked to stop while it evaluated."""


def evaluate(
    model: Model, loader: BatchSource, metrics: Sequence[Metric], observers: Sequence[Observer] = (), *, together: Together | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext, stop: Callable[[], object] = lambda: False,
) -> dict[str, float]:
    """The figures of all `metrics` (which are reset first) on the batches of `loader`; the same in every process.

    A `VideoModel` follows each video frame by frame, in the order in which the loader gives them.
    `observers` are called with each batch and its predictions, in the process that made them. `together`: the processes of the run. `autocast`: the
    context of the forward pass. Where `stop` becomes true, on any process, the evaluation ends with EvaluationStoppedError. The model is in training
    mode afterwards if it was before.
    """
    for metric in metrics:
        metric.reset()
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    following = follower(model)
    try:
        with torch.inference_mode():
            for batch, counts in _in_step(loader.batches(), together if is_sharded(model) else None):
                if stop():
                    break
                if device.type != "cpu":
                    batch = batch.to(device)
                if following is not None:
                    with autocast():
                        predictions = following(batch)
                else:
                    with autocast():
                        outputs = model(batch)
                    predictions = model.predictions(outputs, batch)
                if counts:
                    _take(batch, predictions, metrics, observers)
    finally:
        model.train(was_training)
    if (together.highest(int(bool(stop()))) if together else stop()):
        raise EvaluationStoppedError
    return _figures(metrics, together)


def _take(batch: Batch, predictions: list[Prediction], metrics: Sequence[Metric], observers: Sequence[Observer]) -> None:
    if batch.originals is None:
        raise TypeError("an evaluation batch needs `originals`, the annotations in original pixels; this loader gives none")
    for metric in metrics:
        metric.update(predictions, batch.originals, batch.metas)
    for observer in observers:
        observer(batch, predictions)


def _in_step(batches: Iterable[Batch], together: Together | None) -> Iterator[tuple[Batch, bool]]:
    """The batches, each with whether it counts. A model that is spread over processes must run equally often in all of them: those with fewer batches
    repeat their last."""
    if together is None or together.world_size == 1:
        yield from ((batch, True) for batch in batches)
        return
    source, batch = iter(batches), None
    while True:
        following = next(source, None)
        if not together.highest(int(following is not None)):
            return
        batch = following or batch
        if together.highest(int(batch is None)):
            raise InputError("there are fewer images to evaluate than processes; evaluate this data set with one process")
        assert batch is not None
        yield batch, following is not None


def _figures(metrics: Sequence[Metric], together: Together | None) -> dict[str, float]:
    if together is None or together.world_size == 1:
        return _computed(metrics)
    parts = together.gathered(list(metrics))
    figures: dict[str, float] = {}
    if together.rank == 0:
        for other in parts[1:]:
            for metric, theirs in zip(metrics, other, strict=True):
                metric.merge(theirs)
        figures = _computed(metrics)
    result: dict[str, float] = together.from_first(figures)
    return result


def _computed(metrics: Sequence[Metric]) -> dict[str, float]:
    return {name: float(value) for metric in metrics for name, value in metric.compute().items()}


class PredictionCollector:
    """An observer that keeps predictions as the entries of `predictions.json`: COCO results for detections, classes by score for images.

    Panoptic maps become COCO's panoptic results: `predictions.json` with the segments and a folder `predictions` with the pngs, as panopticapi
    expects them. Classes have the data set's `category_ids` (1, 2, ... by default), so COCO's own tools and servers take the files.
    """

    def __init__(self, classes: Sequence[str], top: int = 5, category_ids: Sequence[int] | None = None) -> None:
        self.classes, self.top = tuple(classes), top
        self.category_ids = tuple(range(1, len(self.classes) + 1) if category_ids is None else category_ids)
        self.lines: list[str] = []
        self.maps: list[PanopticResult] = []

    def __call__(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        """Take one batch; kinds of predictions that have no such entry are passed over."""
        for meta, prediction in zip(batch.metas, predictions, strict=True):
            if isinstance(prediction, Detections):
                for entry, label in zip(coco_results(prediction, meta.id, self.category_ids), prediction.labels.tolist(), strict=True):
                    self.lines.append(json.dumps({**entry, "category": self.classes[label]}))
            elif isinstance(prediction, Classification):
                best = [{"label": k, "class": self.classes[k], "score": score} for k, score in prediction.top(self.top)]
                self.lines.append(json.dumps({"id": meta.id, "top": best}))
            elif isinstance(prediction, Panoptic):
                self.maps.append(panoptic_result(prediction, meta.id, self.category_ids))

    def gather(self, together: Together) -> None:
        """Take what the collectors of all processes have taken."""
        self.lines = [line for part in together.gathered(self.lines) for line in part]
        self.maps = [result for part in together.gathered(self.maps) for result in part]

    def write(self, path: Path) -> None:
        """Write what was taken, one entry a line; pngs go to the folder of the same name."""
        if self.maps:
            text, pngs = panoptic_results(self.maps, self.classes, self.category_ids)
            with storage_errors(path):
                path.with_suffix("").mkdir(exist_ok=True)
            for name, png in pngs.items():
                atomic_write(path.with_suffix("") / name, png)
            atomic_write(path, text.encode())
            return
        atomic_write(path, ("[\n" + ",\n".join(self.lines) + "\n]\n").encode())


def write_results(
    folder: Path, figures: Mapping[str, float], metrics: Sequence[Metric], predictions: PredictionCollector, skipped: Mapping[str, str],
) -> None:
    """Write `figures.json`, `details.json`, `predictions.json` and, as `skipped.json`, the ids of samples that were left out, into `folder`.

    What a metric notes in its details (that there was nothing to score, say) is logged as a warning.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "figures.json", {name: strict_number(value) for name, value in figures.items()})
    details: dict[str, Any] = {}
    for metric in metrics:
        details |= metric.details()
    for note in notes_in(details):
        _log.warning("%s: %s", folder.name, note)
    write_json(folder / "details.json", details)
    predictions.write(folder / "predictions.json")
    write_json(folder / SKIPPED, dict(skipped))
