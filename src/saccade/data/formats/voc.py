"""Pascal VOC (Everingham et al. 2010): one xml an image in `Annotations/`, pictures in `JPEGImages/`, lists in `ImageSets/Main/<split>.txt`.

Reads the years' own layout (`VOC2007/`, `VOC2012/`, also several of them as one data set) and plain folders in the same style. `VocClassification` is
the multi-label reading of the same files. Segmentation and part annotations are not read here.
"""
from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch

from saccade.data.classes import VOC, read_class_names, resolve_classes
from saccade.data.contract import Problem
from saccade.data.decoding import IMAGE_SUFFIXES
from saccade.data.formats.packed_objects import ObjectCollector
from saccade.data.formats.still_images import StillImages, existing_folder, pack_names, read_text, unpack_name
from saccade.errors import DataError
from saccade.structures import Annotations


@dataclass(frozen=True)
class VocObject:
    """One `<object>`: its class and `<bndbox>` as the file has it (1-based, both corners inside the object), and whether it is marked difficult."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class Voc(StillImages):
    """Images and objects of a VOC folder.

    `root`: a folder with `Annotations/`, or the one above `VOC2007/` and `VOC2012/`, for which `year` or `sets` choose: `year=2007,
    split="trainval"`, or `sets=[[2007, "trainval"], [2012, "trainval"]]` for several. Without `split` all annotated images are taken.
    `keep_difficult`: difficult objects stay, marked in `difficult` (evaluation needs them; training usually leaves them out). `half_open`: VOC counts
    pixels from 1 and both its corners lie inside the object. True gives the exact half-open box (x1 - 1, y1 - 1, x2, y2). False takes 1 from all four
    numbers, as the published SSD results do; their metric adds the pixel back (`VocDetection(pixel_inclusive=True)`). None, the default: false for
    the named years, where published figures are to be met, true for other folders. `classes`: names in the order of the labels, else those of
    `classes.txt`, else VOC's 20 where a year was named, else all that occur, sorted. Wrong objects are left out and listed in `problems`; `DataError`
    where folders or lists are missing.
    """

    def __init__(
        self, *, root: str | Path, split: str | None = None, year: int | None = None, sets: Sequence[tuple[int, str]] | None = None,
        keep_difficult: bool = True, half_open: bool | None = None, classes: Sequence[str] | str | None = None, name: str = "voc",
    ) -> None:
        folder = existing_folder(root, "the VOC root")
        parts = _parts(folder, split, year, sets)
        super().__init__(name, folder, ())
        self._folders = [part for part, _ in parts]
        self._pictures = [_files_by_stem(part / "JPEGImages") for part in self._folders]
        named_year = year is not None or sets is not None or folder.name in ("VOC2007", "VOC2012")
        self.half_open = not named_year if half_open is None else half_open
        self._keep_difficult = keep_difficult
        wanted = resolve_classes(classes, folder)
        if wanted is None and (folder / "classes.txt").is_file():
            wanted = read_class_names(folder / "classes.txt")
        if wanted is None and named_year:
            wanted = VOC
        self.classes = wanted if wanted is not None else _all_names(self._folders)
        self._index([(number, stem) for number, (part, part_split) in enumerate(parts) for stem in _stems(part, part_split)])

    def _index(self, images: list[tuple[int, str]]) -> None:
        label_of = {name: label for label, name in enumerate(self.classes)}
        collector = ObjectCollector()
        names: list[str] = []
        parts: list[int] = []
        sizes: list[tuple[int, int]] = []
        for part, stem in images:
            file = self._folders[part] / "Annotations" / f"{stem}.xml"
            try:
                size, objects, problems = parse_annotation(file)
            except DataError as error:
                self.problems.append(Problem(str(file), stem, str(error), "left out"))
                continue
            self.problems += [Problem(str(file), f"object {number}", what, "left out") for number, what in problems]
            for number, found in objects:
                box, wrong = self._convert(found, size)
                if found.name not in label_of:
                    wrong = f"its class {found.name!r} is not among the {len(label_of)} known ones"
                if wrong:
                    self.problems.append(Problem(str(file), f"object {number}", wrong, "left out"))
                elif self._keep_difficult or not found.difficult:
                    collector.add(len(names), box, label_of[found.name], difficult=found.difficult)
            names.append(stem)
            parts.append(part)
            sizes.append(size)
        self._names, self._part, self._sizes = pack_names(names), np.array(parts, dtype=np.int8), np.array(sizes, dtype=np.int32).reshape(-1, 2)
        self._objects = collector.pack(len(names), difficult=True)

    def _convert(self, found: VocObject, size: tuple[int, int]) -> tuple[tuple[float, float, float, float], str]:
        """The box in the house's coordinates, and what is wrong with it ("" where nothing is)."""
        x1, y1, x2, y2 = found.box
        far = 0.0 if self.half_open else 1.0
        box = (x1 - 1, y1 - 1, x2 - far, y2 - far)
        given = " ".join(f"{v:g}" for v in found.box)
        height, width = size
        if not all(map(math.isfinite, box)):
            return box, f"its box {given} is not finite"
        if x2 < x1 or y2 < y1:
            return box, f"its box {given} has its corners exchanged"
        if box[2] <= box[0] or box[3] <= box[1]:
            return box, f"its box {given} is one pixel wide or high and vanishes as 1 is taken from all corners; half_open: true keeps it"
        if box[2] <= 0 or box[3] <= 0 or (width > 0 and box[0] >= width) or (height > 0 and box[1] >= height):
            return box, f"its box {given} lies outside the image"
        return box, ""

    def __len__(self) -> int:
        return len(self._names)

    def annotations(self, index: int) -> Annotations:
        """Boxes, labels and difficult flags of image `index`."""
        return self._objects.annotations(range(len(self))[index])

    def item_id(self, index: int) -> str:
        """The image's name without suffix, as the lists have it."""
        return unpack_name(self._names, index)

    def image_path(self, index: int) -> Path:
        """Where image `index` lies."""
        part, stem = int(self._part[index]), self.item_id(index)
        return self._folders[part] / "JPEGImages" / self._pictures[part].get(stem, f"{stem}.jpg")

    def recorded_size(self, index: int) -> tuple[int, int] | None:
        """(height, width) as the xml states it."""
        height, width = self._sizes[index].tolist()
        return (height, width) if height > 0 and width > 0 else None

    def describe(self) -> dict[str, Any]:
        """As for every reader, with the reading of the corners."""
        return {**super().describe(), "boxes": "half-open" if self.half_open else "1 taken from all four numbers, as published"}


class VocClassification(Voc):
    """The same images with `label` (K,): 1 where a class is present, -1 where only difficult objects of it are, 0 where it is absent. No boxes."""

    def __init__(
        self, *, root: str | Path, split: str | None = None, year: int | None = None, sets: Sequence[tuple[int, str]] | None = None,
        classes: Sequence[str] | str | None = None, name: str = "voc_classification",
    ) -> None:
        super().__init__(root=root, split=split, year=year, sets=sets, half_open=True, classes=classes, name=name)

    def annotations(self, index: int) -> Annotations:
        """The label of image `index`."""
        objects = super().annotations(index)
        assert objects.labels is not None and objects.difficult is not None
        label = torch.zeros(len(self.classes))
        label[objects.labels] = -1.0
        label[objects.labels[~objects.difficult]] = 1.0
        return Annotations(label=label)


def parse_annotation(file: Path) -> tuple[tuple[int, int], list[tuple[int, VocObject]], list[tuple[int, str]]]:
    """Size (height, width; 0 where not stated), numbered objects and numbered problems of one VOC xml. Raises `DataError` for what is no VOC xml.

    Entities are limited by expat itself, so a file can't blow up.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except FileNotFoundError as error:
        raise DataError(f"the annotation file {file} does not exist") from error
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise DataError(f"{file} is not valid xml ({error})") from error
    if root.tag != "annotation":
        raise DataError(f"{file} starts with <{root.tag}>, a VOC file with <annotation>")
    size = (_whole(root.findtext("size/height")), _whole(root.findtext("size/width")))
    objects, problems = [], []
    for number, element in enumerate(root.iter("object")):
        name, box = (element.findtext("name") or "").strip(), _corners(element.find("bndbox"))
        if not name:
            problems.append((number, "it has no <name>"))
        elif box is None:
            problems.append((number, "its <bndbox> needs numbers in xmin, ymin, xmax, ymax"))
        else:
            objects.append((number, VocObject(name, box, (element.findtext("difficult") or "0").strip() == "1")))
    return size, objects, problems


def _corners(element: ElementTree.Element | None) -> tuple[float, float, float, float] | None:
    if element is None:
        return None
    try:
        x1, y1, x2, y2 = (float(element.findtext(key) or "") for key in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        return None
    return x1, y1, x2, y2


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.strip().isdecimal() and len(text) < 9 else 0


def _parts(root: Path, split: str | None, year: int | None, sets: Sequence[tuple[int, str]] | None) -> list[tuple[Path, str | None]]:
    """The folders with `Annotations/`, and the split of each."""
    if sets is not None:
        if split is not None or year is not None:
            raise DataError(f"the VOC data set in {root} was given both `sets` and `split` or `year`; `sets` says all: [[year, split], ...]")
        return [(_year_folder(root, int(set_year)), str(set_split)) for set_year, set_split in sets]
    if year is not None:
        return [(_year_folder(root, year), split)]
    if not (root / "Annotations").is_dir():
        raise DataError(f"{root} has no folder Annotations; for the layout VOC2007/, VOC2012/ give `year` or `sets`")
    return [(root, split)]


def _year_folder(root: Path, year: int) -> Path:
    tried = [root / f"VOC{year}", root / "VOCdevkit" / f"VOC{year}"]
    if root.name == f"VOC{year}":
        tried.insert(0, root)
    for folder in tried:
        if (folder / "Annotations").is_dir():
            return folder
    raise DataError(f"there is no VOC{year} with a folder Annotations; looked for {', '.join(map(str, tried))}")


def _stems(folder: Path, split: str | None) -> list[str]:
    """The image names of a split, or of all xml files. Lists of one class ("name -1") are read, too."""
    if split is None:
        return sorted(entry.name[:-4] for entry in os.scandir(folder / "Annotations") if entry.name.endswith(".xml"))
    file = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not file.is_file():
        known = sorted(f.stem for f in file.parent.glob("*.txt") if "_" not in f.stem)
        raise DataError(f"there is no split list {file}; known are {', '.join(known) or 'none'}")
    lines = [line.strip() for line in read_text(file, "the split list").splitlines() if line.strip()]
    flagged = all(line.rsplit(None, 1)[-1] in ("-1", "0", "1") and len(line.split()) > 1 for line in lines)
    return [line.rsplit(None, 1)[0] for line in lines] if flagged else lines


def _files_by_stem(folder: Path) -> dict[str, str]:
    """Image files of `folder` by name without suffix, but for those that end with .jpg, which needs no list."""
    if not folder.is_dir():
        raise DataError(f"the VOC folder {folder.parent} has no {folder.name}; its pictures belong there")
    names = (os.path.splitext(entry.name) for entry in os.scandir(folder))
    return {stem: stem + suffix for stem, suffix in names if suffix != ".jpg" and suffix.lower() in IMAGE_SUFFIXES}


def _all_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """Every class that occurs in any split, so that train and val agree on the labels."""
    names: set[str] = set()
    for folder in folders:
        for stem in _stems(folder, None):
            try:
                names.update(found.name for _, found in parse_annotation(folder / "Annotations" / f"{stem}.xml")[1])
            except DataError:
                continue  # listed as a problem when the index is built, where the split contains it
    return tuple(sorted(names))
