"""`saccade track`: follow objects through detections that lie in files."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from saccade.report.file_tracking import TrackedVideo


def command(
    detections: Annotated[Path, typer.Argument(help="A MOT text file, a folder of sequences (NAME/det/det.txt, or *.txt), or COCO results (.json).")],
    tracker: Annotated[
        str, typer.Option(help="sort, bytetrack, ocsort, deepsort or quasidense; with settings: sort:match_iou=0.5,retain_frames=30.")
    ] = "sort",
    out: Annotated[Path, typer.Option(help="The folder for the results, one MOT text file a sequence.")] = Path("results"),
    images: Annotated[Path | None, typer.Option(help="For COCO results: the json with images and videos; default: images.json beside them.")] = None,
    video: Annotated[bool, typer.Option("--video", help="Also draw the tracks on the pictures of MOTChallenge sequences.")] = False,
    plugin: Annotated[list[str] | None, typer.Option(help="A package with classes of your own; may be repeated.")] = None,
) -> None:
    """Follow objects through detections of any origin; writes results as MOTChallenge, TrackEval and `saccade evaluate --results` read them."""
    from rich.console import Console

    from saccade.recipes.registry import add_plugin
    from saccade.report.detection_files import find_videos
    from saccade.report.file_tracking import scores_outside, track_files
    from saccade.tracking.naming import tracker_named

    for package in plugin or []:
        add_plugin(package)
    chosen = tracker_named(tracker)
    sources = find_videos(detections, images)
    console = Console(stderr=True)
    with console.status("tracking") as status:
        def tell(done: TrackedVideo) -> None:
            status.update(f"tracked {done.name}")

        videos = track_files(sources, chosen, out, video=video, on_video=tell)
    _show(videos)
    console.print(f"results in {out}", highlight=False, soft_wrap=True)
    outside = scores_outside(videos)
    if outside is not None:
        low, high = outside
        console.print(f"scores lie in {low:g}..{high:g}, not in 0..1; set the tracker's thresholds accordingly", style="yellow", soft_wrap=True)


def _show(videos: list[TrackedVideo]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("sequence")
    for name in ("frames", "detections", "tracked boxes", "tracks"):
        table.add_column(name, justify="right")
    for v in videos:
        table.add_row(v.name, *(str(count) for count in (v.frames, v.detections, v.boxes, v.tracks)))
    Console().print(table)
