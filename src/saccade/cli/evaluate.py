"""`saccade evaluate`: the figures of a checkpoint on its own or other data sets."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from saccade.data.contract import Dataset
    from saccade.data.settings import DataSettings
    from saccade.metrics.contract import Metric
    from saccade.models.contract import Model
    from saccade.recipes import Recipe


def command(
    checkpoint: Annotated[
        str | None, typer.Argument(help="A run folder (best checkpoint, else last), a checkpoint folder, or a recipe with --weights.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Values on top of the recipe's.", metavar="[KEY=VALUE]...")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="A name under the recipe's data.evaluate, or the path of any data set; may be repeated.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Instead of a checkpoint: a folder of MOT text (one a video) or label maps (a PNG an image); with --data.")
    ] = None,
    ids: Annotated[
        str | None, typer.Option(help="What the pixels of label maps in --results are: labels (0, 1, ..., default), cityscapes, synthia or camvid.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Take data, transforms and metrics from this recipe; default: that of the run.")] = None,
    weights: Annotated[str | None, typer.Option(help="For a recipe: a file, 'published', or 'recipe': those it names.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Fold batch norms into convolutions: equal but for rounding, and faster.")] = False,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="bf16: networks compute in half precision.")] = "fp32",
    out: Annotated[Path | None, typer.Option(help="Results go to OUT/evaluation/DATA; default: the run folder, else here.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or auto: the first accelerator there is.")] = "auto",
    plugin: Annotated[list[str] | None, typer.Option(help="A package with classes of your own; may be repeated.")] = None,
) -> None:
    """Score a checkpoint on its own or other data sets, or results of any origin; writes figures, details, predictions and pictures."""
    from rich.console import Console

    from saccade.engine.experiment import evaluate_on
    from saccade.engine.progress import counting
    from saccade.errors import InputError
    from saccade.recipes.registry import add_plugin
    from saccade.report.gallery import Gallery
    from saccade.report.label_maps import LabelMapFiles
    from saccade.report.opening import computing_in, open_model
    from saccade.report.palette import class_colours

    if (checkpoint is None) == (results is None):
        raise InputError("evaluate takes a checkpoint (or a run folder, or a recipe with --weights) or a folder of results (--results); "
                         f"{'neither' if checkpoint is None else 'both'} was given")
    for package in plugin or []:
        add_plugin(package)
    if results is not None:
        _score_results(results, data or [], recipe, ids, out)
        return
    assert checkpoint is not None
    if ids is not None:
        raise InputError("--ids says what the pixels of result files are; it goes with --results")
    run = _run_of(checkpoint)
    values = _recipe_for(checkpoint, recipe, run, overrides or [])
    model = open_model(checkpoint, weights, device, fast=fast)
    settings = _settings(values, model)
    console = Console(stderr=True)
    found: dict[str, dict[str, float]] = {}
    for name, dataset in _datasets(data or [], settings).items():
        folder = (out or run or Path()) / "evaluation" / name
        gallery = Gallery(folder=folder / "gallery", dataset=dataset, classes=model.classes)
        maps = LabelMapFiles(folder / "predictions", class_colours(model.classes, getattr(dataset, "colours", None)))
        with counting(console, name, len(dataset)) as bar, computing_in(precision, model):
            found[name] = evaluate_on(
                model, dataset, settings, _metrics(values, model, dataset), folder, batch_size=batch_size, observers=[gallery, maps, bar]
            )
        gallery.close()
        written = f", {maps.count} label maps in {maps.folder}" if maps.count else ""
        console.print(f"{name}: results in {folder}{written}", highlight=False, soft_wrap=True)
    show_figures(found)


_FOR_TRAINING = ("train", "train_transforms", "batch_transforms", "sampler", "source", "source_transforms", "source_batch_size")
def _score_results(results: Path, data: list[str], recipe: str | None, ids: str | None, out: Path | None) -> None:
    """Score result files on the one data set that is named, at a path or in the recipe."""
    from saccade.cli.evaluate_results import score_results
    from saccade.errors import InputError

    if len(data) != 1:
        raise InputError(f"--results is judged against one data set; give its path, or its name in a --recipe, with --data (there are {len(data)})")
    values = None if recipe is None else _recipe_for(recipe, recipe, None, [])
    ((name, dataset),) = _datasets(data, _data_of(values)).items()
    score_results(results, dataset, name, ids, out, show_figures)


def _run_of(checkpoint: str) -> Path | None:
    """The run folder that `checkpoint` is, or lies in; of a run in stages that of the last one that has finished a training."""
    from saccade.engine.staged_folder import network_folder

    path = network_folder(Path(checkpoint))
    return next((p for p in (path, path.resolve().parent.parent) if path.is_dir() and (p / "recipe.yaml").is_file()), None)


def _recipe_for(checkpoint: str, recipe: str | None, run: Path | None, overrides: list[str]) -> Recipe | None:
    from saccade.errors import InputError
    from saccade.recipes import check, load_recipe
    from saccade.recipes.stages import outcome

    name = recipe or (str(run) if run is not None else None if Path(checkpoint).is_dir() else checkpoint)
    if name is None:
        if overrides:
            raise InputError(f"{checkpoint} is a checkpoint without a run folder, so {overrides[0]} has no recipe to change; name one with --recipe")
        return None
    loaded = load_recipe(name, overrides)
    check(loaded)
    return outcome(loaded)


def _settings(recipe: Recipe | None, model: Model) -> DataSettings:
    """Data sets and loading as the recipe says; the transforms are always those that the checkpoint names."""
    from dataclasses import replace

    from saccade.recipes import build

    specs = getattr(model, "evaluation_transforms", None) or []
    return replace(_data_of(recipe), evaluation_transforms=[build(spec, where=f"evaluation_transforms.{i}") for i, spec in enumerate(specs)])


def _data_of(recipe: Recipe | None) -> DataSettings:
    """Data sets and loading as the recipe says, nothing that is for training; without a recipe no data set."""
    from saccade.data.settings import DataSettings
    from saccade.recipes import recipe_from_values
    from saccade.recipes.building import build_section

    if recipe is None:
        return DataSettings()
    section = {k: v for k, v in (recipe.values.get("data") or {}).items() if k not in _FOR_TRAINING}
    settings: DataSettings = build_section(recipe_from_values({**recipe.values, "data": section}, recipe.name, recipe.source), "data")
    return settings


def _datasets(named: list[str], settings: DataSettings) -> dict[str, Dataset]:
    """The data sets to evaluate by name: all of the recipe's, or those that are named or lie at a path."""
    from saccade.data.recognition import open_dataset
    from saccade.errors import InputError

    known = dict(settings.evaluate)
    if not named:
        if not known:
            raise InputError("there is no data set to evaluate: the checkpoint has no recipe with data.evaluate; name a path with --data")
        return known
    chosen: dict[str, Dataset] = {}
    for name in named:
        if name in known:
            chosen[name] = known[name]
        elif Path(name).exists():
            chosen[Path(name).resolve().name] = open_dataset(name)
        else:
            raise InputError(f"--data {name}: neither a path nor one of the recipe's data sets ({', '.join(known) or 'it has none'})")
    return chosen


def _metrics(recipe: Recipe | None, model: Model, dataset: Dataset) -> list[Metric]:
    """The recipe's metrics; without a recipe those that suit the annotations."""
    from saccade.data.label_results import has_label_maps
    from saccade.engine.experiment import build_metrics
    from saccade.metrics.classification import ClassificationAccuracy
    from saccade.metrics.coco import CocoDetection
    from saccade.metrics.panoptic import PanopticQuality
    from saccade.metrics.segmentation import SegmentationIoU
    from saccade.metrics.voc import VocDetection

    if recipe is not None and recipe.section("metrics") is not None:
        return build_metrics(recipe, model.classes, getattr(dataset, "subsets", None))
    if has_label_maps(dataset):
        return [SegmentationIoU(classes=model.classes, subsets=getattr(dataset, "subsets", None))]
    if len(dataset) and dataset.annotations(0).label is not None:
        return [ClassificationAccuracy(classes=model.classes)]
    if getattr(model, "masks", None) == "panoptic":
        return [PanopticQuality(classes=model.classes)]
    return [VocDetection(classes=model.classes), CocoDetection(classes=model.classes)]


def show_figures(results: dict[str, dict[str, float]]) -> None:
    """A table with a column for each data set."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", *results, box=box.SIMPLE_HEAD, pad_edge=False)
    for name in dict.fromkeys(key for figures in results.values() for key in figures):
        table.add_row(name, *(f"{figures[name]:.4f}" if name in figures else "" for figures in results.values()))
    Console().print(table)
