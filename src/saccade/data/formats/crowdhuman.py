"""CrowdHuman (Shao et al. 2018): people in crowds, one json object a line (`annotation_train.odgt`), with full, visible and head boxes.

Full boxes go on where a person is hidden or cut off by the border. Ignored people and groups ("mask") are crowd regions.
"""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from saccade.data.contract import Problem
from saccade.data.formats.packed_objects import ObjectCollector
from saccade.data.formats.still_images import StillImages, existing_folder, pack_names, read_text, unpack_name
from saccade.errors import DataError, InputError
from saccade.structures import Annotations

_KEYS = {"full": "fbox", "visible": "vbox", "head": "hbox"}


class CrowdHuman(StillImages):
    """The pictures and people of one split.

    `root` has `annotation_<split>.odgt` and the pictures `ID.jpg` in `<split>/Images/`, `Images_<split>/`, `Images/` or `<split>/`. `box`: the whole
    body (the usual one for tracking), what is visible of it, or the head. `keep_crowd`: ignored people and groups stay, marked in `crowd`. Raises
    `DataError` where the file is missing or none of its lines is one.
    """

    def __init__(
        self, *, root: str | Path, split: Literal["train", "val"] = "train", box: Literal["full", "visible", "head"] = "full",
        keep_crowd: bool = True, name: str = "crowdhuman",
    ) -> None:
        if box not in _KEYS:
            raise InputError(f"CrowdHuman's boxes are {', '.join(_KEYS)}, not {box!r}")
        super().__init__(name, existing_folder(root, "the CrowdHuman root"), ("person",))
        self.file = self.root / f"annotation_{split}.odgt"
        self._key, self._keep_crowd = _KEYS[box], keep_crowd
        collector, ids = ObjectCollector(), dict[str, int]()
        for line, entry in self._entries():
            picture = entry.get("ID")
            if not isinstance(picture, str) or not isinstance(entry.get("gtboxes"), list):
                self._problem(f"line {line}", "it needs an ID and gtboxes")
            elif picture in ids:
                self._problem(f"line {line}", f"the picture {picture} comes twice")
            else:
                ids[picture] = len(ids)
                self._add_people(collector, line, ids[picture], entry["gtboxes"])
        if not ids:
            raise DataError(f"{self.file} has no line with an ID and gtboxes, so it is no CrowdHuman file")
        self.images = self._folder(split, next(iter(ids)))
        self._ids = pack_names(list(ids))
        self._objects = collector.pack(len(ids), crowd=True)

    def __len__(self) -> int:
        return len(self._ids)

    def annotations(self, index: int) -> Annotations:
        """Boxes, labels and crowd flags of picture `index`."""
        return self._objects.annotations(range(len(self))[index])

    def item_id(self, index: int) -> str:
        """The picture's ID."""
        return unpack_name(self._ids, index)

    def image_path(self, index: int) -> Path:
        """Where picture `index` lies."""
        return self.images / f"{self.item_id(index)}.jpg"

    def _entries(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for line, text in enumerate(read_text(self.file, "the CrowdHuman annotations").splitlines(), 1):
            if not text.strip():
                continue
            try:
                entry = json.loads(text)
            except (json.JSONDecodeError, RecursionError) as error:
                self._problem(f"line {line}", f"it is no json ({error})")
                continue
            if isinstance(entry, dict):
                yield line, entry
            else:
                self._problem(f"line {line}", f"it is a {type(entry).__name__}, not a mapping")

    def _add_people(self, collector: ObjectCollector, line: int, picture: int, people: list[Any]) -> None:
        for number, person in enumerate(people):
            where = f"line {line}, person {number}"
            given = person.get(self._key) if isinstance(person, dict) else None
            if not (isinstance(given, list) and len(given) == 4 and all(isinstance(v, int | float) and abs(v) < 1e9 for v in given)):
                self._problem(where, f"its {self._key} is {given!r}, not four finite numbers x, y, width, height")
                continue
            x, y, width, height = given
            if width <= 0 or height <= 0:
                self._problem(where, f"its {self._key} {given} has no positive width and height")
                continue
            parts = [part for part in (person.get("extra"), person.get("head_attr") if self._key == "hbox" else None) if isinstance(part, dict)]
            crowd = person.get("tag") != "person" or any(part.get("ignore") == 1 for part in parts)
            if not crowd or self._keep_crowd:
                collector.add(picture, (x, y, x + width, y + height), 0, crowd=crowd)

    def _folder(self, split: str, first: str) -> Path:
        places = [self.root / p for p in (f"{split}/Images", f"Images_{split}", "Images", split, f"CrowdHuman_{split}/Images", ".")]
        found = next((place for place in places if (place / f"{first}.jpg").is_file()), None)
        return found or next((place for place in places if place.is_dir()), self.root)

    def _problem(self, where: str, what: str, consequence: str = "left out") -> None:
        self.problems.append(Problem(str(self.file), where, what, consequence))
