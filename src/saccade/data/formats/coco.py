"""COCO detection files (cocodataset.org, "data format"): one json with images, annotations and categories; boxes, polygons, run lengths, crowd
regions.

Category ids may have gaps or start anywhere; labels are 0..K-1 in the order of the ids, and `category_ids` leads back. Video, keypoint and panoptic
files are other formats.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.classes import resolve_classes
from saccade.data.contract import Problem
from saccade.data.decoding import image_size
from saccade.data.formats.packed_objects import ObjectCollector, PackedSegments
from saccade.data.formats.still_images import StillImages, existing_folder, pack_names, read_text, unpack_name
from saccade.errors import DataError
from saccade.structures import Annotations

# COCO 2014's re-cut validation splits; their images lie in val2014.
_RECUT = {"minival2014": "val2014", "valminusminival2014": "val2014"}


class Coco(StillImages):
    """Images and objects of one COCO json file.

    `root`: the data set's folder. `split` names COCO's own layout (`annotations/instances_<split>.json`, images in `<split>/`; minival2014 and
    valminusminival2014 take theirs from val2014); other layouts give `annotations` (the json) and `images` (the folder of `file_name`), both relative
    to `root`. `masks`: decode the segmentations. `keep_crowd`: crowd regions stay, marked in `crowd`. `keep_empty`: images without objects stay.
    `classes` picks categories by name and orders the labels; others are left out. Raises `DataError` where the file is missing or not COCO's. Single
    wrong annotations (no positive size, unknown category or image) are left out and listed in `problems`.
    """

    def __init__(
        self, *, root: str | Path, split: str | None = None, annotations: str | None = None, images: str | None = None, masks: bool = False,
        keep_crowd: bool = True, keep_empty: bool = True, classes: Sequence[str] | str | None = None, name: str = "coco",
    ) -> None:
        folder = existing_folder(root, "the COCO root")
        self.file = _annotation_file(folder, split, annotations)
        self.images = _image_folder(folder, split, images)
        content = read_coco(self.file, "detection")
        super().__init__(name, folder, ())
        self.masks, self._keep_crowd = masks, keep_crowd
        self._read_categories(content["categories"], resolve_classes(classes, folder))
        self._keep_content(content)
        positions = self._read_images(content["images"])
        collector, self._segments = ObjectCollector(), PackedSegments()
        self._num_polygons = self._num_runs = 0
        self._read_annotations(content["annotations"], positions, collector)
        self._objects = collector.pack(len(self._names), crowd=True, difficult=self._any_difficult, areas=True)
        counts = np.diff(self._objects.offsets)
        self._kept = np.arange(len(counts)) if keep_empty else np.flatnonzero(counts)

    def __len__(self) -> int:
        return len(self._kept)

    def annotations(self, index: int) -> Annotations:
        """Boxes, labels, crowd flags and areas (the file's own) of image `index`, and masks where asked for."""
        at = int(self._kept[index])
        found = self._objects.annotations(at)
        if self.masks:
            rows = self._objects.rows(at)
            size = self.recorded_size(index) or image_size(self.image_path(index))
            found.masks = self._segments.masks(self._objects.source[rows], self._objects.boxes[rows], size)
        return found

    def item_id(self, index: int) -> str:
        """The image's file name."""
        return unpack_name(self._names, int(self._kept[index]))

    def sample_id(self, index: int) -> str | int:
        """The file's image id."""
        return self._ids[int(self._kept[index])]

    def image_path(self, index: int) -> Path:
        """Where image `index` lies."""
        return self.images / self.item_id(index)

    def recorded_size(self, index: int) -> tuple[int, int] | None:
        """(height, width) as the file states it."""
        height, width = self._sizes[int(self._kept[index])].tolist()
        return (height, width) if height > 0 and width > 0 else None

    def describe(self) -> dict[str, Any]:
        """As for every reader, with the file and the kinds of segmentation in it."""
        kinds = {"objects with polygons": self._num_polygons, "objects with run lengths": self._num_runs} if self.masks else {}
        return {**super().describe(), "file": str(self.file), **kinds}

    def _problem(self, where: str, what: str, consequence: str = "left out") -> None:
        self.problems.append(Problem(str(self.file), where, what, consequence))

    def _read_categories(self, entries: list[dict[str, Any]], wanted: Sequence[str] | None) -> None:
        names: dict[int, str] = {}
        for entry in entries:
            number, name = entry.get("id"), str(entry.get("name", entry.get("id")))
            if number is None or not _is_int(number):
                self._problem(f"category {name}", f"its id is {number!r}, not a whole number")
            elif number in names:
                self._problem(f"category {number}", f"its id is used twice, for {names[number]!r} and {name!r}")
            else:
                names[number] = name
        if not names:
            raise DataError(f"{self.file} has no categories, so its labels have no names; add \"categories\": [{{\"id\": 1, \"name\": ...}}]")
        ids = sorted(names)
        if 0 in names:
            self._problem("categories", "ids start at 0", "kept")
        gaps = sorted(set(range(ids[0], ids[-1] + 1)) - set(ids))[:10]
        if gaps:
            self._problem("categories", f"ids have gaps ({', '.join(map(str, gaps))} ...); labels are 0..{len(ids) - 1} in their order", "kept")
        if wanted is not None:
            id_of = {name: number for number, name in names.items()}
            unknown = [name for name in wanted if name not in id_of]
            if unknown:
                raise DataError(f"{self.file} has no category {unknown[0]!r}; it has {', '.join(id_of)}")
            ids = [id_of[name] for name in wanted]
        self.category_ids: tuple[int, ...] = tuple(ids)
        self.label_of_category = {number: label for label, number in enumerate(ids)}
        self._known_categories = set(names)
        self.classes = tuple(names[number] for number in ids)

    def _read_images(self, entries: list[dict[str, Any]]) -> dict[str | int, int]:
        positions: dict[str | int, int] = {}
        names: list[str] = []
        sizes: list[list[int]] = []
        for number, entry in enumerate(entries):
            image, file_name = entry.get("id"), entry.get("file_name")
            if not isinstance(image, int | str) or isinstance(image, bool) or not isinstance(file_name, str):
                self._problem(f"image {image if image is not None else f'number {number}'}", "it needs an id and a file_name")
            elif image in positions:
                self._problem(f"image {image}", f"its id is used twice, for {names[positions[image]]} and {file_name}")
            else:
                positions[image] = len(names)
                names.append(file_name)
                sizes.append([_size(entry.get("height")), _size(entry.get("width"))])
        self._names, self._sizes = pack_names(names), np.array(sizes, dtype=np.int32).reshape(-1, 2)
        self._ids: list[str | int] = list(positions)
        return positions

    def _read_annotations(self, entries: list[dict[str, Any]], positions: dict[str | int, int], collector: ObjectCollector) -> None:
        seen: set[int] = set()
        sizes = self._sizes.tolist()
        self._any_difficult = any(entry.get("difficult") for entry in entries)
        for number, entry in enumerate(entries):
            own = entry.get("id")
            if isinstance(own, int):
                if own in seen:
                    self._problem(_where(entry, number), "its id is used more than once", "kept")
                seen.add(own)
            image, category = entry.get("image_id"), entry.get("category_id")
            if not isinstance(image, int | str) or image not in positions:
                self._problem(_where(entry, number), f"it belongs to image {image!r}, which the file does not list")
                continue
            if not isinstance(category, int) or category not in self._known_categories:
                self._problem(_where(entry, number), f"its category {category!r} is not listed")
                continue
            crowd = bool(entry.get("iscrowd", 0))
            if category not in self.label_of_category or (crowd and not self._keep_crowd):
                continue
            position = positions[image]
            box, wrong = _box(entry.get("bbox"), sizes[position])
            if wrong:
                self._problem(_where(entry, number), wrong)
                continue
            collector.add(position, box, self.label_of_category[category], crowd=crowd, difficult=bool(entry.get("difficult")),
                          area=_area(entry.get("area"), box))
            self._keep(entry, position)
            if self.masks:
                self._add_segmentation(_where(entry, number), entry.get("segmentation"), position)

    def _keep_content(self, content: dict[str, Any]) -> None:
        """What a format on top of this one keeps of the whole file."""

    def _keep(self, entry: dict[str, Any], image: int) -> None:
        """What a format on top of this one keeps of an annotation of image number `image` that was just taken."""

    def _add_segmentation(self, where: str, given: Any, position: int) -> None:
        if isinstance(given, dict):
            self._num_runs += 1
            self._segments.add(runs=self._run_lengths(where, given, position))
            return
        polygons = [p for p in given if _is_polygon(p)] if isinstance(given, list) else []
        self._num_polygons += bool(polygons)
        if isinstance(given, list) and len(polygons) < len(given):
            wrong = len(given) - len(polygons)
            self._problem(where, f"{wrong} of its {len(given)} polygons have fewer than three points or no numbers", "part left out")
        if not polygons:
            self._problem(where, "it has no segmentation; its box stands in for the mask", "kept")
        self._segments.add(polygons=polygons)

    def _run_lengths(self, where: str, given: dict[str, Any], position: int) -> dict[str, Any] | None:
        """Compressed run lengths of the image's size, None (with a problem listed) where they are broken."""
        size, counts = given.get("size"), given.get("counts")
        recorded = self._sizes[position].tolist()
        if not (isinstance(size, list) and len(size) == 2 and all(map(_is_int, size)) and min(size) > 0) or (min(recorded) > 0 and size != recorded):
            self._problem(where, f"its run lengths are for the size {size!r}, the image is {recorded}; its box stands in for the mask", "kept")
            return None
        if isinstance(counts, list):
            if not all(_is_int(c) and c >= 0 for c in counts) or sum(counts) != size[0] * size[1]:
                self._problem(where, f"its run lengths add up to {sum(c for c in counts if _is_int(c))}, not {size[0]} x {size[1]}; "
                                     "its box stands in for the mask", "kept")
                return None
            from faster_coco_eval.core import mask as coco_mask

            return coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
        if not isinstance(counts, str) or _length(counts) != size[0] * size[1]:
            self._problem(where, f"its compressed run lengths do not add up to {size[0]} x {size[1]}; its box stands in for the mask", "kept")
            return None
        return {"size": size, "counts": counts.encode("ascii")}


def is_coco(content: Any) -> bool:
    """Whether a parsed json has the three lists of a COCO detection file."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations", "categories"))


def _annotation_file(root: Path, split: str | None, annotations: str | None) -> Path:
    if annotations is None and split is None:
        raise DataError(f"the COCO data set in {root} needs `split` (for annotations/instances_<split>.json) or `annotations` (a json file)")
    return root / (annotations if annotations is not None else f"annotations/instances_{split}.json")


def _image_folder(root: Path, split: str | None, images: str | None) -> Path:
    if images is None and split is None:
        return root
    return existing_folder(root / (images if images is not None else _RECUT.get(str(split), str(split))), "the image folder")


def read_coco(file: Path, kind: str) -> dict[str, Any]:
    """A COCO json with its lists images, annotations and categories; `kind` names it in messages. Raises `DataError` where it is none."""
    try:
        content = json.loads(read_text(file, "the COCO annotations"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{file} is not valid json ({error}); fetch or write it again") from error
    if not is_coco(content):
        has = f"the keys {', '.join(map(str, content))}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DataError(f"{file} is no COCO {kind} file: it needs the lists images, annotations and categories, and has {has}")
    for key in ("images", "annotations", "categories"):
        if not all(isinstance(entry, dict) for entry in content[key]):
            raise DataError(f"{file}: every entry of {key!r} must be a mapping; write the file again")
    return content


def _where(entry: dict[str, Any], number: int) -> str:
    return f"annotation {entry.get('id', f'number {number}')}"


def _box(given: Any, size: list[int]) -> tuple[tuple[float, float, float, float], str]:
    """A bbox as xyxy, and what is wrong with it ("" where nothing is); `size` (height, width) of its image, 0 where unknown."""
    if not (isinstance(given, list) and len(given) == 4 and all(map(_is_number, given))):
        return (0.0, 0.0, 0.0, 0.0), f"its bbox is {given!r}, not four finite numbers x, y, width, height"
    x, y, width, height = given
    box = (float(x), float(y), float(x + width), float(y + height))
    if width <= 0 or height <= 0:
        return box, f"its bbox {given} has no positive width and height"
    if box[2] <= 0 or box[3] <= 0 or (size[1] > 0 and x >= size[1]) or (size[0] > 0 and y >= size[0]):
        return box, f"its bbox {given} lies outside the image"
    return box, ""


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """A finite number of a size that pixels can have (NaN compares as false)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _size(value: Any) -> int:
    return value if _is_int(value) and 0 < value < 2**31 else 0


def _area(value: Any, box: tuple[float, float, float, float]) -> float:
    """The file's area, the box's where the file gives none."""
    if _is_number(value) and value > 0:
        return float(value)
    return (box[2] - box[0]) * (box[3] - box[1])


def _is_polygon(values: Any) -> bool:
    # The rasteriser walks along every edge, so a coordinate far outside would keep it busy.
    return isinstance(values, list) and len(values) >= 6 and len(values) % 2 == 0 and all(_is_number(v) and abs(v) < 1e5 for v in values)


def _length(counts: str) -> int:
    """How many pixels compressed run lengths cover, -1 where the text is none. (COCO's coding: 5 bits a character from "0", sign-extended, fourth and
    later runs as differences to the one two before.) The decoder itself trusts its input and writes past its buffer on a wrong one."""
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        part = ord(character) - 48
        if not 0 <= part < 64:
            return -1
        value |= (part & 31) << shift
        shift += 5
        if part & 32:
            continue
        if part & 16:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            return -1
        runs.append(value)
        value = shift = 0
    return -1 if shift else sum(runs)
