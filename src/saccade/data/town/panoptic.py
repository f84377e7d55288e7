"""Town for panoptic segmentation: still pictures in which every segment, thing or stuff, is an object with a box and a mask, as DETR learns it."""
from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from saccade.data.contract import Video
from saccade.data.segments import segment_objects
from saccade.data.town.dataset import Town
from saccade.data.town.vocabulary import CLASSES, SEMANTIC_CLASSES
from saccade.structures import Annotations, Sample, make_sample
from saccade.structures.ranges import PositiveFloat, PositiveInt


class TownPanoptic:
    """`num_images` pictures of `Town` with their panoptic map and one object a segment; `masks`: each with its mask.

    `classes` are the things, then the stuff, and `things[label]` tells them apart. `split`, `domain`, `size`, `seed` and `density` are those of
    `Town`, and so are the pictures: those of `Town(num_videos=num_images, frames_per_video=1)`.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test"] = "train",
        domain: Literal["day", "night", "fog", "rain", "sketch", "camera"] = "day",
        size: PositiveInt | tuple[PositiveInt, PositiveInt] = 128,
        num_images: PositiveInt = 1000,
        seed: int = 0,
        masks: bool = True,
        density: PositiveFloat = 1.0,
    ) -> None:
        self._town = Town(
            split=split, domain=domain, size=size, num_videos=num_images, frames_per_video=1, seed=seed, density=density, masks=False,
            segmentation=False,
        )
        self.masks = masks
        self.name = f"town_panoptic_{domain}_{split}"
        self.classes = SEMANTIC_CLASSES
        self.things = tuple(label < len(CLASSES) for label in range(len(SEMANTIC_CLASSES)))
        self.videos: tuple[Video, ...] = ()

    def __len__(self) -> int:
        return len(self._town)

    def __getitem__(self, index: int) -> Sample:
        """Picture `index`. Raises IndexError."""
        sample = self._town[index]
        return make_sample(sample.image, self._segments(sample.annotations()), dataset=self.name, id=sample.meta.id)

    def annotations(self, index: int) -> Annotations:
        """What is known about picture `index`; no colour is painted for it."""
        return self._segments(self._town.annotations(index))

    def _segments(self, known: Annotations) -> Annotations:
        assert known.panoptic is not None
        return replace(segment_objects(known.panoptic, masks=self.masks), panoptic=known.panoptic)

    def item_id(self, index: int) -> str:
        """Name of picture `index`, such as "val_0003_0000"; the same in every domain."""
        return self._town.item_id(index)

    def describe(self) -> dict[str, Any]:
        """Counts and settings."""
        return {"name": self.name, "images": len(self), "size": self._town.size, "classes": list(self.classes), "thing classes": sum(self.things)}
