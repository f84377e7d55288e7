"""Pairs of frames for learning who is who: a key frame and a reference frame of the same video (quasi-dense tracking, Pang et al. 2021, section 3.1).

Left out: references from other videos, several references a key, and fixed distances, which no published recipe of the house uses.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saccade.data.contract import Dataset, Problem, Video
from saccade.errors import InputError
from saccade.structures import Annotations, Sample
from saccade.structures.ranges import PositiveInt


class FramePairs:
    """Clips of two samples, [key, reference], of `dataset`, whose frames are the keys.

    The reference is drawn uniformly from the frames at most `reach` before or after the key in its video that share an object with it; a key that
    has no such neighbour, and every still image, is paired with itself. Objects without track ids get their row numbers in that case. `keep_empty`:
    frames without any object are keys, too (mmtracking leaves them out).

    The draw comes from torch's global generator, which the loader seeds for each sample: unlike other data sets, an item is a function of its index
    and of that seed. `annotations(i)` are the key's.
    """

    def __init__(self, *, dataset: Dataset, reach: PositiveInt = 10, keep_empty: bool = False, name: str | None = None) -> None:
        if reach < 1:
            raise InputError(f"`reach` of FramePairs is a number of frames, at least 1; it is {reach}")
        self.dataset, self.reach = dataset, reach
        self.name, self.classes = name or dataset.name, tuple(dataset.classes)
        self.videos: Sequence[Video] = ()  # a pair is no frame
        self.problems: list[Problem] = list(getattr(dataset, "problems", []))
        self._place = {frame: (video, at) for video in dataset.videos for at, frame in enumerate(video.frames)}
        everything = range(len(dataset))
        self._keys: Sequence[int] = everything if keep_empty else [i for i in everything if _has_objects(dataset.annotations(i))]
        if not self._keys:
            raise InputError(f"{dataset.name} has no frame with an object, so there is nothing to make pairs of")

    def __len__(self) -> int:
        return len(self._keys)

    def source_index(self, index: int) -> int:
        """The number of the key of pair `index` in `dataset`."""
        return self._keys[index]

    def neighbours(self, index: int) -> list[int]:
        """The numbers in `dataset` of the frames within reach of the key of pair `index`, in order and without it; empty for a still image."""
        key = self.source_index(index)
        if key not in self._place:
            return []
        video, at = self._place[key]
        return [*video.frames[max(0, at - self.reach):at], *video.frames[at + 1:at + 1 + self.reach]]

    def __getitem__(self, index: int) -> list[Sample]:
        """[key, reference]; the reference is decoded anew where it is the key itself."""
        key = self.dataset[self.source_index(index)]
        reference = self._reference(index, key)
        if reference is not None:
            return [key, self.dataset[reference]]
        key = _with_ids(key)
        return [key, replace(key)]

    def _reference(self, index: int, key: Sample) -> int | None:
        """The first frame of a random order of the neighbours that shows an object of the key; None where none does."""
        candidates = self.neighbours(index)
        if key.track_ids is None or not candidates:
            return None
        for position in torch.randperm(len(candidates)).tolist():
            ids = self.dataset.annotations(candidates[position]).track_ids
            if ids is not None and bool(torch.isin(key.track_ids, ids).any()):
                return candidates[position]
        return None

    def annotations(self, index: int) -> Annotations:
        """Those of the key."""
        return self.dataset.annotations(self.source_index(index))

    def item_id(self, index: int) -> str:
        """That of the key."""
        return self.dataset.item_id(self.source_index(index))

    def describe(self) -> dict[str, Any]:
        """The data set's description, with the number of pairs."""
        return {**self.dataset.describe(), "name": self.name, "images": len(self), "selection": type(self).__name__, "reach": self.reach}


def _has_objects(annotations: Annotations) -> bool:
    """Whether there is an object to learn: regions marked as crowds are none."""
    if annotations.crowd is not None:
        return not bool(annotations.crowd.all())
    return annotations.num_objects > 0


def _with_ids(sample: Sample) -> Sample:
    """`sample` with its objects numbered where they have no ids."""
    if sample.track_ids is not None or sample.boxes is None:
        return sample
    ids: Tensor = torch.arange(len(sample.boxes))
    return replace(sample, track_ids=ids)
