"""From a recipe to a run: everything that it describes, built, and the two things to do with it, training and evaluating.

    experiment = Experiment.from_recipe(load_recipe("ssd_town"))
    experiment.train("runs/mine")
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade import __version__
from saccade.data.contract import Dataset
from saccade.data.loading import deaths_of_workers
from saccade.data.settings import DataSettings, evaluation_loader, evaluation_loaders, training_loader
from saccade.engine.checkpoints import ModelCard
from saccade.engine.evaluation import Observer, PredictionCollector, evaluate, write_results
from saccade.engine.launch import Accelerator, find_place, seed_everything, start_fabric
from saccade.engine.loop import Callback
from saccade.engine.run_folder import RunFolder
from saccade.engine.settings import RunSettings
from saccade.engine.training import ObserverFactory, Training
from saccade.errors import InputError
from saccade.learning.contract import Learner
from saccade.metrics.contract import Metric
from saccade.models.contract import Model
from saccade.recipes import Recipe, build_section, check, is_staged

if TYPE_CHECKING:
    from saccade.engine.progress import TrainingProgress

Subsets = Mapping[str, Sequence[str]]  # groups of classes by name

_log = logging.getLogger(__name__)


@dataclass
class Experiment:
    """What a recipe describes, built."""

    recipe: Recipe
    data: DataSettings
    model: Model
    learner: Learner
    metrics: list[Metric]
    settings: RunSettings

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, load_weights: bool = True) -> Experiment:
        """Check `recipe` and build everything. `load_weights` false leaves its `weights:` out, for runs that are resumed.

        Raises InputError for what is wrong with the recipe, DataError for data that is missing or broken.
        """
        check(recipe)
        if is_staged(recipe):
            raise InputError(f"the recipe {recipe.name} is a run in stages; `saccade train` and `engine.stages.run_stages` run it")
        settings: RunSettings = build_section(recipe, "run")
        seed_everything(settings.seed)  # the same first weights in every process
        data: DataSettings = build_section(recipe, "data")
        model = build_model(recipe, data.classes, load_weights, data.things)
        learner = build_section(recipe, "learner", model=model)
        return cls(recipe, data, model, learner, build_metrics(recipe, data.classes, subsets_of(data)), settings)

    def train(
        self, folder: str | Path, *, resume: bool = False, allow_changes: bool = False, allow_world_size_change: bool = False,
        accelerator: Accelerator = "auto", observers: ObserverFactory | None = None, callbacks: Sequence[Callback] = (),
        progress: Callable[[int, int], TrainingProgress] | None = None, announce: Callable[[Training], object] | None = None,
    ) -> RunFolder:
        """Train in the run folder `folder`, in this process or as one of several; returns the folder.

        `resume` continues the run that lies there; `allow_changes` and `allow_world_size_change` permit what would no longer give the same result.
        `observers` makes further observers of each evaluation, `callbacks` run after each step, `announce` is called once before the first.
        """
        run = RunFolder(folder)
        first = find_place().rank == 0
        if first:
            run.check(resume)
        fabric = start_fabric(self.settings, accelerator)
        world = {"rank": fabric.global_rank, "world_size": fabric.world_size}
        size = self.settings.batch_size
        training = Training(
            recipe=self.recipe, settings=self.settings, fabric=fabric, learner=self.learner, metrics=self.metrics, folder=run,
            loader=training_loader(self.data, batch_size=size, seed=self.settings.seed, accumulate=self.settings.accumulate, **world),
            evaluation_loaders=evaluation_loaders(
                self.data, batch_size=max(1, size // fabric.world_size // self.settings.accumulate), seed=self.settings.seed, **world
            ),
            card=self.card(), observers=observers, callbacks=callbacks, progress=progress,
        )
        if first and not resume:
            run.begin(self.recipe)
        if announce is not None and first:
            announce(training)
        training.run(resume, allow_changes, allow_world_size_change)
        return run

    def card(self) -> ModelCard:
        """What checkpoints say about their model."""
        training = {"train": self.data.train.name if self.data.train else None}
        if self.data.source is not None:
            training["source"] = self.data.source.name
        described = {name: str(dataset.name) for name, dataset in self.data.evaluate.items()}
        provenance = {"recipe": self.recipe.name, "saccade": __version__, "data": {**training, **described}}
        transforms = (self.recipe.section("data") or {}).get("evaluation_transforms") or []
        return ModelCard(self.recipe.section("model") | self.model.data_arguments(), self.model.classes, transforms, provenance)


def build_model(recipe: Recipe, classes: Sequence[str], load_weights: bool = True, things: Sequence[bool] | None = None) -> Model:
    """The model of `recipe` for `classes` (a recipe's own come first), of which `things` are countable, filled from its `weights:`.

    Raises InputError where its classes are not those of the data.
    """
    model: Model = build_section(recipe, "model", classes=tuple(classes), num_classes=len(classes), things=things)
    compare_classes(model.classes, classes, "the data")
    if load_weights and recipe.section("weights") is not None:
        sources = build_section(recipe, "weights")
        for source in sources if isinstance(sources, list) else [sources]:
            _log.info("%s", source.fill(model))
    return model


def build_metrics(recipe: Recipe, classes: Sequence[str], subsets: Subsets | None = None) -> list[Metric]:
    """The metrics of `recipe`; none where it has none. `subsets` of the classes are reported besides by those that can."""
    if recipe.section("metrics") is None:
        return []
    built: Any = build_section(recipe, "metrics", classes=tuple(classes), subsets=subsets)
    return list(built) if isinstance(built, list) else [built]


def subsets_of(data: DataSettings) -> Subsets | None:
    """The subsets of the classes that a data set brings, those to evaluate before the training data."""
    return next((found for dataset in (*data.evaluate.values(), data.train) if (found := getattr(dataset, "subsets", None))), None)


def compare_classes(of_model: Sequence[str], of_data: Sequence[str], data: str) -> None:
    """Raise InputError where the class names of a model and of data differ, in names or order."""
    if not of_data or tuple(of_model) == tuple(of_data):
        return
    only_model, only_data = [c for c in of_model if c not in of_data], [c for c in of_data if c not in of_model]
    parts = [f"only the model has {_few(only_model)}" if only_model else "", f"only {data} has {_few(only_data)}" if only_data else ""]
    order = "" if only_model or only_data else f"the order differs: {_few(of_model)} against {_few(of_data)}"
    raise InputError(
        f"The {len(of_model)} classes of the model are not the {len(of_data)} of {data}: {'; '.join(p for p in (*parts, order) if p)}. "
        "Give the data set the model's `classes`, or leave `classes` out of the model."
    )


def evaluate_on(
    model: Model, dataset: Dataset, settings: DataSettings, metrics: Sequence[Metric], folder: Path, *, batch_size: int,
    observers: Sequence[Observer] = (),
) -> dict[str, float]:
    """Score `model` on `dataset` in this process and write the results into `folder`; returns the figures."""
    compare_classes(model.classes, dataset.classes, dataset.name)
    collector = PredictionCollector(model.classes, category_ids=getattr(dataset, "category_ids", None))
    loader = evaluation_loader(settings, dataset, batch_size=batch_size)
    try:
        with deaths_of_workers(dataset.name):
            figures = evaluate(model, loader, metrics, [collector, *observers])
    finally:
        loader.close()
    write_results(folder, figures, metrics, collector, loader.skipped)
    return figures


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
