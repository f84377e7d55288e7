"""The classes of semantic maps as one object: names, colours, the numbers that label files use for them, and the subsets that are reported.

Class sets: Cityscapes' 19 (its `labels.py`), and the 16 and 13 of them that SYNTHIA's pictures teach; SegNet's 11 of CamVid; the town's. Label files
hold the ids of a *table*: Cityscapes' and GTA5's are the same, SYNTHIA and CamVid have their own, and `labels` are the class numbers themselves. A
set and a table meet by class names, so the 19, 16 and 13 read the files of Cityscapes, GTA5 and SYNTHIA alike.

An id that the table knows but the set has no class for becomes "ignore" (255), as does 255 itself; one that no table entry explains is an error, for
it means another table or a broken file.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saccade.data.classes import resolve_classes
from saccade.data.town.vocabulary import SEMANTIC_CLASSES
from saccade.errors import DataError, InputError
from saccade.structures import IGNORE

Colour = tuple[int, int, int]

_UNKNOWN = IGNORE - 1  # an id outside the table, while a map is translated
_MAX_CLASSES = _UNKNOWN  # labels are bytes, of which two have a meaning of their own


@dataclass(frozen=True)
class ClassSet:
    """`classes` are the names in the order of the labels 0..K-1, `colours` one RGB colour each where they have any of their own. `subsets`: name ->
    classes whose mean is reported besides. Raises InputError for more than 254 classes and for names that are there twice."""

    classes: tuple[str, ...]
    colours: tuple[Colour, ...] | None = None
    subsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.classes) > _MAX_CLASSES or len(set(self.classes)) != len(self.classes):
            raise InputError(f"a semantic map has at most {_MAX_CLASSES} classes, each of another name; there are {len(self.classes)}")


@dataclass(frozen=True)
class IdTable:
    """What the numbers 0..254 in label files mean: the name of a class, None for what is known to be no class to learn."""

    name: str
    meanings: Mapping[int, str | None]


class Translation:
    """Label maps with the ids of `table` into maps with the labels of `classes`. Raises InputError for classes that the table does not have."""

    def __init__(self, table: IdTable, classes: Sequence[str]) -> None:
        missing = [name for name in classes if name not in table.meanings.values()]
        if missing:
            raise InputError(
                f"no {table.name} id means {', '.join(missing)}; the names that it knows are {', '.join(n for n in table.meanings.values() if n)}"
            )
        places = {name: label for label, name in enumerate(classes)}
        values = np.full(IGNORE + 1, _UNKNOWN, dtype=np.uint8)
        values[IGNORE] = IGNORE
        for number, name in table.meanings.items():
            values[number] = IGNORE if name is None else places.get(name, IGNORE)
        self.table, self._values = table, values

    def __call__(self, stored: Tensor, file: str | Path) -> Tensor:
        """`stored` (H, W) uint8 or int64 as uint8 labels, 255 = ignore. Raises DataError that names `file` and the ids outside the table."""
        if stored.dtype != torch.uint8:
            if bool(((stored < 0) | (stored > IGNORE)).any()):
                raise self._error(stored, file)
            stored = stored.to(torch.uint8)
        labels = np.take(self._values, stored.numpy())  # a tenth of the time of indexing with torch
        if bool((labels == _UNKNOWN).any()):
            raise self._error(stored, file)
        return torch.from_numpy(labels)

    def _error(self, stored: Tensor, file: str | Path) -> DataError:
        numbers, counts = stored.unique(return_counts=True)
        found = [(number, count) for number, count in zip(numbers.tolist(), counts.tolist(), strict=True) if not self._knows(number)]
        ids = ", ".join(f"{number} ({count} pixels)" for number, count in found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        plural = "s" if len(found) > 1 else ""
        return DataError(
            f"the label map {file} has the id{plural} {ids}, outside the {self.table.name} ids ({ranges(self.table.meanings)}, and {IGNORE} for "
            "ignore); name the table that the file was written with, or take the file out of the data set"
        )

    def _knows(self, number: int) -> bool:
        return number == IGNORE or number in self.table.meanings


def ranges(numbers: Mapping[int, object] | Sequence[int]) -> str:
    """Whole numbers as text, runs put together: "0-4, 7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs) or "none"


def class_set(classes: str | Sequence[str], folder: Path) -> ClassSet:
    """A set by its name (`CLASS_SETS`), or of names: a list, a file of them in `folder`, or a list that `classes.named_classes` knows."""
    if isinstance(classes, str) and classes in CLASS_SETS:
        return CLASS_SETS[classes]
    names = resolve_classes(classes, folder)
    assert names is not None
    return ClassSet(names)


def id_table(name: str, classes: Sequence[str]) -> IdTable:
    """The table called `name`: one of `ID_TABLES`, or "labels" for files that hold the class numbers 0..K-1. Raises InputError for another name."""
    if name == "labels":
        return IdTable("label", dict(enumerate(classes)))
    if name not in ID_TABLES:
        raise InputError(f"no table of ids is called {name!r}; known are labels (the numbers of the classes), {', '.join(ID_TABLES)}")
    return ID_TABLES[name]


def own_table(ids: Sequence[int], classes: Sequence[str], ignored: Sequence[int]) -> IdTable:
    """The table in which class k has the id `ids[k]`, and `ignored` are known to be none. Raises InputError where that is no table."""
    if len(ids) != len(classes) or len({*ids, *ignored}) != len(ids) + len(ignored) or any(not 0 <= i < IGNORE for i in (*ids, *ignored)):
        raise InputError(
            f"{len(classes)} classes need as many different ids from 0 to {IGNORE - 1}, and others to ignore; given are {list(ids)} and "
            f"{list(ignored)}"
        )
    return IdTable("given", {**dict(zip(ids, classes, strict=True)), **dict.fromkeys(ignored)})


_CITYSCAPES: dict[str, Colour] = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156), "fence": (190, 153, 153),
    "pole": (153, 153, 153), "traffic light": (250, 170, 30), "traffic sign": (220, 220, 0), "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152), "sky": (70, 130, 180), "person": (220, 20, 60), "rider": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70),
    "bus": (0, 60, 100), "train": (0, 80, 100), "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32),
}
_CAMVID: dict[str, Colour] = {  # the names and colours of SegNet's eleven
    "sky": (128, 128, 128), "building": (128, 0, 0), "pole": (192, 192, 128), "road": (128, 64, 128), "pavement": (60, 40, 222),
    "tree": (128, 128, 0), "sign": (192, 128, 128), "fence": (64, 64, 128), "car": (64, 0, 128), "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
_TOWN: dict[str, Colour] = {
    **{name: _CITYSCAPES[name] for name in ("person", "car", "bus", "truck", "bicycle", "road", "sidewalk", "building", "vegetation", "sky")},
    "dog": (255, 158, 61), "furniture": (153, 153, 153),
}

_SIXTEEN = tuple(name for name in _CITYSCAPES if name not in ("terrain", "truck", "train"))
_THIRTEEN = tuple(name for name in _SIXTEEN if name not in ("wall", "fence", "pole"))


def _of(colours: Mapping[str, Colour], classes: Sequence[str], subsets: Mapping[str, tuple[str, ...]] | None = None) -> ClassSet:
    return ClassSet(tuple(classes), tuple(colours[name] for name in classes), subsets or {})


CLASS_SETS: dict[str, ClassSet] = {
    "cityscapes19": _of(_CITYSCAPES, tuple(_CITYSCAPES), {"16": _SIXTEEN, "13": _THIRTEEN}),
    "synthia16": _of(_CITYSCAPES, _SIXTEEN, {"13": _THIRTEEN}),
    "synthia13": _of(_CITYSCAPES, _THIRTEEN),
    "camvid11": _of(_CAMVID, tuple(_CAMVID)),
    "town": _of(_TOWN, SEMANTIC_CLASSES),
}

# Cityscapes' ids 0..33 (labels.py) and 34, GTA5's number for licence plates, which Cityscapes gives -1 and does not draw.
_CITYSCAPES_IDS = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light", 20: "traffic sign", 21: "vegetation",
    22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}
# SYNTHIA-RAND-CITYSCAPES' ids; 0, 13 (parking) and 14 (road work) and 22 (lane markings) are no classes of any set here.
_SYNTHIA_IDS = {
    1: "sky", 2: "building", 3: "road", 4: "sidewalk", 5: "fence", 6: "vegetation", 7: "pole", 8: "car", 9: "traffic sign", 10: "person",
    11: "bicycle", 12: "motorcycle", 15: "traffic light", 16: "terrain", 17: "rider", 18: "truck", 19: "bus", 20: "train", 21: "wall",
}

ID_TABLES: dict[str, IdTable] = {
    "cityscapes": IdTable("Cityscapes", {number: _CITYSCAPES_IDS.get(number) for number in range(35)}),
    "synthia": IdTable("SYNTHIA", {number: _SYNTHIA_IDS.get(number) for number in range(23)}),
    "camvid": IdTable("CamVid", {**dict(enumerate(_CAMVID)), 11: None}),
}
