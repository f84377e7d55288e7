"""What the readers of tracking data share: frames that lie as picture files, videos in order, and objects with track ids.

Track ids start at 1 in every video: trackers and losses of the field take 0 and less for "nobody". Where a file counts from 0 or below, all ids of
that video move up.
"""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.data.contract import Problem, Video
from saccade.data.decoding import IMAGE_SUFFIXES
from saccade.data.formats.packed_objects import ObjectCollector, PackedObjects
from saccade.data.formats.still_images import StillImages, pack_names, unpack_name
from saccade.structures import Annotations, Sample, make_sample


@dataclass
class FrameList:
    """The frames of a data set while it is read: for each its file relative to the root, its video's number (-1: a still image), its frame number
    from 0, and its size (height, width; 0 where unknown)."""

    files: list[str] = field(default_factory=list)
    video: list[int] = field(default_factory=list)
    frame: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def add(self, file: str, video: int, frame: int, size: tuple[int, int] = (0, 0)) -> int:
        """The number of the new frame in the data set."""
        self.files.append(file)
        self.video.append(video)
        self.frame.append(frame)
        self.sizes.append(size)
        return len(self.files) - 1


class VideoFrames(StillImages):
    """A data set (see `data.contract.Dataset`) of videos whose frames are picture files.

    Samples carry `meta.video` and `meta.frame` (from 0), and `track_ids` where the data has them. A frame without annotations has `boxes` None, one
    without objects has no rows.
    """

    def __init__(self, name: str, root: Path, classes: Sequence[str]) -> None:
        super().__init__(name, root, classes)
        self._objects: PackedObjects | None = None

    def _settle(
        self, frames: FrameList, names: Sequence[str], rates: Sequence[float | None], collector: ObjectCollector | None, track_ids: Sequence[int],
        unlabelled: Sequence[int] = (), **known: bool,
    ) -> None:
        """Takes what was read: still images, then frames video by video in order, the videos' names and frame rates, and objects with the id of each
        in the order added.

        `unlabelled`: the numbers of frames about which nothing is known; `known` says which flags the format has (see `ObjectCollector.pack`).
        """
        self._files = pack_names(frames.files)
        self._frame = np.array(frames.frame, dtype=np.int32)
        self._video = np.array(frames.video, dtype=np.int32)
        self._sizes = np.array(frames.sizes, dtype=np.int32).reshape(-1, 2)
        self._unlabelled = np.zeros(len(frames.files), dtype=bool)
        self._unlabelled[list(unlabelled)] = True
        if collector is not None:
            self._objects = collector.pack(len(frames.files), **known)
            self._track_ids = np.array(track_ids, dtype=np.int64)[self._objects.source]
        bounds = np.searchsorted(self._video, np.arange(len(names) + 1)).tolist()
        self.videos = tuple(
            Video(video, tuple(range(first, last)), rate) for video, rate, first, last in zip(names, rates, bounds[:-1], bounds[1:], strict=True)
        )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        found = super().__getitem__(index)
        video = int(self._video[index])
        moving: dict[str, Any] = {} if video < 0 else {"video": self.videos[video].name, "frame": int(self._frame[index])}
        return make_sample(found.image, found.annotations(), dataset=self.name, id=self.sample_id(index), path=found.meta.path, **moving)

    def annotations(self, index: int) -> Annotations:
        """Boxes, labels, track ids and the format's flags of frame `index`."""
        index = range(len(self))[index]
        if self._objects is None or self._unlabelled[index]:
            return Annotations()
        found = self._objects.annotations(index)
        found.track_ids = torch.from_numpy(self._track_ids[self._objects.rows(index)].copy())
        return found

    def item_id(self, index: int) -> str:
        """The frame's file relative to the root."""
        return unpack_name(self._files, index)

    def image_path(self, index: int) -> Path:
        """Where frame `index` lies."""
        return self.root / self.item_id(index)

    def recorded_size(self, index: int) -> tuple[int, int] | None:
        """(height, width) as the data set states it."""
        height, width = self._sizes[index].tolist()
        return (height, width) if height > 0 and width > 0 else None

    def frame_number(self, index: int) -> int:
        """The number of frame `index` in its video, from 0."""
        return int(self._frame[index])

    def describe(self) -> dict[str, Any]:
        """As for every reader, with the numbers of videos and tracks."""
        lengths = [len(video.frames) for video in self.videos]
        facts = {"videos": len(self.videos), "frames a video": f"{min(lengths)} to {max(lengths)}" if lengths else "none"}
        if self._objects is not None:
            video = np.repeat(self._video, np.diff(self._objects.offsets))
            facts["tracks"] = len(np.unique(np.column_stack([video, self._track_ids]), axis=0))
        return {**super().describe(), **facts}

    def _problem(self, file: Path, where: str, what: str, consequence: str = "left out") -> None:
        self.problems.append(Problem(str(file), where, what, consequence))


def from_one(ids: np.ndarray) -> np.ndarray:
    """`ids` (n,) moved up so that the lowest is 1 where it is less."""
    return ids + max(0, 1 - int(ids.min(initial=1)))


def picture_files(folder: Path) -> list[str]:
    """The names of the pictures in `folder`, numbers in them in the order of their values."""
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")]
    return sorted(names, key=natural_order)


def natural_order(text: str) -> list[tuple[int, str]]:
    """A key that sorts "frame2" before "frame10"."""
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"([0-9]+)", text)]
