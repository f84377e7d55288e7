"""Scalabel's json (scalabel.ai, the format of BDD100K and SHIFT): frames with labels, in one file or one file a video.

Boxes are stored with their last pixel: (x1, y1, x2 + 1, y2 + 1) here. Other names of a class are understood; "other person", "other vehicle" and
"trailer", and what is marked crowd or ignored, are crowd regions. Leaves out polygons, 3D boxes and poses.
"""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from saccade.data.formats.packed_objects import ObjectCollector
from saccade.data.formats.still_images import existing_folder, read_text
from saccade.data.formats.video_frames import FrameList, VideoFrames, natural_order
from saccade.errors import DataError, InputError

BDD100K = ("pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
SHIFT = ("pedestrian", "car", "truck", "bus", "motorcycle", "bicycle")
OTHER_NAMES = {"bike": "bicycle", "motor": "motorcycle", "person": "pedestrian", "van": "car", "caravan": "car"}
IGNORED_NAMES = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}
_LISTS = {"bdd100k": BDD100K, "shift": SHIFT}


class Scalabel(VideoFrames):
    """The frames and boxes of a Scalabel json, or of all in a folder.

    `annotations` and `images` are relative to `root`; pictures lie there as `<video>/<name>` or `<name>`. `classes`: names in the order of the
    labels, or "bdd100k" (8) or "shift" (6); other categories are left out. `where` picks frames by their attributes, as {"timeofday": ["night"]}.
    `keep_crowd`: crowd regions stay, marked in `crowd`. Frames without a video's name are still images. Raises `DataError` where a file is missing
    or no Scalabel.
    """

    def __init__(
        self, *, root: str | Path, annotations: str, images: str = "", classes: Sequence[str] | str = "bdd100k",
        where: dict[str, list[str]] | None = None, keep_crowd: bool = True, name: str = "scalabel",
    ) -> None:
        folder = existing_folder(root, "the Scalabel root")
        if isinstance(classes, str) and classes not in _LISTS:
            raise InputError(f"classes are names, or one of the lists {', '.join(_LISTS)}; not {classes!r}")
        super().__init__(name, folder, _LISTS[classes] if isinstance(classes, str) else tuple(classes))
        self._images, self._where, self._keep_crowd = images, dict(where or {}), keep_crowd
        self.file = folder / annotations
        files = sorted(self.file.glob("*.json")) if self.file.is_dir() else [self.file]
        if not files:
            raise DataError(f"the folder of Scalabel annotations {self.file} has no json files")
        self._label = self._names()
        self._read([(file, frame) for file in files for frame in self._frames(file)])

    def _names(self) -> dict[str, tuple[int, bool]]:
        """The label of each category that is understood, and whether it is a crowd region."""
        own = {name: label for label, name in enumerate(self.classes)}
        known = {name: (label, False) for name, label in own.items()}
        for names, crowd in ((OTHER_NAMES, False), (IGNORED_NAMES, True)):
            known |= {name: (own[meant], crowd) for name, meant in names.items() if meant in own and name not in own}
        return known

    def _frames(self, file: Path) -> list[dict[str, Any]]:
        try:
            content = json.loads(read_text(file, "the Scalabel annotations"))
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{file} is not valid json ({error}); fetch or write it again") from error
        frames = content.get("frames") if isinstance(content, dict) else content
        if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
            raise DataError(f"{file} is no Scalabel file: it needs a list of frames, alone or under the key frames")
        return [frame for frame in frames if self._wanted(frame)]

    def _wanted(self, frame: Mapping[str, Any]) -> bool:
        attributes = frame.get("attributes") or {}
        return isinstance(attributes, dict) and all(attributes.get(key) in values for key, values in self._where.items())

    def _read(self, entries: list[tuple[Path, dict[str, Any]]]) -> None:
        frames, collector, ids = FrameList(), ObjectCollector(), list[int]()
        names: list[str] = []
        usable = [(file, number, entry) for number, (file, entry) in enumerate(entries) if self._has_name(file, number, entry)]
        usable.sort(key=lambda item: (item[2].get("videoName") is not None, natural_order(item[2].get("videoName") or "")))
        for video, group in groupby(usable, key=lambda item: item[2].get("videoName")):
            members = list(group)
            if video is not None:
                names.append(video)
                members.sort(key=lambda item: (_frame_number(item[2], 0), natural_order(item[2]["name"])))
            tracks: dict[str, int] = {}
            first = _frame_number(members[0][2], 0)
            taken: set[int] = set()
            for place, (file, _, entry) in enumerate(members):
                number = _frame_number(entry, first + place) - first
                if video is not None and number in taken:
                    self._problem(file, f"frame {entry['name']}", f"the video {video} has its frame number {number + first} already")
                    continue
                taken.add(number)
                at = frames.add(self._picture(entry), len(names) - 1 if video is not None else -1, number if video is not None else 0, _size(entry))
                self._add_labels(collector, ids, tracks, file, at, entry)
        self._settle(frames, names, [None] * len(names), collector, ids, crowd=True)

    def _has_name(self, file: Path, number: int, entry: dict[str, Any]) -> bool:
        good = isinstance(entry.get("name"), str) and isinstance(entry.get("videoName"), str | None)
        if not good:
            self._problem(file, f"frame number {number}", "it needs a name, and a videoName that is a text")
        return good

    def _picture(self, entry: dict[str, Any]) -> str:
        video, name = entry.get("videoName"), entry["name"]
        places = [f"{video}/{name}", name, f"{video}-{name}"] if video is not None else [name]
        prefix = f"{self._images}/" if self._images else ""
        return next((prefix + place for place in places if (self.root / (prefix + place)).is_file()), prefix + places[0])

    def _add_labels(
        self, collector: ObjectCollector, ids: list[int], tracks: dict[str, int], file: Path, at: int, entry: dict[str, Any]
    ) -> None:
        seen: set[int] = set()
        for number, label in enumerate(entry.get("labels") or []):
            where = f"frame {entry['name']}, label {label.get('id', number) if isinstance(label, dict) else number}"
            if not isinstance(label, dict) or label.get("category") not in self._label or "box2d" not in label:
                if not isinstance(label, dict):
                    self._problem(file, where, "it is no mapping")
                continue
            given = label["box2d"]
            corners: list[Any] = [given.get(key) for key in ("x1", "y1", "x2", "y2")] if isinstance(given, dict) else []
            if len(corners) != 4 or not all(isinstance(v, int | float) and abs(v) < 1e9 for v in corners):
                self._problem(file, where, f"its box2d is {given!r}, not four finite numbers x1, y1, x2, y2")
                continue
            x1, y1, x2, y2 = corners
            if x2 + 1 <= x1 or y2 + 1 <= y1:
                self._problem(file, where, f"its box2d {corners} has no area")
                continue
            kind, crowd = self._label[label["category"]]
            attributes = label.get("attributes") or {}
            crowd = crowd or bool(attributes.get("crowd")) or bool(attributes.get("ignored")) or bool(attributes.get("Crowd"))
            if crowd and not self._keep_crowd:
                continue
            track = tracks.setdefault(str(label.get("id", f"{at}/{number}")), len(tracks) + 1)
            if track in seen and not crowd:
                self._problem(file, where, "its id comes a second time in this frame")
                continue
            seen.add(track)
            collector.add(at, (x1, y1, x2 + 1, y2 + 1), kind, crowd=crowd)
            ids.append(track)


def is_scalabel(text: str) -> bool:
    """Whether the start of a json's text looks like Scalabel's: a list of frames whose labels have boxes, or such a list under "frames"."""
    return text.lstrip()[:1] in ("[", "{") and '"labels"' in text and ('"box2d"' in text or '"videoName"' in text)


def _frame_number(entry: Mapping[str, Any], otherwise: int) -> int:
    value = entry.get("frameIndex", entry.get("index"))
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _size(entry: Mapping[str, Any]) -> tuple[int, int]:
    size = entry.get("size")
    values: tuple[Any, Any] = (size.get("height"), size.get("width")) if isinstance(size, dict) else (0, 0)
    return (values[0], values[1]) if all(isinstance(v, int) and 0 < v < 2**31 for v in values) else (0, 0)
