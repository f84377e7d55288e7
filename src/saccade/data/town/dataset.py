"""Town as a data set: videos (or single frames) of a small synthetic world with every annotation, rendered when asked for.

Random access: a frame is a pure function of (seed, split, video, frame), and of the domain where its pixels are concerned.
"""
from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from saccade.data.contract import Video
from saccade.data.town.annotation import annotate, objects_of
from saccade.data.town.rendering import Frame, frame_of, scene_of
from saccade.data.town.vocabulary import ACTIONS, CLASSES, DOMAINS, SEMANTIC_CLASSES, SPLITS, STUFF
from saccade.errors import InputError
from saccade.structures import Annotations, Sample, make_sample
from saccade.structures.ranges import PositiveFloat, PositiveInt, Probability

SMALLEST, LARGEST = 32, 1024


def picture_size(size: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    """`size` as (height, width); raises InputError where it is none or beyond what the town is drawn for."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(v, int) and SMALLEST <= v <= LARGEST for v in pair):
        raise InputError(f"Town: size {size!r} is not a side or (height, width) between {SMALLEST} and {LARGEST} pixels")
    return pair[0], pair[1]


def check_names(split: str, domain: str) -> None:
    """Raises InputError for a split or domain that does not exist."""
    if split not in SPLITS:
        raise InputError(f"Town: there is no split {split!r}; the splits are {', '.join(SPLITS)}")
    if domain not in DOMAINS:
        raise InputError(f"Town: there is no domain {domain!r}; the domains are {', '.join(DOMAINS)}")


class Town:
    """`num_videos` videos of `frames_per_video` frames each; with one frame a video they are independent still images (and `videos` is empty).

    `size`: side or (height, width) in pixels, 32 to 1024. `domain` changes pixels alone: scenes and annotations are equal in all domains.
    `split`s never share a scene; `seed` gives other scenes. `density` multiplies the numbers of people and vehicles; `frame_rate` is in frames a
    second (a lower one means larger motion between frames). An object is annotated when at least `min_visibility` of it is seen (what is hidden, or
    beyond the border, is not) and it is more than a speck. `masks`, `segmentation`, `panoptic` leave out what a task does not need.

    `classes` are the objects; `semantic_classes` (objects, then stuff) those of `segmentation` and `panoptic`; `actions` those of people, and
    `sample.actions` is -1 for everything else.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test"] = "train",
        domain: Literal["day", "night", "fog", "rain", "sketch", "camera"] = "day",
        size: PositiveInt | tuple[PositiveInt, PositiveInt] = 128,
        num_videos: PositiveInt = 50,
        frames_per_video: PositiveInt = 20,
        seed: int = 0,
        masks: bool = True,
        segmentation: bool = True,
        panoptic: bool = True,
        density: PositiveFloat = 1.0,
        frame_rate: PositiveFloat = 10.0,
        min_visibility: Probability = 0.35,
    ) -> None:
        check_names(split, domain)
        self.size = picture_size(size)
        if num_videos < 1 or frames_per_video < 1:
            raise InputError(f"Town: num_videos {num_videos} and frames_per_video {frames_per_video} must be at least 1")
        self.split, self.domain, self.seed = split, domain, seed
        self.num_videos, self.frames_per_video = num_videos, frames_per_video
        self.masks, self.segmentation, self.panoptic = masks, segmentation, panoptic
        self.density, self.frame_rate, self.min_visibility = density, frame_rate, min_visibility
        self.name = f"town_{domain}_{split}"
        self.classes, self.semantic_classes, self.actions, self.stuff = CLASSES, SEMANTIC_CLASSES, ACTIONS, STUFF
        self.videos: tuple[Video, ...] = ()
        if frames_per_video > 1:
            self.videos = tuple(
                Video(self._video_name(v), tuple(range(v * frames_per_video, (v + 1) * frames_per_video)), frame_rate) for v in range(num_videos)
            )

    def __len__(self) -> int:
        return self.num_videos * self.frames_per_video

    def __getitem__(self, index: int) -> Sample:
        """Frame `index` of all videos, one after the other. Raises IndexError."""
        video, number = self._locate(index)
        frame = self._frame(video, number)
        pixels = frame.picture(self.domain, f"{self._key(video)}/{number}")
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        moving = {"video": self._video_name(video), "frame": number} if self.videos else {}
        return make_sample(image, self._annotate(frame), dataset=self.name, id=self.item_id(index), **moving)

    def annotations(self, index: int) -> Annotations:
        """What is known about frame `index`; no colour is painted for it."""
        return self._annotate(self._frame(*self._locate(index))).annotations()

    def visibility(self, index: int) -> Tensor:
        """(n,) float32: how much of each annotated object of frame `index` is seen, 0..1, in the order of its annotations."""
        found = objects_of(self._frame(*self._locate(index)), self.min_visibility)
        return torch.from_numpy(found.visibility.astype(np.float32))

    def item_id(self, index: int) -> str:
        """Name of frame `index`, such as "val_0003_0012"; the same in every domain."""
        video, number = self._locate(index)
        return f"{self._video_name(video)}_{number:04d}"

    def describe(self) -> dict[str, Any]:
        """Counts and settings, and how often each class and action occurs in the frames (at most 200, evenly spread)."""
        looked = range(0, len(self), max(1, len(self) // 200))
        labels: Counter[str] = Counter()
        actions: Counter[str] = Counter()
        for index in looked:
            found = annotate(self._frame(*self._locate(index)), self.min_visibility, False, False, False)
            assert found.labels is not None and found.actions is not None
            labels.update(CLASSES[i] for i in found.labels.tolist())
            actions.update(ACTIONS[i] for i in found.actions.tolist() if i >= 0)
        return {
            "name": self.name, "images": len(self), "videos": len(self.videos), "size": self.size, "classes": list(CLASSES),
            "frames looked at": len(looked), "objects": dict(labels.most_common()), "actions": dict(actions.most_common()),
        }  # fmt: skip

    def _video_name(self, video: int) -> str:
        return f"{self.split}_{video:04d}"

    def _key(self, video: int) -> str:
        return f"saccade town/{self.split}/{self.seed}/{video}"

    def _locate(self, index: int) -> tuple[int, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name}: there is no frame {index}; it has {len(self)}")
        return divmod(index % len(self), self.frames_per_video)

    def _frame(self, video: int, number: int) -> Frame:
        scene = scene_of(self._key(video), self.size[1] / self.size[0], self.density)
        return frame_of(scene, number / self.frame_rate, self.size)

    def _annotate(self, frame: Frame) -> Annotations:
        return annotate(frame, self.min_visibility, self.masks, self.segmentation, self.panoptic)
