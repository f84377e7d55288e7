"""`saccade train`: a recipe into a run folder, on one or several processes."""
from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from saccade.data.contract import Dataset
    from saccade.engine.evaluation import Observer
    from saccade.engine.training import Training
    from saccade.recipes import Recipe


def command(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, a .yaml file, or with --resume a run folder.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Values on top, e.g. run.steps=500.", metavar="[KEY=VALUE]...")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; default: runs/NAME OF THE RECIPE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder from its newest whole checkpoint.")] = False,
    devices: Annotated[int, typer.Option(min=1, help="Processes (GPUs) on this machine; the batch size stays the total.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines; each runs this command with NODE_RANK, MASTER_ADDR and MASTER_PORT set.")] = 1,
    accelerator: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="auto: GPUs where there are any.")] = "auto",
    plugin: Annotated[list[str] | None, typer.Option(help="A package with classes of your own; may be repeated.")] = None,
    allow_changes: Annotated[bool, typer.Option("--allow-changes", help="With --resume: permit another recipe or other data.")] = False,
    allow_world_size_change: Annotated[
        bool, typer.Option("--allow-world-size-change", help="With --resume: permit another number of processes.")
    ] = False,
) -> None:
    """Train a model from a recipe, or resume a stopped run.

    Exit codes: 0 done, 2 input, 3 data, 4 a number that is not finite, 5 storage, 130 and 143 after Ctrl-C and SIGTERM (with a checkpoint).
    """
    from saccade.errors import InputError
    from saccade.recipes import check, load_recipe
    from saccade.recipes.registry import add_plugin

    for package in plugin or []:
        add_plugin(package)
    loaded = load_recipe(recipe, overrides or [])
    check(loaded)
    if (allow_changes or allow_world_size_change) and not resume:
        raise InputError("--allow-changes and --allow-world-size-change are for --resume")
    if _waits_for_a_model(loaded):
        raise InputError(f"the recipe {loaded.name} adapts a model that is there already: saccade adapt {recipe} --from RUN [--to DATA]")
    folder = out if out is not None else _default_folder(recipe, loaded, resume)

    from saccade.engine.launch import started_by_launcher
    from saccade.engine.supervision import end_with_supervisor, run_ranks

    if devices * nodes > 1 and not started_by_launcher():
        check_folder(loaded, folder, resume, allow_changes)  # once for all processes
        sys.exit(run_ranks(devices, nodes))
    end_with_supervisor()
    train_here(loaded, folder, resume=resume, accelerator=accelerator, allow_changes=allow_changes, allow_world_size_change=allow_world_size_change)


def _waits_for_a_model(recipe: Recipe) -> bool:
    """Whether the recipe, or a stage of it, adapts a model that it does not describe."""
    from saccade.recipes import is_staged
    from saccade.recipes.stages import stage_trees

    parts = [tree.plain() for tree in stage_trees(recipe).values()] if is_staged(recipe) else [recipe.values]
    return any(part.get("model") is None for part in parts) and any((part.get("learner") or {}).get("type") == "Adapting" for part in parts)


def check_folder(recipe: Recipe, folder: Path, resume: bool, allow_changes: bool = False) -> None:
    """Raise InputError where `folder` does not allow the run."""
    from saccade.engine.run_folder import RunFolder
    from saccade.engine.stages import check_stages
    from saccade.recipes import is_staged

    if is_staged(recipe):
        check_stages(recipe, folder, resume=resume, allow_changes=allow_changes)
    else:
        RunFolder(folder).check(resume)


def _default_folder(named: str, recipe: Recipe, resume: bool) -> Path:
    if resume and (Path(named) / "recipe.yaml").is_file():
        return Path(named)
    return Path("runs") / recipe.name


def train_here(recipe: Recipe, folder: Path, *, resume: bool, **options: Any) -> None:
    """Train in this process, all stages of a staged recipe; what every process of a run raises alike is told by the first one alone."""
    import torch
    from rich.console import Console

    from saccade.engine.checkpoints import newest_valid
    from saccade.engine.experiment import Experiment
    from saccade.engine.launch import find_place
    from saccade.engine.progress import RunLog, TrainingProgress
    from saccade.engine.run_folder import RunFolder
    from saccade.engine.signals import Interrupted
    from saccade.engine.stages import Watching, run_stages
    from saccade.learning.gradients import NotFiniteError
    from saccade.recipes import is_staged

    console = Console(stderr=True)
    rank = find_place().rank
    log = RunLog(console, rank)

    def announce(training: Training) -> None:
        log.follow(training.folder.path / "log.txt")
        _announce(training, console)

    try:
        if is_staged(recipe):
            watching = Watching(
                progress=lambda title, start, total: TrainingProgress(console, start, total, title), announce=announce,
                announce_task=lambda stage: log.follow(stage.run.path / "log.txt"), observers=gallery,
            )
            run_stages(recipe, folder, resume=resume, watching=watching, **options)
        else:
            fresh = not resume or newest_valid(RunFolder(folder).checkpoints) is None
            Experiment.from_recipe(recipe, load_weights=fresh).train(
                folder, resume=resume, observers=gallery, announce=announce,
                progress=lambda start, total: TrainingProgress(console, start, total), **options,
            )
    except (Interrupted, NotFiniteError) as error:
        if rank != 0:
            sys.exit(error.exit_code)
        raise
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if rank == 0:
        hint = f"Done. `saccade report {folder}` makes a page of it, `saccade predict {folder} IMAGE...` uses it."
        console.print(hint, highlight=False, soft_wrap=True)


def gallery(data: str, dataset: Dataset, folder: Path, classes: Sequence[str]) -> list[Observer]:
    """The observer that keeps pictures of an evaluation."""
    from saccade.report.gallery import Gallery

    return [Gallery(folder=folder / "gallery", dataset=dataset, classes=classes)]


def _announce(training: Training, console: Console) -> None:
    """What is about to happen, in numbers: total batch size, steps, learning rates."""
    settings, world = training.settings, training.together.world_size
    per_process = settings.batch_size // world // settings.accumulate
    parts = [f"{per_process} images", f"{world} processes" if world > 1 else "", f"{settings.accumulate} parts" if settings.accumulate > 1 else ""]
    epochs = training.total_steps / training.steps_per_epoch
    dataset, source = training.loader.dataset, getattr(training.loader, "source", None)
    beside = "" if source is None else f", beside {len(source):,} labelled ones of {source.name}"
    lines = [
        f"{type(training.learner.model).__name__} for {len(training.learner.model.classes)} classes, "
        f"{sum(p.numel() for p in training.learner.model.parameters()):,} parameters, on {training.fabric.device}, {settings.precision}",
        f"{len(dataset):,} images of {dataset.name}{beside}; total batch size {settings.batch_size} = {' x '.join(p for p in parts if p)}",
        f"{training.total_steps:,} steps = {epochs:.4g} epochs of {training.steps_per_epoch:,} steps; run folder {training.folder.path}",
    ]
    for group in getattr(training.learner, "parameter_groups", list)():
        lines.append(f"  {group.name}: {group.size:,} parameters, learning rate {group.rate}, weight decay {group.weight_decay:g}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
