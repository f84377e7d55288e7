"""Pseudo objects: what a network is sure to see in the images of the target domain, for the terms that need objects.

They are found on the batch as it was loaded, before any view is made of it, so that views can carry them (tracking.md, 8.3, step 1).
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from saccade.adaptation.context import RAW, Context, Network
from saccade.errors import InputError
from saccade.structures import Annotations, Detections
from saccade.structures.ranges import PositiveInt, Probability


class ObjectSource(Protocol):
    """Finds pseudo objects. `network` says whose detections these are; the state is what a resumed run needs to go on."""

    network: Network

    def find(self, context: Context) -> list[Annotations]: ...
    def watch(self, context: Context) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class ConfidentDetections:
    """The detections of a network with a score above `threshold`, at most the `most` best of an image.

    Their `track_ids` are 1, 2, ... in each image, so that the same object is known in every view of it.
    """

    def __init__(self, *, threshold: Probability = 0.7, network: Network = "teacher", most: PositiveInt | None = None) -> None:
        self.threshold, self.network, self.most = threshold, network, most

    def find(self, context: Context) -> list[Annotations]:
        """The objects of each image, in pixels of the batch."""
        return [as_objects(found.above(self.threshold)[:self.most]) for found in context.detections(self.network, RAW)]

    def watch(self, context: Context) -> None:
        """Nothing to learn from a step."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the threshold stays."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take over."""


class SelfEntropyDescent:
    """Detections above a threshold that is lowered from `start` by `step` every `every` steps, as long as the student grows surer of itself.

    SFOD (Li et al. 2021, arXiv:2012.05400): the mean entropy of the student's detections falls while pseudo labels are still good; at its first local
    minimum the threshold before the rise is kept from then on. The mean is taken over the second half of each round, on `view`, and the search ends
    at `stop`. In the original every threshold is a training of its own from the source model; here the rounds follow one another. A round without any
    detection has no entropy and ends nothing.
    """

    def __init__(
        self, *, start: Probability = 0.9, step: Probability = 0.05, stop: Probability = 0.3, every: PositiveInt = 200, network: Network = "teacher",
        view: str = "student",
    ) -> None:
        if not (stop <= start and step > 0):
            raise InputError(f"SelfEntropyDescent goes down from start {start} by step {step} to stop {stop}; give start >= stop and a step above 0")
        self.start, self.step, self.stop, self.every, self.network, self.view = start, step, stop, every, network, view
        self.threshold, self.settled = float(start), False
        self._seen = self._count = 0
        self._sum, self._best = 0.0, float("inf")

    def find(self, context: Context) -> list[Annotations]:
        """The objects of each image, in pixels of the batch."""
        return [as_objects(found.above(self.threshold)) for found in context.detections(self.network, RAW)]

    def watch(self, context: Context) -> None:
        """Take the student's detections of a step into account; at the end of a round lower the threshold or settle on the one before."""
        if self.settled:
            return
        self._seen += 1
        if 2 * self._seen > self.every:
            for found in context.detections("student", self.view):
                scores = found.scores.double().clamp(1e-6, 1 - 1e-6)
                self._sum += float(-(scores * scores.log() + (1 - scores) * (1 - scores).log()).sum())
                self._count += len(found)
        if self._seen == self.every:
            self._end_round()

    def _end_round(self) -> None:
        mean = self._sum / self._count if self._count else self._best
        if mean > self._best:
            self.threshold, self.settled = round(self.threshold + self.step, 6), True
        elif self.threshold - self.step < self.stop - 1e-9:
            self.settled = True
        else:
            self.threshold, self._best = round(self.threshold - self.step, 6), mean
        self._seen = self._count = 0
        self._sum = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The threshold and the round as far as it went."""
        return {"threshold": self.threshold, "settled": self.settled, "seen": self._seen, "count": self._count, "sum": self._sum, "best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.threshold, self.settled = state["threshold"], state["settled"]
        self._seen, self._count, self._sum, self._best = state["seen"], state["count"], state["sum"], state["best"]


def as_objects(found: Detections) -> Annotations:
    """Detections as annotations with `track_ids` 1, 2, ..., on the CPU."""
    boxes = found.boxes.detach().float().cpu()
    return Annotations(boxes=boxes, labels=found.labels.cpu(), track_ids=torch.arange(1, len(boxes) + 1))
