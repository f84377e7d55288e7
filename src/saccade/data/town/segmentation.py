"""Town for semantic segmentation: still pictures with the class of every pixel, as the domain-adaptation methods learn and score them."""
from __future__ import annotations

from typing import Any, Literal

from saccade.data.class_sets import CLASS_SETS
from saccade.data.contract import Video
from saccade.data.town.dataset import Town
from saccade.structures import Annotations, Sample, make_sample
from saccade.structures.ranges import PositiveFloat, PositiveInt


class TownSegmentation:
    """`num_images` pictures of `Town` with their semantic map; `classes` are the objects, then the stuff. `labelled: false` gives the pictures alone.

    `split`, `domain`, `size`, `seed` and `density` are those of `Town`, and so are the pictures: those of `Town(num_videos=num_images,
    frames_per_video=1)`. Pictures of the same split and seed show the same scenes in every domain: a target domain that is not to be the source in
    another light, pixel by pixel, needs a `seed` of its own.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test"] = "train",
        domain: Literal["day", "night", "fog", "rain", "sketch", "camera"] = "day",
        size: PositiveInt | tuple[PositiveInt, PositiveInt] = 128,
        num_images: PositiveInt = 1000,
        seed: int = 0,
        labelled: bool = True,
        density: PositiveFloat = 1.0,
    ) -> None:
        self._town = Town(
            split=split, domain=domain, size=size, num_videos=num_images, frames_per_video=1, seed=seed, density=density, masks=False, panoptic=False,
        )
        known = CLASS_SETS["town"]
        self.labelled = labelled
        self.name = f"town_segmentation_{domain}_{split}"
        self.classes, self.colours, self.subsets = known.classes, known.colours, dict(known.subsets)
        self.videos: tuple[Video, ...] = ()

    def __len__(self) -> int:
        return len(self._town)

    def __getitem__(self, index: int) -> Sample:
        """Picture `index`. Raises IndexError."""
        sample = self._town[index]
        return make_sample(sample.image, self._labels(sample), dataset=self.name, id=sample.meta.id)

    def annotations(self, index: int) -> Annotations:
        """The semantic map of picture `index`; no colour is painted for it."""
        return self._labels(self._town.annotations(index)) if self.labelled else Annotations()

    def _labels(self, known: Annotations) -> Annotations:
        return Annotations(segmentation=known.segmentation).annotations() if self.labelled else Annotations()

    def item_id(self, index: int) -> str:
        """Name of picture `index`, such as "val_0003_0000"; the same in every domain."""
        return self._town.item_id(index)

    def describe(self) -> dict[str, Any]:
        """Counts and settings."""
        return {"name": self.name, "images": len(self), "size": self._town.size, "classes": list(self.classes), "labelled": self.labelled}
