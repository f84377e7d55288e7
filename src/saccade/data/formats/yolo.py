"""YOLO text files: `images/.../x.jpg` with `labels/.../x.txt` beside it, a line an object: class, centre x, centre y, width, height in 0..1.

Class names stand in `data.yaml` (`names`, with `train`, `val`, `test` for the splits) or in `classes.txt`. Lines with an outline (class x y x y ...)
are read as the box around it. A missing or empty label file is an image without objects.
"""
from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from saccade.data.classes import read_class_names, resolve_classes
from saccade.data.contract import Problem
from saccade.data.decoding import IMAGE_SUFFIXES, image_size
from saccade.data.formats.packed_objects import ObjectCollector
from saccade.data.formats.still_images import StillImages, existing_folder, pack_names, read_text, unpack_name
from saccade.errors import DataError
from saccade.structures import Annotations


class Yolo(StillImages):
    """Images and objects of a YOLO folder.

    `root`: the folder with `data.yaml` (or any one `.yaml` file with `names`) or `classes.txt`. `split` names an entry of the yaml, or a folder below
    `images/` where there is none; without `split` all images below `images/` (or of all the yaml's splits) are taken.
    `classes` replaces the names. Wrong lines are left out and listed in `problems`; `DataError` where folders or names are missing.
    """

    def __init__(self, *, root: str | Path, split: str | None = None, classes: Sequence[str] | str | None = None, name: str = "yolo") -> None:
        folder = existing_folder(root, "the YOLO root")
        settings = read_settings(folder)
        names = resolve_classes(classes, folder) or _class_names(folder, settings)
        super().__init__(name, folder, names)
        files = _image_files(folder, settings, split)
        self._names = pack_names([os.path.relpath(file, folder) for file in files])
        self._index(files)

    def _index(self, files: Sequence[str]) -> None:
        collector = ObjectCollector()
        for number, file in enumerate(files):
            label_file = label_path(Path(file))
            if not label_file.is_file():
                continue
            for line_number, line in enumerate(_lines(label_file, self.problems), start=1):
                if line.strip():
                    self._add(collector, number, label_file, line_number, line)
        self._objects = collector.pack(len(files))
        self._heights, self._widths = array("i", bytes(4 * len(files))), array("i", bytes(4 * len(files)))

    def _add(self, collector: ObjectCollector, image: int, file: Path, line_number: int, line: str) -> None:
        try:
            label, box = parse_line(line, len(self.classes))
        except ValueError as error:
            self.problems.append(Problem(str(file), f"line {line_number}", str(error), "left out"))
            return
        if box[0] < -1e-3 or box[1] < -1e-3 or box[2] > 1 + 1e-3 or box[3] > 1 + 1e-3:
            self.problems.append(Problem(str(file), f"line {line_number}", "its box reaches beyond the image", "kept"))
        collector.add(image, box, label)

    def __len__(self) -> int:
        return len(self._names)

    def annotations(self, index: int) -> Annotations:
        """Boxes and labels of image `index`. Reads the image's header once, for the boxes are stored relative to its size."""
        index = range(len(self))[index]
        if not self._widths[index]:
            self._heights[index], self._widths[index] = image_size(self.image_path(index))
        found = self._objects.annotations(index)
        assert found.boxes is not None
        width, height = self._widths[index], self._heights[index]
        found.boxes = (found.boxes.double() * torch.tensor([width, height, width, height], dtype=torch.float64)).float()
        return found

    def item_id(self, index: int) -> str:
        """The image's file, relative to the root."""
        return unpack_name(self._names, index)

    def image_path(self, index: int) -> Path:
        """Where image `index` lies."""
        return self.root / self.item_id(index)


def parse_line(line: str, num_classes: int) -> tuple[int, tuple[float, float, float, float]]:
    """Label and relative box xyxy of one line. Raises `ValueError` that says what is wrong."""
    words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"{line.strip()!r} has something that is no number") from None
    if len(values) < 5 or (len(values) > 5 and len(values) % 2 == 0):
        raise ValueError(f"it has {len(values)} columns; 5 (class, centre x, centre y, width, height) or 7, 9, ... (class and outline) are expected")
    if not np.isfinite(values).all():
        raise ValueError(f"{line.strip()!r} is not finite")
    if values[0] != int(values[0]) or not 0 <= values[0] < num_classes:
        raise ValueError(f"its class {words[0]} is not one of 0..{num_classes - 1}")
    if len(values) == 5:
        x, y, width, height = values[1:]
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        box = (min(values[1::2]), min(values[2::2]), max(values[1::2]), max(values[2::2]))
    if max(map(abs, box)) > 10:
        raise ValueError("its numbers are not relative to the image (0..1); divide them by its width and height")
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError("its box has no positive width and height")
    if box[2] <= 0 or box[3] <= 0 or box[0] >= 1 or box[1] >= 1:
        raise ValueError("its box lies outside the image")
    return int(values[0]), box


def label_path(image: Path) -> Path:
    """Where the labels of `image` lie: the last folder called "images" becomes "labels", the suffix .txt; beside the image where there is no such
    folder."""
    parts = list(image.parts)
    for number in range(len(parts) - 2, -1, -1):
        if parts[number] == "images":
            parts[number] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_settings(root: Path) -> dict[str, Any] | None:
    """The data.yaml of a YOLO folder (or its only yaml file that has `names`), None where there is none."""
    files = [root / "data.yaml"] if (root / "data.yaml").is_file() else sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    for file in files:
        try:
            content = yaml.safe_load(read_text(file, "the YOLO settings"))
        except (yaml.YAMLError, RecursionError) as error:
            raise DataError(f"{file} is not valid yaml: {' '.join(str(error).split())}") from error
        if isinstance(content, dict) and "names" in content:
            return content
    return None


def _class_names(root: Path, settings: dict[str, Any] | None) -> tuple[str, ...]:
    if settings is None:
        if (root / "classes.txt").is_file():
            return read_class_names(root / "classes.txt")
        raise DataError(f"the YOLO folder {root} names its classes nowhere; add data.yaml with `names: [...]` or classes.txt, or give `classes`")
    names = settings["names"]
    if isinstance(names, list):
        return tuple(map(str, names))
    if isinstance(names, dict) and sorted(map(str, names)) == sorted(map(str, range(len(names)))):
        return tuple(str(names[key]) for key in sorted(names, key=int))
    raise DataError(f"the `names` of the data.yaml in {root} must be a list, or a mapping from 0, 1, 2, ... to names; they are {names!r}")


def _image_files(root: Path, settings: dict[str, Any] | None, split: str | None) -> list[str]:
    """Paths of the images of a split, sorted within each folder that the settings name."""
    entries: list[Any]
    known = [key for key in ("train", "val", "test") if settings is not None and settings.get(key)]
    if settings is not None and split is not None and settings.get(split):
        entries = [settings[split]]
    elif split is not None:
        if not (root / "images" / split).is_dir():
            listed = ", ".join(known) or "none"
            raise DataError(f"the YOLO folder {root} has no split {split!r}, neither in its yaml (there: {listed}) nor as the folder images/{split}")
        entries = [f"images/{split}"]
    else:
        entries = [settings[key] for key in known] if settings is not None and known else ["images"]
    base = root
    if settings is not None and isinstance(settings.get("path"), str):
        # `path` is often that of the machine on which the file was written; the root that the user gave stands in for it then.
        base = next((f for f in (root / settings["path"], Path(settings["path"])) if f.is_dir()), root)
    files: list[str] = []
    for entry in entries:
        for item in entry if isinstance(entry, list) else [entry]:
            files += _files_of(base, root, str(item))
    return list(dict.fromkeys(files))


def _files_of(base: Path, root: Path, item: str) -> list[str]:
    """Images of one entry of a yaml: a folder (all below it), or a text file of paths."""
    # Exported files write ../train/images although the yaml lies beside train/.
    for path in (base / item, root / item, root / item.removeprefix("../")):
        if path.is_dir():
            found = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
            return sorted(file for file in found if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES)
        if path.is_file():
            lines = [line.strip() for line in read_text(path, "the image list").splitlines() if line.strip()]
            return [str(path.parent / line) for line in lines]
    raise DataError(f"the YOLO folder {root} has no {item}, which its settings name as images")


def _lines(file: Path, problems: list[Problem]) -> list[str]:
    try:
        return read_text(file, "the labels").splitlines()
    except DataError as error:
        problems.append(Problem(str(file), "all lines", str(error), "left out"))
        return []
