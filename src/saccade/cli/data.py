"""`saccade data show|convert|make`: look at a data set, write it in another format, or render the town to disk."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from saccade.data.contract import Dataset, Problem
    from saccade.data.inspection import Inspection
    from saccade.structures import Sample

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
make_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(make_app, name="make", help="Render a synthetic data set to disk.")

_SHOWN_PROBLEMS, _SHOWN_CLASSES = 20, 30
Target = Literal["coco", "coco_panoptic", "coco_video", "mot", "voc", "yolo", "imagefolder", "segmentation"]
Format = Annotated[
    str | None,
    typer.Option(help="coco, coco_panoptic, coco_video, mot, crowdhuman, scalabel, voc, yolo, imagefolder, imagelist, cifar, mnist, segmentation, "
                      "cityscapes, gta5, synthia, camvid or frames; found by itself without."),
]
_VIDEO_FORMATS = ("mot", "coco_video")


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="A data set's folder, or its annotation file.")],
    format: Format = None,  # noqa: A002  (the word on the command line)
    split: Annotated[str | None, typer.Option(help="The split to look at, by default all or the first.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a picture with samples and their annotations here (.png or .jpg).")] = None,
    count: Annotated[int, typer.Option(min=1, help="Samples on that picture.")] = 12,
    seed: Annotated[int, typer.Option(help="Which samples these are.")] = 0,
    verify_images: Annotated[bool, typer.Option("--verify-images", help="Decode every image and compare all files with each other.")] = False,
    all_problems: Annotated[bool, typer.Option("--all-problems", help="List every problem, one a line.")] = False,
) -> None:
    """Counts, class histogram, sizes and problems of a data set, found in one pass."""
    from rich.console import Console
    from rich.progress import track

    from saccade.data.inspection import inspect
    from saccade.data.recognition import candidates
    from saccade.errors import InputError

    if out is not None and out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"the picture {out} needs a name that ends in .png or .jpg")
    console = Console()
    dataset = _open(path, format, split)
    others = [f"{name} {_brief(known)}".strip() for name, known in candidates(path)]

    def progress(numbers: Iterable[int]) -> Iterable[int]:
        return track(numbers, "looking", console=console, transient=True, total=len(dataset), disable=not console.is_terminal)

    found = inspect(dataset, verify_images=verify_images, progress=progress)
    _print_facts(console, found)
    if len(others) > 1:
        console.print(f"readings of this folder (choose with --format, --split): {'; '.join(others)}", style="dim", markup=False, highlight=False)
    _print_problems(console, found.problems, all_problems)
    if out is not None:
        _save_sheet(dataset, out, count, seed)
        console.print(f"wrote {out}", markup=False, highlight=False)


@app.command()
def convert(
    path: Annotated[Path, typer.Argument(help="A data set's folder, or its annotation file.")],
    to: Annotated[Target, typer.Option(help="The format to write.")],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not exist yet or be empty.")],
    format: Format = None,  # noqa: A002  (the word on the command line)
    pictures: Annotated[Literal["copy", "png", "jpeg"], typer.Option(help="Copy the picture files, or encode them anew.")] = "copy",
) -> None:
    """Write a data set, all its splits, in another format. Detection data becomes an image folder of its objects."""
    from rich.console import Console

    from saccade.data.recognition import open_splits, recognise

    name = format or recognise(path)[0]
    splits = open_splits(path, name, **({"masks": True} if name == "coco" else {}))
    _write(Console(), splits, to, out, pictures)


@make_app.command()
def town(
    out: Annotated[Path, typer.Option(help="The folder to write; it must not exist yet or be empty.")],
    format: Annotated[Target, typer.Option(help="The format to write.")] = "coco",  # noqa: A002  (the word on the command line)
    domain: Annotated[Literal["day", "night", "fog", "rain", "sketch", "camera"], typer.Option(help="How the pictures look.")] = "day",
    frames: Annotated[int, typer.Option(min=1, help="Pictures in each split, or frames in each video.")] = 100,
    videos: Annotated[int, typer.Option(min=1, help="Videos in each split, for the formats of videos.")] = 4,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Another seed is another town.")] = 0,
    split: Annotated[list[str] | None, typer.Option(help="train, val or test, repeatable; train and val by default.")] = None,
) -> None:
    """Render still pictures of the town: objects with masks (coco), panoptic maps, boxes (voc, yolo), one object a picture (imagefolder), label maps
    (segmentation); or videos with tracks (mot, coco_video)."""
    from rich.console import Console

    from saccade.data.town.classification import TownClassification
    from saccade.data.town.dataset import Town
    from saccade.data.town.panoptic import TownPanoptic
    from saccade.data.town.segmentation import TownSegmentation

    splits: dict[str, Any] = {}
    for name in split or ["train", "val"]:
        shared: dict[str, Any] = {"split": name, "domain": domain, "size": size, "seed": seed}
        if format == "imagefolder":
            splits[name] = TownClassification(num_images=frames, **shared)
        elif format == "segmentation":
            splits[name] = TownSegmentation(num_images=frames, **shared)
        elif format in _VIDEO_FORMATS:
            still: dict[str, Any] = {"masks": False, "segmentation": False, "panoptic": False}
            splits[name] = Town(num_videos=videos, frames_per_video=max(2, frames), **still, **shared)
        elif format == "coco_panoptic":
            splits[name] = TownPanoptic(num_images=frames, masks=False, **shared)
        else:
            splits[name] = Town(num_videos=frames, frames_per_video=1, masks=format == "coco", segmentation=False, panoptic=False, **shared)
    _write(Console(), splits, format, out, "png")


def _open(path: Path, format: str | None, split: str | None) -> Dataset:  # noqa: A002
    """The data set, with masks where it is COCO's, so that they are checked and drawn, and without what lists name and is missing, so that it is
    listed."""
    from saccade.data.recognition import SEGMENTATION, open_dataset, recognise

    settings: dict[str, Any] = {} if split is None else {"split": split}
    name = format or recognise(path)[0]
    if name == "coco":
        settings["masks"] = True
    if name in SEGMENTATION:
        settings["missing"] = "leave_out"
    return open_dataset(path, format, **settings)


def _write(console: Console, splits: dict[str, Dataset], to: str, out: Path, pictures: str) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from saccade.data.formats.segmentation_writer import SEGMENTATION_WRITERS
    from saccade.data.formats.tracking_writers import TRACKING_WRITERS
    from saccade.data.formats.writers import WRITERS, object_crops

    first = next(iter(splits.values()))
    of_classes = {"coco_panoptic": "things", "segmentation": "colours"}
    settings: dict[str, Any] = {of_classes[to]: getattr(first, of_classes[to], None)} if to in of_classes else {}
    if to in _VIDEO_FORMATS:
        settings["frame_rates"] = {v.name: v.frame_rate for dataset in splits.values() for v in dataset.videos if v.frame_rate}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        sources: dict[str, Iterable[Sample]] = {}
        for name, dataset in splits.items():
            samples = _samples(dataset, progress.track(range(len(dataset)), description=name))
            crops = to == "imagefolder" and len(dataset) > 0 and dataset.annotations(0).boxes is not None
            sources[name] = object_crops(samples) if crops else samples
        written = (WRITERS | TRACKING_WRITERS | SEGMENTATION_WRITERS)[to](sources, out, classes=first.classes, pictures=pictures, **settings)
    left_out = f"; {written.left_out} objects have no place in this format and were left out" if written.left_out else ""
    objects = f" with {written.objects} objects" if to not in ("imagefolder", "segmentation") else ""
    console.print(f"wrote {written.images} pictures{objects} ({', '.join(splits)}) to {out}{left_out}", markup=False, highlight=False)


def _samples(dataset: Dataset, indices: Iterable[int]) -> Iterator[Sample]:
    return (dataset[index] for index in indices)


def _save_sheet(dataset: Dataset, out: Path, count: int, seed: int) -> None:
    from saccade.errors import StorageError
    from saccade.report.contact_sheet import contact_sheet

    sheet = contact_sheet(dataset, count=count, seed=seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)
    except OSError as error:
        raise StorageError(f"{out} can't be written: {error}") from error


def _print_facts(console: Console, found: Inspection) -> None:
    table = _table(found.name)
    for key, value in found.description.items():
        if key not in ("name", "images", "parts") and not isinstance(value, dict | list):
            table.add_row(key, str(value))
    table.add_row("images", f"{found.num_images}, sizes {_sizes(found.image_sizes)}")
    if found.objects_per_image:
        empty = found.objects_per_image.get(0, 0)
        extra = [f"{found.num_crowd} crowd regions"] * bool(found.num_crowd) + [f"{found.num_difficult} difficult"] * bool(found.num_difficult)
        table.add_row("objects", ", ".join([str(found.num_objects), *extra]))
        table.add_row("an image", f"{min(found.objects_per_image)} to {max(found.objects_per_image)} objects, {empty} images without any")
        table.add_row("areas", ", ".join(f"{found.object_sizes[kind]} {kind}" for kind in ("small", "medium", "large")))
    console.print(table)
    _print_classes(console, found)


def _print_classes(console: Console, found: Inspection) -> None:
    if found.pixel_counts:
        _print_pixels(console, found)
        return
    shown = found.class_counts.most_common(_SHOWN_CLASSES)
    if not shown:
        return
    table = _table("objects of each class" if found.objects_per_image else "images of each class")
    table.add_column(justify="right")
    table.add_column()
    most, total = shown[0][1], sum(found.class_counts.values())
    for label, number in shown:
        table.add_row(f"{label}  {found.classes[label]}", str(number), f"{number / total:.1%}", "█" * max(1, round(30 * number / most)))
    if len(found.class_counts) > len(shown):
        table.add_row(f"... {len(found.class_counts) - len(shown)} more classes", "", "", "")
    console.print(table)


def _print_pixels(console: Console, found: Inspection) -> None:
    """Each class's share of the labelled pixels, and the number of images that show it."""
    from saccade.structures import IGNORE

    ignored, total = found.pixel_counts[IGNORE], sum(found.pixel_counts.values())
    shown = [(label, number) for label, number in found.pixel_counts.most_common() if label != IGNORE]
    table = _table(f"pixels, images of each class; {ignored / total:.1%} without")
    table.add_column(justify="right")
    table.add_column()
    for label, number in shown[:_SHOWN_CLASSES]:
        bar = "█" * max(1, round(30 * number / shown[0][1]))
        table.add_row(f"{label}  {found.classes[label]}", f"{number / (total - ignored):.2%}", str(found.class_counts[label]), bar)
    if len(shown) > _SHOWN_CLASSES:
        table.add_row(f"... {len(shown) - _SHOWN_CLASSES} more classes", "", "", "")
    console.print(table)


def _print_problems(console: Console, problems: list[Problem], everything: bool) -> None:
    if not problems:
        console.print("no problems found")
        return
    counts = Counter(problem.consequence for problem in problems)
    console.print(f"[bold]{len(problems)} problems[/bold] ({', '.join(f'{number} {what}' for what, number in counts.items())})")
    shown = problems if everything else problems[:_SHOWN_PROBLEMS]
    for problem in shown:
        known = problem.file.endswith(problem.where) or problem.where == Path(problem.file).stem
        where = "" if known else f": {problem.where}"
        console.print(f"  {problem.file}{where}: {problem.what} [{problem.consequence}]", markup=False, highlight=False, soft_wrap=True)
    if len(shown) < len(problems):
        console.print(f"  ... {len(problems) - len(shown)} more; --all-problems lists them")


def _table(title: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, style="bold"), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    """Width x height: the one, or the range and the most frequent."""
    if not sizes:
        return "unknown"
    (height, width), _ = sizes.most_common(1)[0]
    if len(sizes) == 1:
        return f"{width} x {height}"
    heights, widths = [h for h, _ in sizes], [w for _, w in sizes]
    return f"{min(widths)} to {max(widths)} x {min(heights)} to {max(heights)}, most often {width} x {height}"


def _brief(known: dict[str, Any]) -> str:
    return " ".join(str(known[key]) for key in ("year", "split", "annotations", "list_file", "variant") if key in known)
