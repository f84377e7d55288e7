"""Label maps that a network made, as files by the ids of their samples: numbers, colours to look at, and how sure each pixel is.

    FOLDER/labels/<id>.png        one number a pixel: the label, 255 where there is none
           colours/<id>.png       the colour of each label, where the classes have any
           confidence/<id>.png    the probability of each label as a step, also where the label was left out
           confidence.json        per class, how many of (a sixteenth of) the pixels with a label have each confidence

All are of the original image's size. Step s of 0..255 is the confidence 1 - (1 - s / 255)^3, rounded down to it: fine steps where networks are sure
and thresholds are set (0.0016 at 0.95), coarse ones elsewhere, at less than half the size of 16-bit numbers.
"""
from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from saccade.data.decoding import read_label_map
from saccade.data.formats.stored import file_of
from saccade.errors import DataError
from saccade.structures import IGNORE

LABELS, COLOURS, CONFIDENCE, COUNTS = "labels", "colours", "confidence", "confidence.json"
SUFFIX = ".png"
STEPS, _POWER = 255, 3
_EVERY = 4  # pixel counts, in both directions

Colour = tuple[int, int, int]


def label_file(labels: Tensor) -> bytes:
    """`labels` (H, W) of 0..255 as a grey PNG."""
    return _png(labels.to(torch.uint8).cpu().numpy())


def colour_file(labels: Tensor, colours: Sequence[Colour]) -> bytes:
    """`labels` (H, W) in the colours of their classes as a PNG; black where there is none."""
    table = np.zeros((IGNORE + 1, 3), np.uint8)
    table[: len(colours)] = colours
    picture = Image.fromarray(labels.to(torch.uint8).cpu().numpy(), "P")
    picture.putpalette(table.flatten().tolist())
    return _encoded(picture.convert("RGB"))


def confidence_file(confidence: Tensor) -> bytes:
    """`confidence` (H, W) in 0..1 as a grey PNG."""
    return _png(confidence_steps(confidence).cpu().numpy())


def confidence_steps(confidence: Tensor) -> Tensor:
    """uint8: the highest step that is not above each `confidence` in 0..1."""
    steps = STEPS * (1 - (1 - confidence.double().clamp(0, 1)).pow(1 / _POWER))
    return (steps + 1e-2).floor().to(torch.uint8)  # what was read from a file is written as it was


def confidence_of(steps: Tensor) -> Tensor:
    """float32: the confidence that each step stands for."""
    return (1 - (1 - steps.double() / STEPS).pow(_POWER)).float()


def _png(values: np.ndarray) -> bytes:
    return _encoded(Image.fromarray(values))


def _encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)  # as small as the default, and a third faster
    return buffer.getvalue()


@dataclass(frozen=True)
class StoredMap:
    """`labels` (H, W) uint8 and `confidence` (H, W) float32 in 0..1; None where it was not kept."""

    labels: Tensor
    confidence: Tensor | None


def read_labels(folder: Path, item: str | int) -> StoredMap:
    """The label map of the sample `item`. Raises DataError where there is none."""
    file, beside = file_of(folder / LABELS, item, SUFFIX), file_of(folder / CONFIDENCE, item, SUFFIX)
    if not file.is_file():
        raise DataError(f"there are no labels of {item} in {folder}; the task WriteLabels (kind: hard) writes them for these images")
    labels = read_label_map(file)
    if not beside.is_file():
        return StoredMap(labels, None)
    confidence = confidence_of(read_label_map(beside))
    if confidence.shape != labels.shape:
        raise DataError(f"{beside} is {tuple(confidence.shape)} pixels, the labels beside it {tuple(labels.shape)}; write them again")
    return StoredMap(labels, confidence)


class ConfidenceCounts:
    """How often each class was found with each confidence: `counts` (C, 256) of every 16th pixel of the maps given to `add`."""

    def __init__(self, classes: Sequence[str], counts: Tensor | None = None) -> None:
        self.classes = tuple(classes)
        self.counts = torch.zeros(len(self.classes), STEPS + 1, dtype=torch.int64) if counts is None else counts

    def add(self, labels: Tensor, confidence: Tensor) -> None:
        """Take a map: `labels` (H, W), 255 where there is none, and `confidence` (H, W)."""
        labels, steps = labels[::_EVERY, ::_EVERY].long(), confidence_steps(confidence[::_EVERY, ::_EVERY]).long()
        places = (labels * (STEPS + 1) + steps)[labels != IGNORE]
        self.counts += torch.bincount(places.flatten().cpu(), minlength=self.counts.numel()).reshape(self.counts.shape)

    def as_json(self) -> dict[str, list[int]]:
        """Plain data, class by class."""
        return dict(zip(self.classes, self.counts.tolist(), strict=True))

    @classmethod
    def read(cls, folder: Path) -> ConfidenceCounts:
        """Those in a folder of the task `WriteLabels`. Raises DataError where there are none."""
        try:
            found = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
            return cls(tuple(found), torch.tensor(list(found.values()), dtype=torch.int64).reshape(len(found), STEPS + 1))
        except (OSError, ValueError, AttributeError, TypeError, RuntimeError) as error:
            raise DataError(f"{folder / COUNTS} has no counts of confidence ({error}); the task WriteLabels (kind: hard) ends with it") from None

    def limits(self, portion: float) -> dict[str, float]:
        """For each class the confidence above which the surest `portion` of its pixels lies (Zou et al. 2018); 0 for a class that was never found."""
        above = self.counts.flip(1).cumsum(1).flip(1)  # pixels at least that sure
        allowed = portion * above[:, :1]
        steps = ((above > allowed).sum(1) - 1).clamp(min=0)  # the last step that too many pixels reach
        return dict(zip(self.classes, confidence_of(steps).tolist(), strict=True))
