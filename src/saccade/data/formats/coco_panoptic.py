"""COCO panoptic files (cocodataset.org, "data format", section 4): a json that lists the segments of each image, and a png an image whose colours are
the segments' ids (red + 256 green + 65536 blue; black is void).

Classes are all things and stuff in the order of their ids, which may have gaps: labels are 0..K-1, and `category_ids` leads back. The png of an image
is decoded when it is asked for, and compared with the json: what one has and the other lacks is an error that names file and segment.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saccade.data.classes import resolve_classes
from saccade.data.contract import Problem
from saccade.data.decoding import read_image
from saccade.data.formats.coco import Coco, read_coco
from saccade.data.formats.still_images import StillImages, existing_folder, pack_names, unpack_name
from saccade.data.segments import segment_objects
from saccade.errors import DataError
from saccade.structures import Annotations, Panoptic, Sample, Segment
from saccade.structures.panoptic import UNLISTED, segment_rows

_NO_LABEL = -1  # of a segment whose class is not among the data set's: its pixels are void


@dataclass(frozen=True)
class _Listed:
    """The segments of one image as the json has them: ids, labels (or _NO_LABEL), crowd flags, areas in pixels (nan where it gives none)."""

    ids: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray


class CocoPanoptic(Coco):
    """Images with a panoptic map, and every segment as an object: `sample.panoptic`, and `boxes`, `labels`, `crowd`, `areas` and (`masks`) masks.

    `root`: the data set's folder. `split` names COCO's own layout: `annotations/panoptic_<split>.json`, pictures in `<split>/`, pngs in
    `panoptic_<split>/` (or `annotations/panoptic_<split>/`, where COCO's archive puts them). Other layouts give `annotations` (the json), `images`
    and `maps` (the folders of pictures and pngs), each relative to `root` or absolute. `masks`: one mask a segment; training with a mask head needs
    them, evaluation does not. `classes` picks categories by name and orders the labels; pixels of others are void.

    `things[label]` says whether a class is a thing. Raises `DataError` where a file is missing or not COCO's; entries that can't be used are left out
    and listed in `problems`. A png that contradicts the json raises `DataError` when its image is asked for.
    """

    def __init__(
        self, *, root: str | Path, split: str | None = None, annotations: str | None = None, images: str | None = None, maps: str | None = None,
        masks: bool = True, classes: Sequence[str] | str | None = None, name: str = "coco_panoptic",
    ) -> None:
        folder = existing_folder(root, "the COCO panoptic root")
        if annotations is None and split is None:
            raise DataError(f"the COCO panoptic data set in {folder} needs `split` (for annotations/panoptic_<split>.json) or `annotations` (a json)")
        self.file = folder / (annotations if annotations is not None else f"annotations/panoptic_{split}.json")
        content = read_coco(self.file, "panoptic")
        if content["annotations"] and not any("segments_info" in entry for entry in content["annotations"]):
            raise DataError(f"{self.file} is no COCO panoptic file: its annotations have no segments_info; detection files are read as `Coco`")
        wanted = images if images is not None else split
        self.images = folder if wanted is None else existing_folder(folder / wanted, "the image folder")
        self.maps = _map_folder(folder, self.file, maps)
        StillImages.__init__(self, name, folder, ())
        self.masks = masks
        self._read_categories(content["categories"], resolve_classes(classes, folder))
        self.things: tuple[bool, ...] = self._read_things(content["categories"])
        positions = self._read_images(content["images"])
        self._read_segments(content["annotations"], positions)

    def annotations(self, index: int) -> Annotations:
        """The panoptic map of image `index`, and boxes (around the pixels), labels, crowd flags, areas and masks of its segments."""
        listed, (ids, rows, wrong) = self._listed(index), self._compared(index)
        if wrong:
            more = f" ({len(wrong) - 1} more; `saccade data show` lists them)" if len(wrong) > 1 else ""
            raise DataError(f"{self.map_path(index)} contradicts {self.file}: {': '.join(wrong[0])}{more}; both must come from the same source, so "
                            "fetch or write them again")
        segments = tuple(
            Segment(int(number), int(label), self.things[label], bool(crowd))
            for number, label, crowd in zip(listed.ids, listed.labels, listed.crowd, strict=True) if label != _NO_LABEL
        )
        if len(segments) < len(listed.ids):
            known = torch.from_numpy(np.append(listed.labels, _NO_LABEL) != _NO_LABEL)
            ids = ids * known[rows]  # void is row -1, the one added at the end
        panoptic = Panoptic(ids, segments)
        found = segment_objects(panoptic, masks=self.masks)
        found.panoptic = panoptic
        return found

    def examine(self, index: int) -> list[Problem]:
        """Everything in which the png of image `index` and the json contradict each other. Raises `DataError` where the png can't be read."""
        return [Problem(str(self.map_path(index)), where, what, "can't be used") for where, what in self._compared(index)[2]]

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        assert sample.panoptic is not None
        if sample.panoptic.segment_map.shape != sample.size:
            height, width = sample.panoptic.segment_map.shape
            raise DataError(f"{self.image_path(index)} is {sample.size[1]} x {sample.size[0]} (width x height, upright), but its panoptic map "
                            f"{self.map_path(index)} is {width} x {height}; fetch or write them again, or remove the EXIF rotation")
        return sample

    def map_path(self, index: int) -> Path:
        """Where the png of image `index` lies."""
        return self.maps / unpack_name(self._map_names, index)

    def describe(self) -> dict[str, Any]:
        """As for every reader, with the file and the numbers of things and stuff classes."""
        return {**StillImages.describe(self), "file": str(self.file), "thing classes": sum(self.things), "stuff classes": self.things.count(False)}

    def _listed(self, index: int) -> _Listed:
        rows = slice(int(self._offsets[index]), int(self._offsets[index + 1]))
        return _Listed(*(column[rows] for column in self._columns))

    def _compared(self, index: int) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
        """The ids of the png (H, W), the place of each pixel's segment in the json's list, and all contradictions as (where, what)."""
        listed, ids = self._listed(index), read_segment_ids(self.map_path(index))
        rows = segment_rows(ids, listed.ids.tolist())
        counts = torch.bincount(rows[rows >= 0], minlength=len(listed.ids)).tolist()
        wrong: list[tuple[str, str]] = []
        recorded = self.recorded_size(index)
        if recorded is not None and recorded != tuple(ids.shape):
            wrong.append((f"image {self.item_id(index)}", f"the png is {ids.shape[1]} x {ids.shape[0]}, the json says {recorded[1]} x {recorded[0]}"))
        numbers, pixels = ids[rows == UNLISTED].unique(return_counts=True)
        for number, count in zip(numbers.tolist(), pixels.tolist(), strict=True):
            wrong.append((f"segment {number}", f"it has {count} pixels in the png and is not in the json"))
        for number, area, count in zip(listed.ids.tolist(), listed.areas.tolist(), counts, strict=True):
            if count == 0:
                wrong.append((f"segment {number}", "it is in the json and has no pixel in the png"))
            elif abs(area - count) >= 1:  # false for an unknown area, which is nan
                wrong.append((f"segment {number}", f"its area is {area:g} in the json and {count} pixels in the png"))
        return ids, rows, wrong

    def _read_things(self, entries: list[dict[str, Any]]) -> tuple[bool, ...]:
        flags = {entry["id"]: entry.get("isthing") for entry in entries if isinstance(entry.get("id"), int)}
        for number, name in zip(self.category_ids, self.classes, strict=True):
            if flags[number] not in (0, 1):
                self._problem(f"category {number} ({name})", f"its isthing is {flags[number]!r}, neither 0 nor 1; it counts as a thing", "kept")
        return tuple(flags[number] != 0 for number in self.category_ids)

    def _read_segments(self, entries: list[dict[str, Any]], positions: dict[str | int, int]) -> None:
        of_image: dict[int, tuple[str, list[tuple[int, int, bool, float]]]] = {}
        for number, entry in enumerate(entries):
            image, png, segments = entry.get("image_id"), entry.get("file_name"), entry.get("segments_info")
            where = f"annotation of image {image}" if image is not None else f"annotation number {number}"
            if not isinstance(image, int | str) or image not in positions:
                self._problem(where, "the file does not list this image")
            elif not isinstance(png, str) or not isinstance(segments, list):
                self._problem(where, "it needs the file_name of a png and a list segments_info")
            elif positions[image] in of_image:
                self._problem(where, "this image has another annotation before it")
            else:
                of_image[positions[image]] = png, self._segments_of(segments, png)
        without = [position for position in range(len(self._names)) if position not in of_image]
        for position in without:
            self._problem(f"image {unpack_name(self._names, position)}", "it has no entry in annotations")
        self._keep_images(np.array(sorted(of_image), dtype=np.int64))
        ordered = [of_image[position] for position in sorted(of_image)]
        self._map_names = pack_names([png for png, _ in ordered])
        self._offsets = np.cumsum([0, *(len(segments) for _, segments in ordered)])
        rows = [segment for _, segments in ordered for segment in segments]
        columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
        types = (np.int64, np.int32, np.bool_, np.float64)
        self._columns: tuple[np.ndarray, ...] = tuple(np.array(column, dtype=t) for column, t in zip(columns, types, strict=True))

    def _keep_images(self, positions: np.ndarray) -> None:
        """Leave all images out but those at `positions`, so that the index of an image is its place in every array."""
        self._names, self._sizes = self._names[positions], self._sizes[positions]
        self._ids = [self._ids[position] for position in positions.tolist()]
        self._kept = np.arange(len(positions))

    def _segments_of(self, entries: list[Any], png: str) -> list[tuple[int, int, bool, float]]:
        """(id, label, crowd, area) of one image's segments; those that can't be used are listed and left out, or void."""
        segments: dict[int, tuple[int, int, bool, float]] = {}
        for entry in entries:
            number, category = (entry.get("id"), entry.get("category_id")) if isinstance(entry, dict) else (None, None)
            where, label = f"{png}, segment {number}", _NO_LABEL
            if not isinstance(number, int) or not 0 < number < 2**24:
                self._problem(where, "its id is not a whole number from 1 to 16777215, as a png's colours are")
                continue
            if number in segments:
                self._problem(where, "its id is used twice in this image; the first counts")
                continue
            if not isinstance(category, int) or category not in self._known_categories:
                self._problem(where, f"its category {category!r} is not listed; its pixels count as void")
            else:
                label = self.label_of_category.get(category, _NO_LABEL)
            area = entry.get("area")
            known = isinstance(area, int | float) and not isinstance(area, bool) and area == area
            segments[number] = number, label, bool(entry.get("iscrowd", 0)), float(area) if known else float("nan")
        return list(segments.values())


def read_segment_ids(path: str | Path) -> Tensor:
    """The ids (H, W) int64 that the colours of the png in `path` stand for, 0 where it is black. Raises `DataError` for a missing or broken file."""
    red, green, blue = read_image(path).to(torch.int64)
    return red + 256 * green + 65536 * blue


def is_panoptic(text: str) -> bool:
    """Whether `text`, a COCO json, is that of a panoptic file."""
    return '"segments_info"' in text


def _map_folder(root: Path, file: Path, maps: str | None) -> Path:
    if maps is not None:
        return existing_folder(root / maps, "the folder of panoptic maps")
    places = (root / file.stem, file.parent / file.stem)
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise DataError(f"the panoptic maps of {file} are neither in {places[0]} nor in {places[1]}; unpack the archive of pngs there, or name their "
                        "folder with `maps`")
    return found
