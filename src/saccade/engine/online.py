"""An online run: one pass over a stream, every frame predicted, scored and written before anything is learnt from it.

The run folder is that of any run, with the recipe, the environment, `metrics.jsonl`, the results and (unless every video starts anew) a checkpoint of
what is left at the end; `frames.jsonl` has a line a frame with what it cost. Predictions go to disk as they come, so memory does not grow with the
stream but by what the metrics keep.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from saccade.adaptation.adapting import Adapting
from saccade.adaptation.online import FrameRecord, OnlineAdapter, OnlineSettings, Predictor
from saccade.data.loading import deaths_of_workers
from saccade.data.settings import evaluation_loader
from saccade.engine.adaptation import has_labels
from saccade.engine.checkpoints import save_checkpoint
from saccade.engine.evaluation import Observer, PredictionCollector, write_results
from saccade.engine.experiment import Experiment
from saccade.engine.files import storage_errors
from saccade.engine.launch import Accelerator, seed_everything, start_fabric, whole_tensors
from saccade.engine.memory import peak_memory
from saccade.engine.run_folder import Records, RunFolder
from saccade.engine.streaming import follower
from saccade.engine.training import ObserverFactory
from saccade.errors import InputError
from saccade.metrics.contract import Metric
from saccade.models.contract import Model
from saccade.structures import Batch, Prediction

FRAMES = "frames.jsonl"


def adapt_online(
    experiment: Experiment, settings: OnlineSettings, folder: str | Path, *, accelerator: Accelerator = "auto",
    observers: ObserverFactory | None = None, progress: Callable[[int], Observer] | None = None, data_name: str | None = None,
) -> dict[str, float]:
    """Adapt to the frames of `experiment.data.train` in their order and write the run folder; returns the prequential figures.

    `data_name`: what the stream is called in the results, by default the name of the data set.
    Figures are empty for data without annotations. `observers` make further observers of the predictions, `progress` one that counts frames. Raises
    InputError for a learner that does not adapt, and for several processes: a stream has one order.
    """
    if not isinstance(experiment.learner, Adapting) or experiment.data.train is None:
        raise InputError("online runs need a learner of type Adapting and target data; see `saccade adapt --help`")
    run, dataset = RunFolder(folder), experiment.data.train
    run.check(resume=False)
    fabric = start_fabric(experiment.settings, accelerator)
    if fabric.world_size > 1:
        raise InputError("an online run has one process, for its frames have one order; leave --devices out")
    run.begin(experiment.recipe)
    seed_everything(experiment.settings.seed)
    experiment.learner.setup(fabric, max(1, len(dataset) * settings.steps // settings.every), max(1, len(dataset)))
    adapter = OnlineAdapter(experiment.learner, settings, _follow)
    loader = evaluation_loader(experiment.data, dataset, batch_size=1)
    name = data_name or str(dataset.name)
    results = run.evaluation(name)
    labelled = has_labels(dataset)
    metrics = experiment.metrics if labelled else []
    with ExitStack() as stack:
        stack.callback(loader.close)
        stack.enter_context(deaths_of_workers(dataset.name))
        collector = stack.enter_context(StreamedPredictions(results, experiment.learner.model.classes, getattr(dataset, "category_ids", None)))
        frames = stack.enter_context(_opened(run.path / FRAMES))
        watching: list[Observer] = [collector, *([progress(len(dataset))] if progress else [])]
        made = list(observers(name, dataset, results, experiment.learner.model.classes)) if observers and labelled else []
        _pass(adapter, loader.batches(), metrics, [*watching, *made], frames, Records(run.metrics), experiment.settings.log_every, fabric.device)
        figures = {figure: float(value) for metric in metrics for figure, value in metric.compute().items()}
        write_results(results, figures, metrics, collector, loader.skipped)
    for observer in (*watching, *made):
        close = getattr(observer, "close", None)
        if close is not None:
            close()
    steps = experiment.learner.steps
    Records(run.metrics).append("evaluation", steps, {f"{name}/{figure}": value for figure, value in figures.items()})
    if settings.reset == "never":
        state = {"step": steps, "learner": experiment.learner.state_dict()}
        save_checkpoint(run.checkpoints, steps, whole_tensors(experiment.learner.model), experiment.card(), state)
    return figures


def _follow(model: Model) -> Predictor:
    """What predicts frames one after another: the model's own state where it follows videos, else each frame by itself."""
    following = follower(model)
    return following if following is not None else lambda batch: model.predictions(model(batch), batch)


def _pass(
    adapter: OnlineAdapter, batches: Any, metrics: Sequence[Metric], observers: Sequence[Observer], frames: IO[str], records: Records,
    log_every: int, device: Any,
) -> None:
    for metric in metrics:
        metric.reset()
    for number, batch in enumerate(batches, 1):
        prediction, record = adapter(batch.to(device))
        for metric in metrics:
            metric.update([prediction], batch.originals, batch.metas)
        for observer in observers:
            observer(batch, [prediction])
        frames.write(json.dumps(_line(batch, prediction, record)) + "\n")
        if record.figures and (number % log_every == 0 or number == 1):
            records.append("train", adapter.learner.steps, {"frame": number, **record.figures, **_cost(record)})


def _line(batch: Batch, prediction: Prediction, record: FrameRecord) -> dict[str, Any]:
    meta = batch.metas[0]
    found = {"objects": len(prediction)} if hasattr(prediction, "__len__") else {}
    return {"video": meta.video, "frame": meta.frame, "id": meta.id, **_cost(record), **found, **record.figures}


def _cost(record: FrameRecord) -> dict[str, float]:
    """Seconds of predicting and of adapting, and GiB in use at most so far."""
    return {"predicting": round(record.predicting, 5), "adapting": round(record.adapting, 5), "memory": round(peak_memory(), 4)}


def _opened(path: Path) -> IO[str]:
    with storage_errors(path):
        return path.open("w", encoding="utf-8", buffering=1)


class StreamedPredictions(PredictionCollector):
    """A collector that writes its entries to `folder`/predictions.json as they come; a block closes the file."""

    def __init__(self, folder: Path, classes: Sequence[str], category_ids: Sequence[int] | None) -> None:
        super().__init__(classes, category_ids=category_ids)
        self.path = folder / "predictions.json"
        with storage_errors(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8")
        self._file.write("[\n")
        self._separator = ""

    def __enter__(self) -> StreamedPredictions:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def __call__(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        """Take and write one batch."""
        super().__call__(batch, predictions)
        for line in self.lines:
            self._file.write(self._separator + line)
            self._separator = ",\n"
        self.lines.clear()

    def write(self, path: Path) -> None:
        """The entries are there already; the file is finished."""
        self._finish()

    def _finish(self) -> None:
        if not self._file.closed:
            self._file.write("\n]\n")
            self._file.close()
