"""Detections that lie in files, as videos to be tracked: MOTChallenge's text, folders of sequences with `det/det.txt`, and COCO's result lists.

Frames count from 0 here, and from 1 in MOT files. Ids in the files are passed over. MOT text has one class, whatever its eighth column says (which is
a place in space in some files and a class in others).
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from saccade.data.formats.video_frames import natural_order
from saccade.errors import DataError, InputError
from saccade.metrics.mot.files import read_table
from saccade.structures import Detections

_BOX_RULE = "'bbox' must be four finite numbers x, y, width, height"


@dataclass(frozen=True)
class DetectedVideo:
    """One video's detections: `frames` (n,) the frame of each, ascending. `classes` name the labels; `sequence` is the MOTChallenge folder that it
    comes from; for COCO `image_ids` are the images' by frame, and `category_ids` those of the labels."""

    name: str
    frames: np.ndarray
    detections: Detections
    classes: tuple[str, ...] = ("object",)
    sequence: Path | None = None
    image_ids: dict[int, int | str] = field(default_factory=dict)
    category_ids: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """How many frames there are, as far as the files tell."""
        return max(int(self.frames.max(initial=-1)), max(self.image_ids, default=-1)) + 1

    def by_frame(self) -> Iterator[tuple[int, Detections]]:
        """(frame, its detections) for all frames that have some, in order."""
        numbers, starts = np.unique(self.frames, return_index=True)
        for number, start, end in zip(numbers.tolist(), starts, np.append(starts, len(self.frames))[1:], strict=True):
            yield number, self.detections[start:end]


@dataclass(frozen=True)
class VideoSource:
    """A video that is still to be read."""

    name: str
    read: Callable[[], DetectedVideo]


def find_videos(path: str | Path, images: str | Path | None = None) -> list[VideoSource]:
    """The videos of `path`: a MOT text file, a folder of sequences (`NAME/det/det.txt`, one sequence alone, or `NAME.txt`), or a COCO result list.

    `images` is the json with COCO's `images` (and `videos`, `categories`); without it that is `images.json` beside the results. Raises InputError for
    a path that holds nothing of these, DataError for files that can't be used; what is wrong inside a MOT file is raised by `read`.
    """
    place = Path(path)
    if place.suffix.lower() == ".json" and place.is_file():
        return _coco_videos(place, place.with_name("images.json") if images is None else Path(images))
    if images is not None:
        raise InputError(f"--images goes with a COCO result list (.json), and {place} is none")
    if place.is_file():
        return [_mot_source(place)]
    if not place.is_dir():
        raise InputError(f"there is no file or folder {place}")
    files = [place / "det" / "det.txt"] if (place / "det" / "det.txt").is_file() else sorted(place.rglob("det/det.txt"))
    files = files or sorted(place.glob("*.txt"), key=lambda file: natural_order(file.name))
    if not files:
        raise InputError(f"{place} holds neither sequences (NAME/det/det.txt) nor MOT text files (*.txt); name a det.txt, such a folder, or a .json")
    return [_mot_source(file) for file in files]


def _mot_source(file: Path) -> VideoSource:
    inside = file.resolve().parent.name in ("det", "gt")
    folder = file.resolve().parent.parent if inside else None
    name = folder.name if folder is not None else file.stem
    return VideoSource(name, lambda: _read_mot(file, name, folder))


def _read_mot(file: Path, name: str, folder: Path | None) -> DetectedVideo:
    table = read_table(file)
    if np.isinf(table.scores).any():
        raise DataError(f"{file}, line {table.lines[np.isinf(table.scores).argmax()]}: its score is infinite. Correct the line.")
    table = table.take(np.argsort(table.frame, kind="stable"))
    found = Detections(torch.from_numpy(table.boxes), torch.from_numpy(table.scores), torch.zeros(len(table), dtype=torch.int64))
    return DetectedVideo(name, table.frame - 1, found, sequence=folder)


def _json(file: Path, what: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"there is no {file}, which should hold {what}; name it with --images") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{file} can't be read as json: {error}") from None


@dataclass
class _Coco:
    """Where each image belongs: (video, frame) by image id; and the labels by category id."""

    place: dict[int | str, tuple[str, int]]
    labels: dict[int, int]
    classes: tuple[str, ...]


def _coco_videos(file: Path, images_file: Path) -> list[VideoSource]:
    known, rows = _json(images_file, "COCO's images"), _json(file, "results")
    if not isinstance(known, dict) or not isinstance(known.get("images"), list):
        raise DataError(f"{images_file} has no list 'images', so the frames of the results are unknown; name another with --images")
    if not isinstance(rows, list):
        raise DataError(f"{file} is no COCO result list: a list of {{image_id, category_id, bbox, score}} is expected")
    coco = _places(known, images_file, rows)
    of_video: dict[str, list[int]] = {video: [] for video, _ in coco.place.values()}
    values = np.zeros((len(rows), 6))  # box, score, label
    frames = np.zeros(len(rows), dtype=np.int64)
    for number, row in enumerate(rows):
        values[number], (video, frames[number]) = _row(row, coco, f"{file}, entry {number}")
        of_video[video].append(number)
    image_ids: dict[str, dict[int, int | str]] = {video: {} for video in of_video}
    for image_id, (video, frame) in coco.place.items():
        if frame in image_ids[video]:
            raise DataError(f"{images_file}: the images {image_ids[video][frame]} and {image_id} are both frame {frame} of the video {video}")
        image_ids[video][frame] = image_id
    categories = tuple(coco.labels)

    def read(name: str) -> DetectedVideo:
        own = np.array(of_video[name], dtype=np.int64)
        own = own[np.argsort(frames[own], kind="stable")]
        kept = torch.from_numpy(values[own])
        found = Detections(kept[:, :4], kept[:, 4], kept[:, 5].long())
        return DetectedVideo(name, frames[own], found, coco.classes, image_ids=image_ids[name], category_ids=categories)

    return [VideoSource(name, lambda name=name: read(name)) for name in of_video]  # type: ignore[misc]


def _places(known: dict[str, Any], file: Path, rows: list[Any]) -> _Coco:
    """Videos and frames of the images: as stated (`video_id`, `frame_id`; or `frame` of a video file), else one video a folder in natural order."""
    names = {video.get("id"): str(video.get("name", video.get("id"))) for video in known.get("videos", [])}
    place: dict[int | str, tuple[str, int]] = {}
    loose: dict[str, list[tuple[str, int | str]]] = {}
    for number, image in enumerate(known["images"]):
        if not isinstance(image, dict) or not isinstance(image.get("id"), int | str) or image["id"] in place:
            raise DataError(f"{file}, image {number}: every image needs an 'id' of its own")
        name = str(image.get("file_name", image["id"]))
        frame = image.get("frame_id", image.get("frame"))
        if not isinstance(frame, int):
            loose.setdefault(PurePosixPath(name).parent.as_posix(), []).append((name, image["id"]))
            place[image["id"]] = "", 0
        elif "video_id" in image:
            place[image["id"]] = names.get(image["video_id"], str(image["video_id"])), frame
        else:
            place[image["id"]] = PurePosixPath(name).with_suffix("").as_posix() if "frame" in image else PurePosixPath(name).parent.as_posix(), frame
    for folder, members in loose.items():
        for frame, (_, image_id) in enumerate(sorted(members, key=lambda member: natural_order(member[0]))):
            place[image_id] = "images" if folder == "." else folder, frame
    first: dict[str, int] = {}
    for video, frame in place.values():
        first[video] = min(frame, first.get(video, frame))
    place = {image_id: (video, frame - first[video]) for image_id, (video, frame) in place.items()}
    stated = {c["id"]: str(c.get("name", c["id"])) for c in known.get("categories", []) if isinstance(c, dict) and isinstance(c.get("id"), int)}
    used = {row["category_id"] for row in rows if isinstance(row, dict) and isinstance(row.get("category_id"), int)}
    ids = sorted(used | set(stated))
    return _Coco(place, {category: label for label, category in enumerate(ids)}, tuple(stated.get(i, str(i)) for i in ids))


def _row(row: Any, coco: _Coco, where: str) -> tuple[np.ndarray, tuple[str, int]]:
    """(x1, y1, x2, y2, score, label) of an entry, and its place."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: it is no mapping with image_id, category_id, bbox and score")
    if row.get("image_id") not in coco.place:
        raise DataError(f"{where}: no image has the id {row.get('image_id')!r}")
    if row.get("category_id") not in coco.labels:
        raise DataError(f"{where}: 'category_id' must be a whole number, not {row.get('category_id')!r}")
    try:
        x, y, width, height = (float(v) for v in row.get("bbox", ()))
        score = float(row.get("score", 1.0))
    except (TypeError, ValueError):
        raise DataError(f"{where}: {_BOX_RULE}, and 'score' a number") from None
    values = np.array([x, y, x + width, y + height, score, coco.labels[row["category_id"]]])
    if not np.isfinite(values).all():
        raise DataError(f"{where}: {_BOX_RULE}, and 'score' a finite number")
    return values, coco.place[row["image_id"]]
