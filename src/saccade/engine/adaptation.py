"""A run that adapts: the method from a recipe, the network from a checkpoint, the images from wherever the user has them.

What comes out of the three is an ordinary recipe, with the source model, its weights and the target data written in; so the run folder alone is
enough to resume, evaluate or repeat it. Pixel statistics and evaluation transforms are the source model's, for they belong to its weights.
"""
from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.data.contract import Dataset
from saccade.data.recognition import FORMATS, recognise
from saccade.engine.checkpoints import (
    CARD,
    WEIGHTS,
    ModelCard,
    find_checkpoint,
    find_damage,
    load_training,
    newest_valid,
    read_card,
    save_checkpoint,
    step_of,
    without_downloads,
)
from saccade.engine.run_folder import RunFolder
from saccade.errors import InputError, StorageError
from saccade.recipes import Recipe, build, is_staged, load_recipe, recipe_from_values
from saccade.recipes.stages import STAGE_REFERENCE, stage_trees

LEARNER = "Adapting"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """The network to adapt: its spec, classes, weights file, the transforms before it, and what its batches are padded to a multiple of."""

    model: Mapping[str, Any]
    classes: Sequence[str]
    weights: str
    transforms: Sequence[Mapping[str, Any]]
    size_divisor: int = 1


def find_source(path: str | Path, model_recipe: str | None = None) -> Source:
    """The network of a checkpoint or run folder, or of a file of weights whose model `model_recipe` describes.

    Raises InputError for what is none of these, StorageError for a damaged checkpoint.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise InputError(f"--from {path}: there is no such checkpoint, run folder or file of weights")
    if place.is_file():
        return _source_of_file(place, model_recipe)
    if model_recipe is not None:
        raise InputError(f"{path} is a checkpoint and says itself how its model is built; --model is for files of weights")
    checkpoint = find_checkpoint(place)
    damage = find_damage(checkpoint, (WEIGHTS, CARD))
    if damage is not None:
        raise StorageError(f"the checkpoint {checkpoint} is damaged: {damage}. Copy it again, or take another one of the run.")
    card = read_card(checkpoint)
    model = {**without_downloads(card.model), "classes": list(card.classes)}
    return Source(model, card.classes, str((checkpoint / WEIGHTS).resolve()), card.evaluation_transforms, _divisor_of_run(checkpoint))


def _source_of_file(file: Path, model_recipe: str | None) -> Source:
    if model_recipe is None:
        raise InputError(f"{file} holds weights alone; name the recipe that describes their model with --model (e.g. the one they were trained by)")
    recipe = load_recipe(model_recipe)
    model, data = recipe.section("model"), recipe.section("data") or {}
    if model is None:
        raise InputError(f"--model {model_recipe}: this recipe has no section `model`")
    classes = model.get("classes") or _classes_of(data, recipe)
    transforms = data.get("evaluation_transforms") or []
    return Source({**without_downloads(model), "classes": list(classes)}, classes, str(file.resolve()), transforms, data.get("size_divisor", 1))


def _classes_of(data: Mapping[str, Any], recipe: Recipe) -> Sequence[str]:
    spec = data.get("source") or data.get("train") or next(iter((data.get("evaluate") or {}).values()), None)
    if spec is None:
        raise InputError(f"the recipe {recipe.name} names neither classes nor data, so its model can't be built; set model.classes in your recipe")
    classes: Sequence[str] = build(spec, where="data.train", origins=recipe.origins).classes
    return classes


def _divisor_of_run(checkpoint: Path) -> int:
    """What the run that a checkpoint lies in filled its batches up to."""
    run = checkpoint.parent.parent
    if not (run / "recipe.yaml").is_file():
        return 1
    return int((load_recipe(run).section("data") or {}).get("size_divisor", 1))


def adaptation_recipe(recipe: Recipe, source: Source, target: str | Path | None) -> Recipe:
    """`recipe` with the model and weights of `source` and the data at `target` (those of the recipe where it is None).

    Labels are needed nowhere. The data sets of `data.evaluate` are scored; with a target of the user's own that is this one, if it has annotations.
    Of a staged recipe every stage gets model and data; the weights are for the first one and for those that name none (`weights: []` begins afresh).
    Raises InputError for a recipe that does not adapt and for data that can't be found.
    """
    stages = {name: tree.plain() for name, tree in stage_trees(recipe).items()} if is_staged(recipe) else {recipe.name: recipe.values}
    learners = [(values.get("learner") or {}).get("type", "missing") for values in stages.values()]
    if LEARNER not in learners:
        raise InputError(
            f"the recipe {recipe.name} does not adapt: its learner is {learners[-1]}, not {LEARNER}. `saccade train` runs it; "
            "`saccade list recipes` shows the others"
        )
    given = {} if target is None else _target_data(str(target), source.classes)
    changed = {}
    for number, (name, values) in enumerate(stages.items()):
        weights = values.get("weights") if number else None
        changed[name] = _adapted(name, values, source, given, {"source": source.weights} if weights is None else weights)
    return recipe_from_values({"stages": changed} if is_staged(recipe) else changed[recipe.name], recipe.name, recipe.source)


def _adapted(name: str, values: Mapping[str, Any], source: Source, given: Mapping[str, Any], weights: Any) -> dict[str, Any]:
    """The sections `values` of a recipe or stage with what comes from outside: the model of `source`, the `given` target data, the `weights`."""
    data = {**(values.get("data") or {}), **given}
    if data.get("train") is None:
        raise InputError(f"the recipe {name} names no target data; give a data set, a folder of frames or a video with --to")
    data.setdefault("size_divisor", source.size_divisor)
    data.setdefault("evaluation_transforms", list(source.transforms))
    data.setdefault("train_transforms", list(data["evaluation_transforms"]))
    data["train"] = _matched(data["train"], source.classes)
    if data.get("source") is not None:
        data["source"] = _matched(data["source"], source.classes)
    data["evaluate"] = {name: _matched(spec, source.classes) for name, spec in (data.get("evaluate") or {}).items()}
    model = _merged(source.model, values.get("model") or {})
    changed: dict[str, Any] = {**values, "model": without_downloads(model) if weights else model, "weights": weights, "data": data}
    learner = values.get("learner") or {}
    if learner.get("type") == LEARNER:
        changed["learner"] = {"size_divisor": data["size_divisor"], **learner}
    if not data["evaluate"] and "run" in values:
        changed["run"] = {**values["run"], "best": None}
    return changed


def _target_data(target: str, classes: Sequence[str]) -> dict[str, Any]:
    """`train` and `evaluate` for what lies at a path: a data set of a known format, a folder of frames, or a video."""
    place = Path(target).expanduser()
    if not place.exists():
        raise InputError(f"--to {target}: there is no such data set, folder of frames or video")
    name, arguments = recognise(place)
    spec: dict[str, Any] = {"type": FORMATS[name].__name__, **arguments}
    dataset: Dataset = build(spec, where="--to")
    strange = not {c.casefold() for c in dataset.classes} & {c.casefold() for c in classes}
    if name == "imagefolder" and strange:
        spec = {"type": "Frames", "root": str(place)}  # folders of pictures that are no classes of this model are videos
        dataset = build(spec, where="--to")
    elif name == "segmentation" and strange:
        _log.warning("the label maps of %s are of no class of the model, so they are not used; name their classes in %s/classes.txt", place, place)
        spec |= {"labels": None, "classes": []}
        dataset = build(spec, where="--to")
    return {"train": spec, "evaluate": {place.resolve().stem: spec} if has_labels(dataset) else {}}


def has_labels(dataset: Dataset) -> bool:
    """Whether anything is known about the first item of `dataset`, and so presumably about the others."""
    first = dataset.annotations(0) if len(dataset) else None
    return first is not None and any(value is not None for value in (first.boxes, first.label, first.segmentation, first.panoptic))


def _matched(spec: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """The spec of a data set, in `MatchClasses` where its classes are others than the model's. One that an earlier stage is still to make stays."""
    if f'"{STAGE_REFERENCE}' in json.dumps(spec):
        return dict(spec)
    dataset: Dataset = build(spec, where="data.train")
    if not dataset.classes or tuple(dataset.classes) == tuple(classes):
        return dict(spec)
    return {"type": "MatchClasses", "dataset": dict(spec), "classes": list(classes)}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the values of `above`, mappings merged; what is of another type replaces."""
    merged = dict(below)
    for key, value in above.items():
        other = merged.get(key)
        same = isinstance(value, Mapping) and isinstance(other, Mapping) and value.get("type", other.get("type")) == other.get("type")
        merged[key] = _merged(other, value) if same else value  # type: ignore[arg-type]
    return merged


def keep_other_network(folder: str | Path) -> Path | None:
    """Write the network that a run did not evaluate, from its newest checkpoint, as a checkpoint of its own in the run folder ("teacher" or
    "student").

    Returns its folder, or None where the method has one network alone.
    """
    run = RunFolder(folder)
    newest = newest_valid(run.checkpoints)
    other = None if newest is None else load_training(newest)["learner"].get("other")
    if newest is None or other is None:
        return None
    evaluated = (load_recipe(run.path).section("learner") or {}).get("evaluates", "student")
    name = "student" if evaluated == "teacher" else "teacher"
    card = read_card(newest)
    card = ModelCard(card.model, card.classes, card.evaluation_transforms, {**card.provenance, "network": name})
    return save_checkpoint(run.path / name, step_of(newest), other, card, {"step": step_of(newest)})
