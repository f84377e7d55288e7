"""A model to look at, from what people name: a checkpoint folder, a run folder, or a recipe with a file of weights."""
from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from saccade.errors import InputError
from saccade.layers.folding import fold_at_first_call
from saccade.models.contract import Model
from saccade.recipes import Recipe, build, build_section, check, load_recipe, zoo_names
from saccade.recipes.stages import outcome

if TYPE_CHECKING:
    from saccade.weights.table import Published

# What the table of published weights calls its data, and the list of classes that goes with it.
_CLASSES_OF_DATA = {
    "VOC": "voc", "COCO 2017 panoptic": "coco_panoptic", "COCO": "coco", "ImageNet": "imagenet", "CIFAR-100": "cifar100", "CIFAR-10": "cifar10",
}


def open_model(checkpoint: str, weights: str | None = None, device: str = "auto", fast: bool = False) -> Model:
    """The model in evaluation mode on `device`, with `evaluation_transforms` set.

    `checkpoint`: a checkpoint or run folder; or a recipe, and then `weights` is a file, a name of `saccade weights list`, or "published" (those that
    were published for the recipe). `fast` folds batch norms at the first call. Raises InputError for what is none of these.
    """
    model = _open(checkpoint, weights, device)
    if fast:
        fold_at_first_call(model)
    return model


def computing_in(precision: Literal["fp32", "bf16"], model: Model) -> AbstractContextManager[object]:
    """Inside, the model's matrix products and convolutions run in `precision`."""
    device = next((p.device.type for p in model.parameters()), "cpu")
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


def _open(checkpoint: str, weights: str | None, device: str) -> Model:
    from saccade.engine.checkpoints import load_model

    where = choose_device(device)
    if Path(checkpoint).is_dir():
        if weights is not None:
            raise InputError(f"{checkpoint} has its own weights; --weights {weights} is for recipes. Leave it out, or name the recipe instead.")
        return load_model(checkpoint, where)
    if Path(checkpoint).exists() and not checkpoint.endswith((".yaml", ".yml")):
        raise InputError(f"{checkpoint} is a single file; give a checkpoint folder, a run folder, or RECIPE --weights {checkpoint}")
    if not checkpoint.endswith((".yaml", ".yml")) and checkpoint not in zoo_names():
        raise InputError(f"there is no checkpoint folder, run folder or recipe {checkpoint!r}; `saccade list recipes` shows the recipes")
    recipe = load_recipe(checkpoint)
    check(recipe)
    recipe = outcome(recipe)
    if weights is None:
        raise InputError(
            f"{checkpoint} is a recipe, which has no weights yet; add --weights FILE, --weights published, or --weights recipe for those that "
            "it names itself; or name a checkpoint"
        )
    return _from_recipe(recipe, weights).to(where).eval()


def choose_device(name: str) -> str:
    """`name`, or for "auto" the first accelerator that works, else "cpu". Raises InputError for a device that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # builds without CUDA assert
        raise InputError(f"the device {name!r} can't be used here: {str(error).splitlines()[0]}") from None
    return name


def _from_recipe(recipe: Recipe, weights: str) -> Model:
    from saccade.engine.checkpoints import without_downloads
    from saccade.weights.load import load_into, read_tensors

    entry = _published_for(recipe)
    if weights == "published":
        if entry is None:
            raise InputError(f"nothing is published for the recipe {recipe.name}; `saccade weights list` shows what is. Give a file instead.")
        weights = entry.name
    spec = without_downloads(recipe.section("model"))
    model: Model = build(spec, where="model", origins=recipe.origins, classes=recipe_classes(recipe), things=_things(recipe))
    if weights == "recipe":
        _fill_as_named(model, recipe)
    else:
        load_into(model, read_tensors(weights))
    model.evaluation_transforms = (recipe.section("data") or {}).get("evaluation_transforms") or []  # type: ignore[assignment]
    return model


def _fill_as_named(model: Model, recipe: Recipe) -> None:
    """Load what the recipe's section `weights` names into the parts that it names. Raises InputError where that is not the whole model."""
    sources = build_section(recipe, "weights") if recipe.section("weights") else []
    sources = sources if isinstance(sources, list) else [sources]
    parts = [source.into for source in sources]
    left = next((name for name, _ in model.named_parameters() if not any(part == "" or name.startswith(f"{part}.") for part in parts)), None)
    if left is not None:
        raise InputError(f"--weights recipe: the section `weights` of {recipe.name} fills {', '.join(parts) or 'nothing'}, but not {left}")
    for source in sources:
        source.fill(model)


def _published_for(recipe: Recipe) -> Published | None:
    from saccade.weights.table import published

    return next((entry for entry in published().values() if entry.recipe == recipe.name), None)


def _things(recipe: Recipe) -> tuple[bool, ...] | None:
    """Which classes of published panoptic weights are things: COCO's things come before its stuff."""
    from saccade.data.classes import COCO, COCO_STUFF

    entry = _published_for(recipe)
    return (True,) * len(COCO) + (False,) * len(COCO_STUFF) if entry is not None and "panoptic" in entry.data else None


def recipe_classes(recipe: Recipe) -> tuple[str, ...]:
    """The classes of a recipe's model: those it names, those of the data that weights were published for, else those of its training data (of the
    source domain, where it has one)."""
    from saccade.data.classes import named_classes

    given: Any = (recipe.section("model") or {}).get("classes")
    if isinstance(given, list | tuple):
        return tuple(str(name) for name in given)
    entry = _published_for(recipe)
    data = None if entry is None else next((names for start, names in _CLASSES_OF_DATA.items() if entry.data.startswith(start)), None)
    if data is not None:
        return named_classes(data)
    sections = recipe.section("data") or {}
    name = "train" if sections.get("source") is None else "source"
    if sections.get(name) is None:
        raise InputError(f"the recipe {recipe.name} names neither classes nor training data, so its model can't be built")
    return tuple(build(sections[name], where=f"data.{name}", origins=recipe.origins).classes)
