"""How often each class occurs, in pixels: measured on a data set, counted while a run goes on, or published."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saccade.data.contract import Dataset
from saccade.errors import InputError
from saccade.structures import IGNORE, Annotations
from saccade.structures.ranges import PositiveInt

# Pixels of each class in all 24,966 label maps of GTA5 at 1914 x 1052 (segmentation_adaptation.md 2.3, after the constants of ProDA).
GTA5_PIXELS: dict[str, int] = {
    "road": 16139327127, "sidewalk": 4158369631, "building": 8495419275, "wall": 927064742, "fence": 318109335, "pole": 532432540,
    "traffic light": 67453231, "traffic sign": 40526481, "vegetation": 3818867486, "terrain": 1081467674, "sky": 6800402117, "person": 182228033,
    "rider": 15360044, "car": 1265024472, "truck": 567736474, "bus": 184854135, "train": 32542442, "motorcycle": 15832619, "bicycle": 2721193,
}


class ClassShares:
    """Measured on the label maps of `dataset`: all of them, or `images` of them at even distances. Pictures without a map do not count."""

    def __init__(self, *, dataset: Dataset, images: PositiveInt | None = None) -> None:
        self.dataset, self.images = dataset, images

    def pixels(self, classes: Sequence[str]) -> Tensor:
        """(K,) int64, for a model of `classes`. Raises InputError where the data set has other classes, or no labelled pixel."""
        if tuple(self.dataset.classes) != tuple(classes):
            raise InputError(f"ClassShares: {self.dataset.name} has other classes than the model; read it with the class set of data.source")
        length = len(self.dataset)
        step = 1 if self.images is None else max(1, length // self.images)
        chosen = range(0, length, step)[: self.images]
        counts = count_pixels([self.dataset.annotations(index) for index in chosen], len(classes))
        if not counts.any():
            raise InputError(f"ClassShares: no pixel of {self.dataset.name} has a label; name a data set with label maps")
        return counts


def count_pixels(targets: Sequence[Annotations], num_classes: int) -> Tensor:
    """(K,) int64: how many pixels of the label maps of `targets` have each class, on their device."""
    maps = [target.segmentation for target in targets if target.segmentation is not None]
    counts = torch.zeros(num_classes, dtype=torch.int64, device=maps[0].device if maps else None)
    for labels in maps:
        own = torch.bincount(labels.flatten().to(torch.int64), minlength=IGNORE + 1)
        counts += own[:num_classes]
    return counts


def gta5_pixels(classes: Sequence[str]) -> Tensor:
    """(K,) int64: the published counts of GTA5. Raises InputError for classes that it does not have."""
    missing = [each for each in classes if each not in GTA5_PIXELS]
    if missing:
        raise InputError(f"GTA5's published class counts have no {', '.join(missing[:5])}; measure with ClassShares, or count: `prior: running`")
    return torch.tensor([GTA5_PIXELS[each] for each in classes])
