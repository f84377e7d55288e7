"""Runs of a segmentation model as a report reads them, made by the gallery itself from maps of a few pixels."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from saccade.report.gallery import Gallery
from saccade.structures import Annotations, Sample, SegmentationMap, collate, make_sample

CLASSES, COLOURS = ("road", "sky"), ((128, 64, 128), (70, 130, 180))
TRUTH = torch.zeros(30, 40, dtype=torch.uint8)
TRUTH[:10], TRUTH[25:] = 1, 255


class Streets:
    """Twelve pictures of 40 x 30 pixels with label maps, in memory; every one brighter than the one before."""

    name, classes, colours, videos = "streets", CLASSES, COLOURS, ()

    def __init__(self, labelled: bool = True) -> None:
        self.labelled = labelled

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Sample:
        return make_sample(torch.full((3, 30, 40), 20 * index, dtype=torch.uint8), self.annotations(index), dataset=self.name, id=self.item_id(index))

    def annotations(self, index: int) -> Annotations:
        return Annotations(segmentation=TRUTH) if self.labelled else Annotations()

    def item_id(self, index: int) -> str:
        return f"street_{index:02d}.png"

    def describe(self) -> dict[str, Any]:
        return {}


def found(wrong_rows: int, sure: bool = True) -> SegmentationMap:
    labels = TRUTH.long().clamp(max=1)
    labels[10 : 10 + wrong_rows] = 1
    coarse = torch.tensor([0.999, 0.001] if sure else [0.5, 0.5])[:, None, None].expand(2, 4, 5)
    return SegmentationMap(labels, coarse=coarse.half())


def keep(folder: Path, wrong_rows: Callable[[int], int], labelled: bool = True, count: int = 3) -> dict[str, Any]:
    data = Streets(labelled)
    gallery = Gallery(folder=folder, dataset=data, classes=data.classes, count=count, samples=4)
    for start in (0, 4, 8):
        indices = range(start, start + 4)
        small = [make_sample(torch.zeros(3, 8, 8, dtype=torch.uint8), dataset=data.name, id=data.item_id(i)) for i in indices]
        gallery(collate(small, originals=[data.annotations(i) for i in indices]), [found(wrong_rows(i)) for i in indices])
    gallery.close()
    index: dict[str, Any] = json.loads((folder / "gallery.json").read_text())
    return index


def write_segmentation_run(folder: Path, wrong_rows: Callable[[int], int], iou: float, labelled: bool = True) -> Path:
    place = folder / "evaluation" / "dusk"
    keep(place / "gallery", wrong_rows, labelled)
    (folder / "recipe.yaml").write_text("model: {type: DeepLabV2}\n")
    (place / "figures.json").write_text(json.dumps({"iou/mIoU": iou}))
    columns = {"classes": list(CLASSES), "IoU": [iou, None], "pixels": [5, 0]}
    (place / "details.json").write_text(json.dumps({"iou": {"per_class": columns}}))
    return folder
