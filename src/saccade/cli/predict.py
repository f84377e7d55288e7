"""`saccade predict`: a checkpoint on images, folders and videos."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from saccade.data.media import Medium
    from saccade.report.media_prediction import Summary


def command(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint folder, a run folder (best, else last), or a recipe with --weights.")],
    inputs: Annotated[list[str], typer.Argument(help="Images, folders (searched through), videos, or quoted patterns.", metavar="INPUT...")],
    out: Annotated[Path, typer.Option(help="The folder for pictures, videos and predictions.json.")] = Path("predictions"),
    score_threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Detections with a lower score are left out; default 0.5, and 0 where objects are tracked.")
    ] = None,
    tracker: Annotated[
        str | None, typer.Option(help="Follow objects: sort, bytetrack, ocsort, deepsort, quasidense; with settings: sort:match_iou=0.5,min_hits=2.")
    ] = None,
    frames: Annotated[bool, typer.Option("--frames", help="The images of a folder are the frames of one video; so they are with --tracker.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images or frames at a time.")] = 8,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto: the first accelerator there is.")] = "auto",
    file_format: Annotated[
        Literal["coco", "csv"], typer.Option("--format", help="coco: predictions.json alone; csv: predictions.csv beside it.")
    ] = "coco",
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Whether pictures and videos are drawn.")] = True,
    weights: Annotated[str | None, typer.Option(help="For a recipe: a file, 'published', or 'recipe': those it names.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Fold batch norms into convolutions: equal but for rounding, and faster.")] = False,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="bf16: networks compute in half precision.")] = "fp32",
    plugin: Annotated[list[str] | None, typer.Option(help="A package with classes of your own; may be repeated.")] = None,
) -> None:
    """Run a checkpoint on images, folders and videos; write drawn pictures, drawn videos and predictions.json.

    Files that can't be read are named and passed over; the exit code is 3 only where none could be read.
    """
    from rich.console import Console

    from saccade.data.media import find_media
    from saccade.errors import DataError
    from saccade.recipes.registry import add_plugin
    from saccade.report.media_prediction import predict_media
    from saccade.report.opening import computing_in, open_model
    from saccade.tracking.naming import tracker_named

    for package in plugin or []:
        add_plugin(package)
    follower = None if tracker is None else tracker_named(tracker)
    media = find_media(inputs, leave_out=out)
    model = open_model(checkpoint, weights, device, fast=fast)
    console = Console(stderr=True)
    with _progress(console, media) as advance, computing_in(precision, model):
        summary = predict_media(
            model, media, out, score_threshold=score_threshold, batch_size=batch_size, pictures=pictures, file_format=file_format, tracker=follower,
            frames=frames, on_item=advance,
        )
    _tell(console, summary, out)
    if not summary.images and not summary.frames:
        raise DataError(f"None of the {len(media)} inputs could be read; the first: {summary.failed[0][1]}")


@contextmanager
def _progress(console: Console, media: Sequence[Medium]) -> Iterator[Callable[[Medium], None]]:
    """A bar over images and frames; gives the function to call after each of them."""
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from saccade.report.media_prediction import count_items

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("predicting", total=count_items(media))

        def advance(medium: Medium) -> None:
            speed = bar.tasks[task].speed
            rate = f" {speed:.1f}/s" if speed else ""
            bar.update(task, advance=1, description=f"{escape(medium.name[-40:])}{rate}")

        yield advance


def _tell(console: Console, summary: Summary, out: Path) -> None:
    for name, reason in summary.failed:
        console.print(f"passed over {name}: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    for name, reason in summary.broken_off:
        console.print(f"{name} breaks off before its end: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    counts = ((summary.images, "image"), (summary.frames, "frame"))
    done = [f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts if count]
    if done:
        typer.echo(f"{' and '.join(done)} in {out}")
