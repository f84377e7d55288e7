"""`explain`'s work: builds what a recipe describes, sends a real batch through it, and writes down what was seen. Trains nothing, writes nothing."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from saccade.adaptation.adapting import Adapting
from saccade.data.contract import Dataset
from saccade.data.randomness import sample_seed, seeded
from saccade.data.town.dataset import Town
from saccade.engine.evaluation import PredictionCollector
from saccade.engine.loop import run_steps
from saccade.engine.settings import RunSettings
from saccade.engine.staged_folder import network_folder
from saccade.errors import InputError, SaccadeError
from saccade.learning.supervised import Supervised
from saccade.models.contract import Model
from saccade.recipes import Recipe, build, build_section, check, is_staged, load_recipe, recipe_from_values
from saccade.recipes.building import resolve
from saccade.recipes.overrides import COMMAND_LINE
from saccade.recipes.registry import find_target
from saccade.recipes.stages import read_stages, stage_named, stage_trees
from saccade.recipes.tree import show_path
from saccade.report.explanation import Explanation, SampleStep, Setting, follow_batch, follow_sample, loop_lines, loss_terms, where_written
from saccade.report.gallery import Gallery
from saccade.report.opening import recipe_classes
from saccade.report.run_data import load_run
from saccade.report.sections import flatten
from saccade.structures import Batch, Outputs, Sample, collate

_BATCH = 2  # images: the least that shows that there are several


def explain_target(target: str, overrides: Sequence[str] = (), stage: str | None = None) -> Explanation:
    """Take apart what `target` names: a recipe with `overrides`, a run folder, or a checkpoint folder. Errors as of `explain`.

    `stage`: which one of a recipe or run with stages, by default the first of a recipe and of a run the last that has finished a training.
    """
    from saccade.engine.checkpoints import find_checkpoint, load_model, read_card

    folder = Path(target)
    if not folder.is_dir():
        return _explain_recipe(target, overrides, stage)
    folder = network_folder(folder) if stage is None else folder / stage
    if (folder / "recipe.yaml").is_file():
        recipe = _recipe_of_run(folder, overrides)
    elif overrides:
        raise InputError(f"{folder} is a checkpoint, which has no recipe that {overrides[0]} could change; name its run folder or its recipe")
    else:
        card = read_card(find_checkpoint(folder))
        data = {"evaluation_transforms": list(card.evaluation_transforms)}
        recipe = recipe_from_values({"model": dict(card.model), "data": data}, folder.name, str(find_checkpoint(folder) / "model.json"))
    return explain(recipe, load_model(folder))


def _explain_recipe(target: str, overrides: Sequence[str], stage: str | None) -> Explanation:
    recipe = load_recipe(target, overrides)
    check(recipe)
    if not is_staged(recipe) and stage is None:
        return explain(recipe)
    names = list(stage_trees(recipe))
    made = explain(stage_named(recipe, stage or names[0]))
    made.notes.insert(0, f"this is the stage {stage or names[0]} of {', '.join(names)}; --stage shows another one")
    return made


def _recipe_of_run(folder: Path, overrides: Sequence[str]) -> Recipe:
    """The recipe that a run kept, with the origins that it kept beside it."""
    recipe = load_recipe(str(folder), overrides)
    kept = load_run(folder).origins
    for path, node in recipe.tree.walk():
        origin = kept.get(show_path(path))
        if origin is not None and node.origin != COMMAND_LINE:
            node.origin = origin
    return recipe


def explain(recipe: Recipe, model: Model | None = None) -> Explanation:
    """Take `recipe` apart, or a trained `model` with the recipe of its run.

    Without `model` the recipe's is built with fresh weights (the `weights` section only fills values and is not looked at). Raises InputError where
    the recipe can't be built; what else can't be shown becomes a note.
    """
    made = Explanation(recipe.name, settings=[Setting(path, _text(value), recipe.origins.get(path, "")) for path, value in flatten(recipe.values)])
    data: Mapping[str, Any] = recipe.section("data") or {}
    if model is None:
        from saccade.engine.checkpoints import without_downloads

        if recipe.section("model") is None:
            raise InputError(
                f"the recipe {recipe.name} has no model: it adapts one that `saccade adapt` is given with --from. Name the run folder that comes out"
            )

        classes = _classes(recipe, made)
        model = build(without_downloads(recipe.section("model")), where="model", origins=recipe.origins, classes=classes)
    seed = int((recipe.section("run") or {}).get("seed") or 0)
    dataset = _dataset(recipe, data, "train", made, model)
    batch, made.sample = _batch(dataset, _transforms(data, recipe, "train_transforms"), seed, int(data.get("size_divisor") or 1), model)
    made.batch_size = len(batch)
    if data.get("source") is not None:
        source, transforms = _dataset(recipe, data, "source", made, model), _transforms(data, recipe, "source_transforms", "train_transforms")
        batch.source, _ = _batch(source, transforms, seed, int(data.get("size_divisor") or 1), model)
    _look_inside(model, batch, made)
    learner = recipe.tree.find(("learner",))
    if learner is not None and (reads := read_stages(learner)):
        made.notes.append(f"the learner reads what the stage {reads[0]} leaves, so it is shown from the folder of a run that has come so far")
    elif learner is not None:
        _look_at_learning(recipe, model, batch, len(dataset), made)
    made.parts += _named_parts(recipe)
    return made


def _classes(recipe: Recipe, made: Explanation) -> tuple[str, ...]:
    try:
        return recipe_classes(recipe)
    except SaccadeError as error:
        classes = tuple(Town(num_videos=1).classes)
        made.notes.append(f"the model's classes come from its training data, which can't be opened ({error}); it is built for Town's {len(classes)}")
        return classes


def _dataset(recipe: Recipe, data: Mapping[str, Any], which: Literal["train", "source"], made: Explanation, model: Model) -> Dataset:
    if data.get(which) is None:
        made.notes.append("the recipe has no training data; Town stands in")
        return _stand_in()
    called = "training data" if which == "train" else "source data"
    try:
        dataset: Dataset = build(data[which], where=f"data.{which}", origins=recipe.origins)
        dataset[0]
    except SaccadeError as error:
        made.notes.append(f"the {called} can't be read, so Town stands in: shapes are right, ranges and counts are Town's ({error})")
        return _stand_in()
    if len(dataset.classes) > len(model.classes):
        made.notes.append(f"the {called} has {len(dataset.classes)} classes, the model {len(model.classes)}")
    return dataset


def _stand_in() -> Dataset:
    # Boxes, labels and tracks, which detectors and classifiers have; maps would only show fields that their data lacks.
    return cast(Dataset, Town(size=320, num_videos=_BATCH, masks=False, segmentation=False, panoptic=False))


def _transforms(data: Mapping[str, Any], recipe: Recipe, *sections: str) -> list[Callable[[Sample], Sample]]:
    """Those of the first of `sections` that has any, else those of evaluation."""
    section = next((name for name in sections if data.get(name)), "evaluation_transforms")
    return [build(spec, where=f"data.{section}.{i}", origins=recipe.origins) for i, spec in enumerate(data.get(section) or [])]


def _batch(
    dataset: Dataset, transforms: Sequence[Callable[[Sample], Sample]], seed: int, size_divisor: int, model: Model
) -> tuple[Batch, list[SampleStep]]:
    """The first samples of `dataset` as a batch, and what the first one was after every transform."""
    samples: list[Any] = []
    first: list[SampleStep] = []
    for index in range(_BATCH):
        with seeded(sample_seed(seed, 0, index)):
            steps, sample = follow_sample(dataset[index % len(dataset)], transforms, dataset)
        first = first or steps
        samples.append(_fitting(sample, model, isinstance(dataset, Town)))
    return collate(samples, size_divisor), first


def _fitting(sample: Any, model: Model, stand_in: bool) -> Any:
    """A stand-in's labels as numbers that the model has, and a label for the whole image and one for all its pixels, which Town's frames lack."""
    if not stand_in:
        return sample
    labels = None if sample.labels is None else sample.labels % len(model.classes)
    pixels = torch.zeros(sample.size, dtype=torch.uint8) if sample.segmentation is None else sample.segmentation % len(model.classes)
    return replace(sample, labels=labels, label=0 if sample.label is None else sample.label, segmentation=pixels)


def _look_inside(model: Model, batch: Batch, made: Explanation) -> None:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    batch = batch.to(device)
    with torch.no_grad():
        outputs, made.modules, made.total_flops = follow_batch(model, batch)
        labelled = batch.source
        made.losses = _losses(model, outputs, batch, made) if labelled is None else _losses(model, model(labelled), labelled, made)


def _losses(model: Model, outputs: Outputs, batch: Batch, made: Explanation) -> list[Any]:
    if type(model).losses is Model.losses:
        made.notes.append(f"{type(model).__name__} defines no losses")
        return []
    terms: dict[str, Tensor] = model.losses(outputs, batch)
    return list(loss_terms(terms))


def _look_at_learning(recipe: Recipe, model: Model, batch: Batch, length: int, made: Explanation) -> None:
    learner = build_section(recipe, "learner", model=model)
    made.loop = loop_lines(run_steps)
    made.parts.append(("learner", type(learner).__name__, where_written(learner)))
    if not isinstance(learner, Supervised | Adapting):
        made.notes.append(f"{type(learner).__name__} makes its parameter groups when a run starts; they are not shown")
        return
    if isinstance(learner, Adapting):
        _look_at_method(learner, batch, made)
    made.groups = learner.parameter_groups()
    made.optimizer = type(learner.optimizer).__name__
    settings: RunSettings = build_section(recipe, "run")
    per_epoch = max(1, length // settings.batch_size)
    total = settings.total_steps(per_epoch)
    made.parts.append(("optimiser", made.optimizer, where_written(learner.optimizer)))
    made.parts.append(("schedule", _rates(learner, total, per_epoch), where_written(learner.schedule)))


def _look_at_method(learner: Adapting, batch: Batch, made: Explanation) -> None:
    """The losses that the terms give, instead of the model's own, and what the method is made of."""
    objective = learner.objective
    with torch.no_grad():
        made.losses = list(loss_terms(objective(batch)["losses"]))
    parts: list[tuple[str, object]] = [("teacher", learner.follows), ("fixed network", learner.fixed), ("pseudo objects", objective.objects)]
    parts += [(f"view {name}", view) for name, view in objective.views.items()]
    parts += [("term", term) for term in objective.terms]
    parts += [(f"opponent {opponent.name}", opponent.network) for opponent in learner.opponents]
    made.parts += [(kind, type(part).__name__, where_written(part)) for kind, part in parts if part is not None]


def _rates(learner: Supervised | Adapting, total: int, per_epoch: int) -> str:
    """The rate of a group without multiplier over the run."""
    steps = sorted({0, total // 100, total // 4, total // 2, 3 * total // 4, total - 1})
    rates = [f"{learner.schedule.lr(step, learner.optimizer.lr, total, per_epoch):.3g} at {step}" for step in steps]
    return f"{type(learner.schedule).__name__}: {', '.join(rates)}"


def _named_parts(recipe: Recipe) -> list[tuple[str, str, str]]:
    """The classes that the recipe names for evaluation and logging, without building them, and what looks on while it is evaluated."""
    named = [("metric", spec) for spec in recipe.section("metrics") or []]
    named += [("logger", spec) for spec in (recipe.section("run") or {}).get("loggers") or []]
    rows = []
    for kind, spec in named:
        target = find_target(spec["type"])
        if target is not None:
            rows.append((kind, str(spec["type"]), where_written(resolve(target))))
    if (recipe.section("data") or {}).get("evaluate"):
        rows += [("observer", observer.__name__, where_written(observer)) for observer in (PredictionCollector, Gallery)]
    return rows


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
