"""The boxes of a whole data set in a few arrays, image after image.

Memory is about 40 bytes an object, and nothing in it is a Python object, so that forked loader workers share it. Segmentations are kept as polygons
or run lengths and become masks when asked for.
"""
from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saccade.errors import DataError
from saccade.structures import Annotations


@dataclass(frozen=True)
class PackedObjects:
    """Objects sorted by image: those of image i are rows `offsets[i]` to `offsets[i + 1]`.

    `boxes` (n, 4) float32 xyxy, `labels` (n,) int64; `crowd`, `difficult` (n,) bool and `areas` (n,) float32 where known; `source` (n,) int64: the
    number in which the object was added, for data kept elsewhere.
    """

    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    source: np.ndarray
    crowd: np.ndarray | None = None
    difficult: np.ndarray | None = None
    areas: np.ndarray | None = None

    def rows(self, index: int) -> slice:
        """The rows of image `index`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def annotations(self, index: int) -> Annotations:
        """The objects of image `index`; copies, so that nobody writes into the index."""
        rows = self.rows(index)
        return Annotations(
            boxes=_copy(self.boxes[rows]),
            labels=_copy(self.labels[rows]),
            crowd=None if self.crowd is None else _copy(self.crowd[rows]),
            difficult=None if self.difficult is None else _copy(self.difficult[rows]),
            areas=None if self.areas is None else _copy(self.areas[rows]),
        )


class ObjectCollector:
    """Takes objects one by one, in any order of images, and packs them."""

    def __init__(self) -> None:
        self._image, self._label, self._crowd, self._difficult = array("q"), array("q"), array("b"), array("b")
        self._box, self._area = array("d"), array("d")

    def __len__(self) -> int:
        return len(self._image)

    def add(
        self, image: int, box: Sequence[float], label: int, *, crowd: bool = False, difficult: bool = False, area: float = float("nan")
    ) -> None:
        """An object of image number `image` with `box` xyxy; `area` in pixels."""
        self._image.append(image)
        self._box.extend(box)
        self._label.append(label)
        self._crowd.append(crowd)
        self._difficult.append(difficult)
        self._area.append(area)

    def pack(self, num_images: int, *, crowd: bool = False, difficult: bool = False, areas: bool = False) -> PackedObjects:
        """All of them, sorted by image; `crowd`, `difficult` and `areas` say which of these the format knows."""
        image = np.array(self._image, dtype=np.int64)
        order = np.argsort(image, kind="stable")
        offsets = np.searchsorted(image[order], np.arange(num_images + 1))
        return PackedObjects(
            offsets=offsets,
            boxes=np.array(self._box, dtype=np.float32).reshape(-1, 4)[order],
            labels=np.array(self._label, dtype=np.int64)[order],
            source=order,
            crowd=np.array(self._crowd, dtype=bool)[order] if crowd else None,
            difficult=np.array(self._difficult, dtype=bool)[order] if difficult else None,
            areas=np.array(self._area, dtype=np.float32)[order] if areas else None,
        )


class PackedSegments:
    """The segmentations of a data set's objects in the order added: polygons in one float64 array, run lengths as COCO's compressed strings."""

    def __init__(self) -> None:
        self._values, self._part_end, self._last_part = array("d"), array("q", [0]), array("q", [0])
        self._runs: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._last_part) - 1

    def add(self, polygons: Sequence[Sequence[float]] = (), runs: dict[str, Any] | None = None) -> None:
        """The next object's outline: polygons of x, y, x, y, ... pixels, or run lengths {"size": [h, w], "counts": bytes}, or neither."""
        if runs is not None:
            self._runs[len(self)] = runs
        for polygon in polygons:
            self._values.extend(polygon)
            self._part_end.append(len(self._values))
        self._last_part.append(len(self._part_end) - 1)

    def masks(self, objects: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> Tensor:
        """Masks (n, H, W) bool of the objects with numbers `objects` in an image of `size`; a box (n, 4) stands in where there is no outline."""
        from faster_coco_eval.core import mask as coco_mask

        height, width = size
        if len(objects) == 0:
            return torch.zeros(0, height, width, dtype=torch.bool)
        encoded = []
        for number, box in zip(objects.tolist(), boxes.tolist(), strict=True):
            if number in self._runs:
                runs = self._runs[number]
                if tuple(runs["size"]) != size:
                    raise DataError(f"an object's run lengths are for {runs['size'][0]} x {runs['size'][1]} pixels (height x width), its image has "
                                    f"{height} x {width}; write the annotations again for this image")
                encoded.append(runs)
                continue
            x1, y1, x2, y2 = box
            polygons = self._polygons(number) or [[x1, y1, x2, y1, x2, y2, x1, y2]]
            encoded.append(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))
        decoded = coco_mask.decode(encoded)  # (H, W, n)
        return torch.from_numpy(np.ascontiguousarray(decoded.transpose(2, 0, 1))).bool()

    def _polygons(self, number: int) -> list[list[float]]:
        parts = range(self._last_part[number], self._last_part[number + 1])
        return [self._values[self._part_end[p]:self._part_end[p + 1]].tolist() for p in parts]


def _copy(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.copy())
