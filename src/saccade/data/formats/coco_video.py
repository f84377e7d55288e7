"""COCO's json with videos (mmtracking's CocoVID, the format that BDD100K, SHIFT and MOT are converted to): images have `video_id` and `frame_id`,
annotations `instance_id` (or `track_id`).

Frames come video by video, in the order of their frame ids, which start at 0 in every video here. Leaves out YouTube-VIS's files, whose annotations
are whole tracks.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.data.contract import Video
from saccade.data.formats.coco import Coco
from saccade.errors import DataError
from saccade.structures import Annotations, Sample, make_sample

_NOBODY = -1


class CocoVideo(Coco):
    """Videos and objects of one json file; arguments and errors as of `Coco`.

    `track_ids` start at 1: where the file counts from 0, all are higher by one; an object without an instance id has -1. Images of no video, and a
    second one with the same frame id, are left out.
    """

    def __init__(
        self, *, root: str | Path, split: str | None = None, annotations: str | None = None, images: str | None = None, masks: bool = False,
        keep_crowd: bool = True, keep_empty: bool = True, classes: Sequence[str] | str | None = None, name: str = "coco_video",
    ) -> None:
        self._instances: list[int] = []
        self._without_id = 0
        super().__init__(
            root=root, split=split, annotations=annotations, images=images, masks=masks, keep_crowd=keep_crowd, keep_empty=keep_empty,
            classes=classes, name=name,
        )
        if self._without_id:
            self._problem("annotations", f"{self._without_id} of {len(self._instances)} have no instance_id (a whole number from 0 on)", "kept")
        ids = np.array(self._instances, dtype=np.int64)
        if (ids == 0).any():
            self._problem("annotations", "instance ids start at 0; here all are higher by 1", "kept")
            ids = np.where(ids == _NOBODY, _NOBODY, ids + 1)
        self._track_ids = ids[self._objects.source]
        self._settle_videos()

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        found = super().__getitem__(index)
        at = int(self._kept[index])
        return make_sample(
            found.image, found.annotations(), dataset=self.name, id=self.sample_id(index), path=str(self.image_path(index)),
            video=self._video_names[self._video_of[at]], frame=int(self._frame_of[at]),
        )

    def annotations(self, index: int) -> Annotations:
        """As `Coco`'s, with `track_ids`; -1 for an object that the file gives no id."""
        found = super().annotations(index)
        found.track_ids = torch.from_numpy(self._track_ids[self._objects.rows(int(self._kept[index]))].copy())
        return found

    def frame_number(self, index: int) -> int:
        """The number of frame `index` in its video, from 0."""
        return int(self._frame_of[int(self._kept[index])])

    def describe(self) -> dict[str, Any]:
        """As `Coco`'s, with the numbers of videos and tracks."""
        video = np.repeat(self._video_of, np.diff(self._objects.offsets))
        tracks = np.unique(np.column_stack([video, self._track_ids])[self._track_ids > 0], axis=0)
        return {**super().describe(), "videos": len(self.videos), "tracks": len(tracks)}

    def _keep_content(self, content: dict[str, Any]) -> None:
        """The videos, and of each image which frame of which video it is."""
        listed = content.get("videos")
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise DataError(f"{self.file} has no list of videos, so it is no COCO-video file; read it as coco, whose images stand alone")
        self._video_names: list[str] = []
        self._rates: list[float | None] = []
        self._video_numbers: dict[Any, int] = {}
        for entry in listed:
            video, name, rate = entry.get("id"), str(entry.get("name", entry.get("id"))), entry.get("fps")
            if not isinstance(video, int | str) or video in self._video_numbers:
                self._problem(f"video {name}", f"its id is {video!r}" if not isinstance(video, int | str) else f"its id {video} is used twice")
                continue
            self._video_numbers[video] = len(self._video_names)
            self._video_names.append(name)
            self._rates.append(float(rate) if isinstance(rate, int | float) and rate > 0 else None)

    def _read_images(self, entries: list[dict[str, Any]]) -> dict[str | int, int]:
        """As `Coco`'s; images of no video get the video -1."""
        positions = super()._read_images(entries)
        self._video_of = np.full(len(positions), -1, dtype=np.int32)
        self._frame_of = np.zeros(len(positions), dtype=np.int64)
        taken: dict[tuple[int, int], int] = {}
        for entry in entries:
            image = entry.get("id")
            at = positions.get(image) if isinstance(image, int | str) else None
            if at is None or self._video_of[at] >= 0:
                continue
            video, frame = entry.get("video_id"), entry.get("frame_id", entry.get("frame_index"))
            if not isinstance(video, int | str) or video not in self._video_numbers or not isinstance(frame, int):
                self._problem(f"image {image}", f"it is frame {frame!r} of video {video!r}, which the file does not list")
                continue
            place = (self._video_numbers[video], frame)
            if place in taken:
                self._problem(f"image {image}", f"it is frame {frame} of video {video}, as is image {self._ids[taken[place]]}")
                continue
            taken[place] = at
            self._video_of[at], self._frame_of[at] = place
        for number in range(len(self._video_names)):
            own = self._video_of == number
            self._frame_of[own] -= self._frame_of[own].min(initial=np.iinfo(np.int64).max)
        return positions

    def _keep(self, entry: dict[str, Any], image: int) -> None:
        instance = entry.get("instance_id", entry.get("track_id"))
        known = isinstance(instance, int) and not isinstance(instance, bool) and instance >= 0
        self._without_id += not known
        self._instances.append(int(instance) if known and isinstance(instance, int) else _NOBODY)

    def _settle_videos(self) -> None:
        """Puts the frames in order, and finds ids that come twice in a frame."""
        order = np.lexsort((self._frame_of, self._video_of))
        kept = order[np.isin(order, self._kept) & (self._video_of[order] >= 0)]
        self._kept = kept
        bounds = np.searchsorted(self._video_of[kept], np.arange(len(self._video_names) + 1))
        self.videos = tuple(
            Video(name, tuple(range(first, last)), rate)
            for name, rate, first, last in zip(self._video_names, self._rates, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        )
        image = np.repeat(np.arange(len(self._names)), np.diff(self._objects.offsets))
        rows, counts = np.unique(np.column_stack([image, self._track_ids])[self._track_ids > 0], axis=0, return_counts=True)
        for at, track in rows[counts > 1].tolist():
            self._problem(f"image {self._ids[at]}", f"the track {track} is there more than once", "kept")
