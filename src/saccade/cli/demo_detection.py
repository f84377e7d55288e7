"""`saccade demo-detection`: detection from beginning to end on the embedded default, the town: train, evaluate, predict, report."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from saccade.engine.experiment import Experiment

CLIP_FRAMES, CLIP_SIZE, PHOTOS = 60, 256, 6


def command(
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides of the recipe ssd_town, e.g. run.steps=200.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; by default the first free one of runs/demo-detection, -2, ...")] = None,
) -> None:
    """Train a small detector on the town by day, score it by day and in five other domains, predict on new frames and a clip, make a report."""
    import time

    from rich.console import Console

    from saccade.cli.demo import free_folders
    from saccade.data.media import find_media
    from saccade.engine.checkpoints import load_model
    from saccade.engine.experiment import Experiment
    from saccade.engine.progress import TrainingProgress
    from saccade.recipes import load_recipe
    from saccade.report.gallery import gallery_of
    from saccade.report.media_prediction import predict_media
    from saccade.report.page import write_page

    begun = time.perf_counter()
    console = Console()
    folder = out or next(free_folders("demo-detection"))
    experiment = Experiment.from_recipe(load_recipe("ssd_town", overrides or []))
    domains = ", ".join(experiment.data.evaluate)
    console.print(f"1/4  training {experiment.recipe.name} for {experiment.settings.steps} steps on the town by day, then scoring it on: {domains}")
    run = experiment.train(folder, observers=gallery_of, progress=lambda start, total: TrainingProgress(console, start, total))
    console.print("2/4  scores of the best checkpoint's last evaluation")
    console.print(_scores(run.path, experiment))
    console.print("3/4  predicting on held-out frames and on a moving clip")
    inputs = _write_inputs(run.path / "inputs")
    summary = predict_media(load_model(str(run.path)), find_media([str(inputs)]), run.path / "predictions", score_threshold=0.4)
    console.print(f"     {summary.images} pictures and a clip of {summary.frames} frames in {run.path / 'predictions'}")
    page = write_page([run.path], run.path / "report.html")
    console.print(f"4/4  report: {page.resolve()}  ({time.perf_counter() - begun:.0f} s in all)")


def _scores(run: Path, experiment: Experiment) -> Table:
    import json

    from rich import box
    from rich.table import Table

    table = Table("domain", "mAP@.5", "AP@.5:.95", box=box.SIMPLE_HEAD)
    for name in experiment.data.evaluate:
        figures = json.loads((run / "evaluation" / name / "figures.json").read_text())
        table.add_row(name, f"{figures['voc/mAP']:.3f}", f"{figures['coco/AP']:.3f}")
    return table


def _write_inputs(folder: Path) -> Path:
    """Frames of the test split as PNG files, and a moving clip as a video."""
    from fractions import Fraction

    import torchvision

    from saccade.data.media import VideoWriter
    from saccade.data.town.dataset import Town

    folder.mkdir(parents=True)
    for domain in ("day", "night"):
        stills = Town(split="test", domain=domain, size=CLIP_SIZE, num_videos=PHOTOS // 2, frames_per_video=1)
        for index in range(len(stills)):
            torchvision.io.write_png(stills[index].image, str(folder / f"{domain}_{index}.png"))
    clip = Town(split="test", domain="day", size=CLIP_SIZE, num_videos=1, frames_per_video=CLIP_FRAMES, seed=7)
    with VideoWriter(folder / "clip.mp4", Fraction(10)) as video:
        for index in range(len(clip)):
            video.write(clip[index].image.permute(1, 2, 0).numpy())
    return folder
