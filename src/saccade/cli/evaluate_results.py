"""`saccade evaluate --results`: figures of result files, whoever wrote them: tracks as MOT text, label maps as PNGs."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.data.contract import Dataset

_COUNTED = ("IDSW", "FP", "FN")
_TRACKING_FIGURES = ("HOTA", "DetA", "AssA", "LocA", "MOTA", "IDF1", *_COUNTED)  # as wide as a terminal; the rest is in the file


Show = Callable[[dict[str, dict[str, float]]], None]


def score_results(results: Path, dataset: Dataset, name: str, ids: str | None, out: Path | None, show: Show) -> None:
    """Print the figures of the files in `results` on `dataset`, called `name`; write them as `figures.json` and `details.json` where `out` names a
    folder. `ids`: the table of ids that label maps are written in. `show` prints figures by data set."""
    from saccade.data.label_results import has_label_maps
    from saccade.engine.files import storage_errors, write_json
    from saccade.engine.run_folder import strict_number
    from saccade.errors import InputError

    if has_label_maps(dataset) or (not dataset.videos and next(results.rglob("*.png"), None) is not None):
        figures, details = _score_label_maps(results, dataset, name, ids or "labels", show)
    elif ids is not None:
        raise InputError(f"--ids says what the pixels of label maps are, but {dataset.name} is a data set of tracks; leave it out")
    else:
        figures, details = _score_tracks(results, dataset)
    if out is not None:
        folder = out / "evaluation" / name
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "figures.json", {key: strict_number(value) for key, value in figures.items()})
        write_json(folder / "details.json", details)


def _score_tracks(results: Path, dataset: Dataset) -> tuple[dict[str, float], dict[str, Any]]:
    """Tracking figures for each video and over all."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from saccade.data.tracking_results import score_results

    scores = score_results(dataset, results)
    rows, figures = scores.rows(), scores.figures()
    whole = {name.removeprefix("mot/"): value for name, value in figures.items()}
    table = Table("video", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in _TRACKING_FIGURES:
        table.add_column(name, justify="right", no_wrap=True)
    for video, row in {**rows, "all": whole}.items():
        table.add_row(video, *(f"{row[n]:.0f}" if n in _COUNTED else f"{100 * row[n]:.2f}" for n in _TRACKING_FIGURES))
    Console().print(table)
    return figures, {"mot": {"per_video": rows, "per_class": {n: c.figures() for n, c in scores.by_class().items()}}}


def _score_label_maps(results: Path, dataset: Dataset, name: str, ids: str, show: Show) -> tuple[dict[str, float], dict[str, Any]]:
    """The IoU of each class and their means."""
    from rich.console import Console
    from rich.progress import Progress

    from saccade.data.label_results import score_label_maps
    from saccade.metrics.notes import notes_in

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=len(dataset))
        metric = score_label_maps(dataset, results, ids=ids, on_image=lambda: bar.advance(task))
    figures, details = metric.compute(), metric.details()
    show({name: figures})
    for note in notes_in(details):
        console.print(f"{name}: {note}", style="yellow", highlight=False, soft_wrap=True)
    return figures, details
