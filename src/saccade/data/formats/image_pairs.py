"""Which label map belongs to which image: pairs of files found by name below two folders, or picked by list files.

A file's *key* is its path below the folder without the ending; a suffix that all images (or all label maps) have before the ending is no part of it.
So `aachen/aachen_000000_000019_leftImg8bit.png` and `aachen/aachen_000000_000019_gtFine_labelIds.png` have one key with the suffixes `_leftImg8bit`
and `_gtFine_labelIds`, and what lies beside them with other suffixes is no part of the data.
"""
from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saccade.data.contract import Problem
from saccade.data.decoding import IMAGE_SUFFIXES
from saccade.data.formats.still_images import existing_folder, read_text
from saccade.errors import DataError

Missing = Literal["refuse", "leave_out"]  # what becomes of files that a list names and that do not exist

_SHOWN = 10


@dataclass(frozen=True)
class Pairs:
    """Images and their label maps: the folders, the names below them ((image, label map); None without labels), and what was wrong."""

    images: Path
    labels: Path | None
    found: list[tuple[str, str | None]]
    problems: list[Problem]


def find_pairs(
    root: Path, images: str, labels: str | None, *, image_suffix: str = "", label_suffix: str = "", list_file: str | None = None,
    label_list: str | None = None, missing: Missing = "refuse",
) -> Pairs:
    """The pairs below `root`/`images` and `root`/`labels` (None for data without labels): of all images, or of those in `list_file`.

    Raises DataError for folders and lists that are not there or have nothing to give, and for files that a list names and that do not exist.
    """
    problems: list[Problem] = []
    image_side = _Side.of(existing_folder(root / images, "the folder of the images"), image_suffix)
    if not image_side.files:
        ending = f" whose names end with {image_suffix!r}" if image_suffix else ""
        raise DataError(f"{image_side.folder} holds no pictures{ending}; check the path, and that the copy was complete")
    label_side = None if labels is None else _Side.of(existing_folder(root / labels, "the folder of the label maps"), label_suffix)
    if list_file is None:
        found = _by_name(image_side, label_side, problems)
    else:
        found = _by_list(image_side, label_side, root / list_file, None if label_list is None else root / label_list, missing, problems)
    return Pairs(image_side.folder, None if label_side is None else label_side.folder, found, problems)


@dataclass(frozen=True)
class _Side:
    """The pictures below `folder` whose names end with `suffix` before the ending: by key, and all paths, relative to the folder."""

    folder: Path
    suffix: str
    by_key: dict[str, str]
    files: frozenset[str]

    @classmethod
    def of(cls, folder: Path, suffix: str) -> _Side:
        """What lies below `folder`. Of two files that differ in their endings alone a png stands for the key, else the first by name."""
        files = sorted(_pictures_below(folder), key=lambda file: (not file.lower().endswith(".png"), file))
        files = [file for file in files if os.path.splitext(file)[0].endswith(suffix)]
        by_key: dict[str, str] = {}
        for file in files:
            by_key.setdefault(_key(file, suffix), file)
        return cls(folder, suffix, by_key, frozenset(files))

    def find(self, name: str) -> str | None:
        """The file that `name` stands for: a path below the folder, or one without ending or suffix. None where there is none."""
        name = name.removeprefix("./")
        return name if name in self.files else self.by_key.get(_key(name, self.suffix))


def _pictures_below(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(place, name).relative_to(folder).as_posix()


def _key(file: str, suffix: str) -> str:
    stem, ending = os.path.splitext(file)
    return (stem if ending.lower() in IMAGE_SUFFIXES else file).removesuffix(suffix)


def _by_name(images: _Side, labels: _Side | None, problems: list[Problem]) -> list[tuple[str, str | None]]:
    """All images in the order of their names. An image without a label map, and the other way round, is left out and listed in `problems`."""
    ordered = sorted(images.files)
    if labels is None:
        return [(image, None) for image in ordered]
    pairs = [(image, labels.by_key.get(_key(image, images.suffix))) for image in ordered]
    if all(label is None for _, label in pairs):
        shown = f"the first are {ordered[0]} and {min(labels.files)}" if labels.files else f"no label map ends with {labels.suffix!r}"
        raise DataError(
            f"none of the {len(ordered)} images in {images.folder} has a label map of its name in {labels.folder}; {shown}. Give image_suffix and "
            "label_suffix where the names end differently, or list files, or labels: null for data without labels"
        )
    for image in (image for image, label in pairs if label is None):
        problems.append(Problem(str(images.folder / image), image, f"it has no label map of its name in {labels.folder}", "left out"))
    for key, label in labels.by_key.items():
        if key not in images.by_key:
            problems.append(Problem(str(labels.folder / label), label, f"it has no image of its name in {images.folder}", "left out"))
    return [pair for pair in pairs if pair[1] is not None]


def _by_list(
    images: _Side, labels: _Side | None, list_file: Path, label_list: Path | None, missing: Missing, problems: list[Problem],
) -> list[tuple[str, str | None]]:
    """The images of `list_file`, line by line, with the label maps that are named beside them, or in `label_list`, or have the image's key."""
    found: list[tuple[str, str | None]] = []
    lost: list[str] = []
    for number, (name, label_name) in _entries(list_file, label_list, images):
        image, label = images.find(name), None
        absent = [] if image is not None else [str(images.folder / name)]
        if labels is not None:
            wanted = label_name if label_name is not None else _key(name, images.suffix)
            label = labels.find(wanted)
            absent += [] if label is not None else [str(labels.folder / (wanted if label_name is not None else f"{wanted}{labels.suffix}.png"))]
        if image is not None and not absent:
            found.append((image, label))
        problems += [Problem(str(list_file), f"line {number}", f"{file} does not exist", "left out") for file in absent]
        lost += absent
    if lost and missing == "refuse":
        raise DataError(_missing_files(list_file, lost))
    if not found:
        raise DataError(f"the list {list_file} names no image" + (" that exists" if lost else "; it is empty"))
    return found


def _entries(list_file: Path, label_list: Path | None, images: _Side) -> list[tuple[int, tuple[str, str | None]]]:
    """The number of each line that is not empty, with the image and the label map (None where it names none)."""
    lines = _lines(list_file)
    if label_list is None:
        return [(number, _entry(line, images)) for number, line in lines]
    labels = _lines(label_list)
    if len(lines) != len(labels):
        raise DataError(f"{list_file} names {len(lines)} images and {label_list} {len(labels)} label maps; line k of both must be a pair")
    return [(number, (image, label)) for (number, image), (_, label) in zip(lines, labels, strict=True)]


def _lines(file: Path) -> list[tuple[int, str]]:
    lines = read_text(file, "the list of files").splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def _entry(line: str, images: _Side) -> tuple[str, str | None]:
    words = line.split()
    if len(words) != 2 or images.find(line) is not None:  # the name of an image may have a blank
        return line, None
    return words[0], words[1]


def _missing_files(list_file: Path, missing: list[str]) -> str:
    shown = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
    return (
        f"{len(missing)} of the files that {list_file} names do not exist: {shown}. Check the folders and that the copy was complete "
        "(`saccade data show` lists all of them), or set missing: leave_out to go without them"
    )
