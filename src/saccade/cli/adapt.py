"""`saccade adapt`: a trained model to a new domain, without labels, offline or while it predicts."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from saccade.recipes import Recipe
    from saccade.structures import Batch, Prediction


def command(
    recipe: Annotated[str, typer.Argument(help="The method: a shipped recipe's name, a .yaml file, or with --resume a run folder.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Values on top, e.g. run.steps=500.", metavar="[KEY=VALUE]...")] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="The source model: a run folder (best checkpoint, else last), a checkpoint, a file of weights.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--to", help="The target images: a data set, a folder of frames or a video; default: the recipe's.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="For a file of weights: the recipe that describes its model.")] = None,
    online: Annotated[bool, typer.Option("--online", help="One pass: predict each frame, then adapt to it.")] = False,
    out: Annotated[Path | None, typer.Option(help="The run folder; default: runs/NAME OF THE RECIPE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder from its newest whole checkpoint.")] = False,
    devices: Annotated[int, typer.Option(min=1, help="Processes (GPUs) on this machine; the batch size stays the total.")] = 1,
    accelerator: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="auto: GPUs where there are any.")] = "auto",
    plugin: Annotated[list[str] | None, typer.Option(help="A package with classes of your own; may be repeated.")] = None,
) -> None:
    """Adapt a trained model to the images of a new domain; no labels are needed. `saccade train` makes models, this changes them.

    Writes a run folder whose checkpoints hold the adapted network; the method's other network (teacher or student) is kept beside it.
    """
    from saccade.engine.adaptation import adaptation_recipe, find_source
    from saccade.errors import InputError
    from saccade.recipes import check, is_staged, load_recipe
    from saccade.recipes.registry import add_plugin

    for package in plugin or []:
        add_plugin(package)
    loaded = load_recipe(recipe, overrides or [])
    folder = out if out is not None else Path(recipe) if resume and Path(recipe).is_dir() else Path("runs") / loaded.name
    if not resume:
        if source is None:
            raise InputError("say with --from which model is adapted: a run folder, a checkpoint folder, or a file of weights with --model RECIPE")
        loaded = adaptation_recipe(loaded, find_source(source, model), target)
    elif source is not None or target is not None or online:
        raise InputError("a run that is resumed knows its model and its data, and online runs are done again; leave --from, --to and --online out")
    check(loaded)
    if online and is_staged(loaded):
        raise InputError(f"the recipe {loaded.name} has stages, which go over the target more than once; leave --online out")
    if online:
        _adapt_online(loaded, folder, accelerator)
        return
    _adapt(loaded, folder, resume, devices, accelerator)


def _adapt(recipe: Recipe, folder: Path, resume: bool, devices: int, accelerator: str) -> None:
    from saccade.cli.train import check_folder, train_here
    from saccade.engine.adaptation import keep_other_network
    from saccade.engine.launch import find_place, started_by_launcher
    from saccade.engine.supervision import end_with_supervisor, run_ranks
    from saccade.recipes import is_staged

    if devices > 1 and not started_by_launcher():
        check_folder(recipe, folder, resume)
        sys.exit(run_ranks(devices))
    end_with_supervisor()
    train_here(recipe, folder, resume=resume, accelerator=accelerator)
    if find_place().rank == 0 and not is_staged(recipe):  # stages do that each for itself
        keep_other_network(folder)


def _adapt_online(recipe: Recipe, folder: Path, accelerator: Literal["auto", "cpu", "gpu"]) -> None:
    from rich.console import Console

    from saccade.cli.evaluate import show_figures
    from saccade.cli.train import gallery
    from saccade.engine.experiment import Experiment
    from saccade.engine.online import adapt_online
    from saccade.engine.progress import RunLog, TrainingProgress
    from saccade.recipes import build_section

    console = Console(stderr=True)
    RunLog(console)
    experiment = Experiment.from_recipe(recipe)

    class Counting:
        """Moves a bar by one a frame."""

        def __init__(self, total: int) -> None:
            self.bar, self.frames = TrainingProgress(console, 0, total), 0
            self.bar.__enter__()

        def __call__(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
            self.frames += 1
            self.bar(self.frames, {})

        def close(self) -> None:
            self.bar.__exit__(None, None, None)

    figures = adapt_online(experiment, build_section(recipe, "online"), folder, accelerator=accelerator, observers=gallery, progress=Counting)
    if figures:
        show_figures({"online": figures})
    console.print(f"Done. {folder} holds the results and, in frames.jsonl, what every frame cost.", highlight=False, soft_wrap=True)
