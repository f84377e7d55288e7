"""The pictures of a report's data sets, embedded: the best and worst of each run, and what several runs make of the same images."""
from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saccade.report.run_data import DataResult, GalleryPicture, Run

_MOST_PICTURES = 6  # of the best and of the worst, per run and data set, and of those beside each other
_SHARED = ("image", "truth")  # panels that are the same for every run
_OWN = ("prediction", "entropy")
_FLAT = ("truth", "prediction")  # areas of one colour, which must not be blurred when small maps are enlarged


@dataclass(frozen=True)
class Panel:
    """One of the pictures of an image: `source` is a data URI, empty where there is none; `flat`: its pixels keep their borders."""

    title: str
    source: str
    flat: bool


@dataclass(frozen=True)
class Picture:
    """One image of a data set: a single picture (`source`), or its `panels`."""

    source: str
    caption: str
    quality: str
    panels: list[Panel]


@dataclass(frozen=True)
class Gallery:
    """The pictures of one run on one data set; `samples` where nothing says which are good. `legend`: class names and their colours."""

    run: str
    quality_name: str
    worst: list[Picture]
    best: list[Picture]
    samples: list[Picture]
    legend: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Comparison:
    """The same images by several runs; each picture has `columns` pairs of panels: image and truth, then prediction and entropy of each run."""

    columns: int
    quality_name: str
    pictures: list[Picture]
    legend: Sequence[tuple[str, str]]


def gallery_of(run: str, result: DataResult) -> Gallery | None:
    """The pictures of a run on one data set; None where there are none."""
    shown = {picture.item for picture in result.worst[:_MOST_PICTURES] if picture.item}
    best = [picture for picture in result.best if picture.item not in shown]  # a small data set may have one image among both
    samples = () if result.best or result.worst else result.samples
    worst, best_shown, plain = ([_embedded(picture) for picture in part[:_MOST_PICTURES]] for part in (result.worst, best, samples))
    gallery = Gallery(run, result.quality_name, worst, best_shown, plain, result.legend)
    return gallery if gallery.worst or gallery.best or gallery.samples else None


def comparison_of(runs: Sequence[Run], data: str) -> Comparison | None:
    """Images that all `runs` have panels of on the data set, best those that are kept in every evaluation; None where they share none."""
    results = [run.results.get(data) for run in runs]
    by_item = [{} if result is None else _with_panels(result) for result in results]
    shared = [item for item in by_item[0] if all(item in own for own in by_item)]
    if len(runs) < 2 or results[0] is None or not shared:
        return None
    pictures = [_beside_each_other([run.name for run in runs], [own[item] for own in by_item]) for item in shared[:_MOST_PICTURES]]
    return Comparison(len(runs) + 1, results[0].quality_name, pictures, results[0].legend)


def _with_panels(result: DataResult) -> Mapping[str, GalleryPicture]:
    return {picture.item: picture for picture in reversed((*result.samples, *result.worst, *result.best)) if picture.panels and picture.item}


def _beside_each_other(names: Sequence[str], pictures: Sequence[GalleryPicture]) -> Picture:
    panels = [_panel(title, title, pictures[0]) for title in _SHARED]
    for name, picture in zip(names, pictures, strict=True):
        panels += [_panel(name if title == _OWN[0] else f"{title}, {name}", title, picture) for title in _OWN]
    return Picture("", pictures[0].caption, " → ".join(_quality(picture) for picture in pictures), panels)


def _embedded(picture: GalleryPicture) -> Picture:
    if picture.panels:
        return Picture("", picture.caption, _quality(picture), [_panel(title, title, picture) for title in picture.panels])
    return Picture(_image_uri(picture.path), picture.caption, _quality(picture), [])


def _panel(shown: str, title: str, picture: GalleryPicture) -> Panel:
    path = picture.panels.get(title)
    return Panel(shown, "" if path is None else _image_uri(path), title in _FLAT)


def _quality(picture: GalleryPicture) -> str:
    return f"{picture.quality:.2f}" if math.isfinite(picture.quality) else ""


def _image_uri(file: Path) -> str:
    return data_uri(file, "image/png" if file.suffix.lower() == ".png" else "image/jpeg")


def data_uri(file: Path, kind: str) -> str:
    """The content of a file as a link that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
