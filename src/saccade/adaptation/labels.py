"""Pseudo labels of pixels: where terms get them from. A network says them at once, or a file has what one said before.

Whatever view they were found in, they come out at the places of the view that asks, for a map follows its picture (`warping`). Thresholds are those
of self-training (Zou et al. 2018, arXiv:1810.07911; Li et al. 2019, arXiv:1904.10620): one for all classes, or one for each.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from saccade.adaptation.context import RAW, Context, Network
from saccade.adaptation.warping import Place, bring, maps_of, places_of
from saccade.data.formats.label_files import ConfidenceCounts, read_labels
from saccade.data.formats.soft_labels import read_soft_labels
from saccade.errors import DataError, InputError
from saccade.structures import IGNORE, Geometry, Meta
from saccade.structures.ranges import Probability

Threshold = Probability | dict[str, Probability]


@dataclass(frozen=True)
class LabelMaps:
    """Of N pictures: `labels` (N, h, w) int64, 255 where nothing is known; `confidence` (N, h, w), the probability of each label.

    `probabilities` (N, C, h, w): of all classes, None where only the label was kept; where nothing is known they mean nothing.
    """

    labels: Tensor
    confidence: Tensor
    probabilities: Tensor | None = None

    @property
    def known(self) -> Tensor:
        """(N, h, w) bool: where there is a label."""
        return self.labels != IGNORE

    @classmethod
    def of(cls, probabilities: Tensor, known: Tensor) -> LabelMaps:
        """The best class where `known` (N, h, w)."""
        confidence, labels = probabilities.max(1)
        return cls(labels.masked_fill(~known, IGNORE), confidence, probabilities)

    def above(self, limits: Tensor) -> LabelMaps:
        """Only labels with a confidence above that in `limits` (C,) for their class."""
        limit = limits.to(self.labels.device)[self.labels.masked_fill(~self.known, 0)]
        return replace(self, labels=self.labels.masked_fill(self.confidence <= limit, IGNORE))


def limits_of(threshold: Threshold, classes: Sequence[str], owner: str) -> Tensor:
    """(C,) the threshold of each class. Raises InputError where `owner` names some classes and others not."""
    if not isinstance(threshold, Mapping):
        return torch.full((len(classes),), float(threshold))
    if set(threshold) != set(classes):
        wrong = ", ".join(sorted(set(threshold) ^ set(classes)))
        raise InputError(f"{owner}.threshold is one number for all, or one for each class; some are missing or no classes: {wrong}")
    return torch.tensor([float(threshold[name]) for name in classes])


class LabelSource(ABC):
    """Finds pseudo labels for the pixels of a view. `threshold`: labels with at most this confidence do not count, as one number or one a class."""

    def __init__(self, threshold: Threshold) -> None:
        self.threshold = threshold

    def read(self, context: Context, view: str, size: tuple[int, int]) -> LabelMaps:
        """Labels for maps of `size` of the images of `view`. Raises InputError and DataError where there are none."""
        return self.find(context, view, size).above(self.limits(context.student.classes))

    def limits(self, classes: Sequence[str]) -> Tensor:
        """(C,) the threshold of each class."""
        return limits_of(self.threshold, classes, type(self).__name__)

    @abstractmethod
    def find(self, context: Context, view: str, size: tuple[int, int]) -> LabelMaps:
        """The same without the threshold."""


class OnlineLabels(LabelSource):
    """What `network` says about the view `looks_at` ("raw": the whole picture), softmax of its `logits` at its own resolution, in every step anew."""

    def __init__(self, *, network: Network = "fixed", looks_at: str = RAW, threshold: Threshold = 0.0) -> None:
        super().__init__(threshold)
        self.network, self.looks_at = network, looks_at

    def find(self, context: Context, view: str, size: tuple[int, int]) -> LabelMaps:
        """Labels for maps of `size` of the images of `view`."""
        context.read(self, self.network, self.looks_at, "logits")
        with torch.no_grad():
            maps, places = maps_of(context.outputs(self.network, self.looks_at), "logits", context.view(self.looks_at))
            probabilities = [own.detach().float().softmax(0) for own in maps]
            return LabelMaps.of(*bring(probabilities, places, places_of(context.view(view)), size))


class StoredSoftLabels(LabelSource):
    """The probabilities that the task `WriteLabels` (`kind: soft`) left in `folder`, by the ids of the samples."""

    def __init__(self, *, folder: str, threshold: Threshold = 0.0) -> None:
        super().__init__(threshold)
        self.folder = Path(folder)

    def find(self, context: Context, view: str, size: tuple[int, int]) -> LabelMaps:
        """Labels for maps of `size` of the images of `view`. Raises DataError for a sample without a file."""
        batch = context.view(view)
        stored = [read_soft_labels(self.folder, meta.id, context.student.classes) for meta in batch.metas]
        maps = [each.probabilities.to(batch.images.device).float() for each in stored]
        return LabelMaps.of(*bring(maps, [Place(each.frame, each.geometry) for each in stored], places_of(batch), size))


class StoredLabels(LabelSource):
    """The hard labels that the task `WriteLabels` (`kind: hard`) left in `folder`, by the ids of the samples.

    `portion`: of each class only the surest share of all its pixels counts, up to `threshold` at most where that is above 0: a class whose labels are
    never very sure keeps some (class-balanced self-training).
    """

    def __init__(self, *, folder: str, threshold: Threshold = 0.0, portion: Probability | None = None) -> None:
        super().__init__(threshold)
        self.folder, self.portion = Path(folder), portion
        self._limits: Tensor | None = None

    def limits(self, classes: Sequence[str]) -> Tensor:
        """(C,) the threshold of each class. Raises DataError where the counts in the folder are missing or of other classes."""
        if self._limits is None:
            self._limits = super().limits(classes)
            if self.portion is not None:
                own = ConfidenceCounts.read(self.folder)
                if own.classes != tuple(classes):
                    raise DataError(f"{self.folder} has labels of {', '.join(own.classes)}; the network has the classes {', '.join(classes)}")
                surest = torch.tensor(list(own.limits(self.portion).values()))
                self._limits = torch.where(self._limits > 0, torch.minimum(self._limits, surest), surest)
        return self._limits

    def find(self, context: Context, view: str, size: tuple[int, int]) -> LabelMaps:
        """Labels for maps of `size` of the images of `view`, those of the nearest pixels. Raises DataError for a sample without a file, with labels
        that are no classes, or without confidence where a threshold needs it."""
        batch = context.view(view)
        maps = [self._read(meta, len(context.student.classes)).to(batch.images.device) for meta in batch.metas]
        places = [Place(tuple(own.shape[1:]), Geometry.identity(tuple(own.shape[1:]))) for own in maps]  # type: ignore[arg-type]
        moved, known = bring(maps, places, places_of(batch), size, nearest=True)
        return LabelMaps(moved[:, 0].long().masked_fill(~known, IGNORE), moved[:, 1])

    def _read(self, meta: Meta, num_classes: int) -> Tensor:
        """(2, H, W) float32: labels and their confidence, 1 where it was not kept."""
        stored = read_labels(self.folder, meta.id)
        if meta.original_size is not None and tuple(stored.labels.shape) != tuple(meta.original_size):
            raise DataError(f"the labels of {meta.id} in {self.folder} are {tuple(stored.labels.shape)} pixels, the image {meta.original_size}")
        highest = int(torch.where(stored.labels == IGNORE, 0, stored.labels).max())
        if highest >= num_classes:
            raise DataError(f"the labels of {meta.id} in {self.folder} go up to {highest}; the network has {num_classes} classes")
        if stored.confidence is None and (self.portion is not None or self.threshold != 0.0):
            raise DataError(f"{self.folder} has no confidence of the labels of {meta.id}, which a threshold needs; write them with WriteLabels")
        confidence = torch.ones(stored.labels.shape) if stored.confidence is None else stored.confidence
        return torch.stack([stored.labels.float(), confidence])


def sure_shares(found: LabelMaps, threshold: float) -> Tensor:
    """(N,) the share of the labelled pixels of each picture whose confidence is at least `threshold`; 0 without any (Tranheden et al. 2021)."""
    sure = (found.confidence >= threshold) & found.known
    return sure.flatten(1).sum(1) / found.known.flatten(1).sum(1).clamp(min=1)
