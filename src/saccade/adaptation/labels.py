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
from saccade.data.formats.soft_labels import read_soft_labels
from saccade.errors import InputError
from saccade.structures import IGNORE
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

    def above(self, threshold: Threshold, classes: Sequence[str]) -> LabelMaps:
        """Only labels with a confidence above `threshold`, or above that of their class."""
        if isinstance(threshold, Mapping):
            limits = self.confidence.new_tensor([threshold[name] for name in classes] + [0.0])
            limit: Tensor | float = limits[self.labels.clamp(max=len(classes))]
        else:
            limit = threshold
        return replace(self, labels=self.labels.masked_fill(self.confidence <= limit, IGNORE))


class LabelSource(ABC):
    """Finds pseudo labels for the pixels of a view. `threshold`: labels with at most this confidence do not count, as one number or one a class."""

    def __init__(self, threshold: Threshold) -> None:
        self.threshold = threshold

    def read(self, context: Context, view: str, size: tuple[int, int]) -> LabelMaps:
        """Labels for maps of `size` of the images of `view`. Raises InputError and DataError where there are none."""
        classes = context.student.classes
        if isinstance(self.threshold, Mapping) and set(self.threshold) != set(classes):
            wrong = sorted(set(self.threshold) ^ set(classes))
            raise InputError(f"{type(self).__name__}.threshold names some classes too many or too few: {', '.join(wrong)}; give one number a class")
        return self.find(context, view, size).above(self.threshold, classes)

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


def sure_shares(found: LabelMaps, threshold: float) -> Tensor:
    """(N,) the share of the labelled pixels of each picture whose confidence is at least `threshold`; 0 without any (Tranheden et al. 2021)."""
    sure = (found.confidence >= threshold) & found.known
    return sure.flatten(1).sum(1) / found.known.flatten(1).sum(1).clamp(min=1)
