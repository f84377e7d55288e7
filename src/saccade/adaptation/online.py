"""Online adaptation: one pass over the frames, each predicted before it is learnt from.

So every figure is prequential: no frame is scored by a network that has seen it. Memory is bounded by the networks and a window of frames, whatever
the length of the stream; time by the number of steps a frame.
"""
from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from saccade.adaptation.adapting import Adapting
from saccade.errors import InputError
from saccade.models.contract import Model
from saccade.structures import Batch, Prediction
from saccade.structures.ranges import NonNegativeInt, PositiveInt

Predictor = Callable[[Batch], list[Prediction]]


@dataclass(frozen=True, kw_only=True)
class OnlineSettings:
    """How a stream is adapted to.

    `steps` after every `every`-th frame, each on the last `window` frames of its video. `predicts`: whose predictions count; None is the network that
    the learner evaluates. `reset`: "video" starts every video from the source model again, "never" goes on through all of them.
    """

    steps: NonNegativeInt = 1
    every: PositiveInt = 1
    window: PositiveInt = 1
    predicts: Literal["student", "teacher"] | None = None
    reset: Literal["never", "video"] = "never"


@dataclass(frozen=True)
class FrameRecord:
    """What one frame cost: seconds of predicting and of adapting, and the figures of its last step (none where no step was due)."""

    predicting: float
    adapting: float
    figures: Mapping[str, float]


class OnlineAdapter:
    """Predicts each frame, then adapts to it.

    `learner` is set up and holds the source weights. `follow` makes what predicts the frames of a network one after another (a tracker's state lives
    there); it is made once. The learner's networks change in place.
    """

    def __init__(self, learner: Adapting, settings: OnlineSettings, follow: Callable[[Model], Predictor]) -> None:
        if settings.predicts == "teacher" and learner.teacher is None:
            raise InputError("online.predicts is teacher, but the method has none; leave it out, or set online.predicts=student")
        self.learner, self.settings = learner, settings
        self.model = learner.model if settings.predicts is None else learner.network(settings.predicts)
        self._predict = follow(self.model)
        self._window: deque[Batch] = deque(maxlen=settings.window)
        self._video: str | None = None
        self._frames = 0
        self._source = self._state() if settings.reset == "video" else None

    def __call__(self, batch: Batch) -> tuple[Prediction, FrameRecord]:
        """The prediction of one frame (a batch of one image) by what was learnt from the frames before, and what it cost."""
        self._begin_video(batch)
        begun = time.perf_counter()
        self.model.eval()
        with torch.no_grad():
            (prediction,) = self._predict(batch)
        _wait(batch)
        predicted = time.perf_counter()
        figures = self._adapt(replace(batch, originals=None))
        _wait(batch)
        return prediction, FrameRecord(predicted - begun, time.perf_counter() - predicted, figures)

    def _adapt(self, batch: Batch) -> dict[str, float]:
        self._window.append(batch)
        self._frames += 1
        figures: dict[str, float] = {}
        if self._frames % self.settings.every == 0:
            for _ in range(self.settings.steps):
                figures = self.learner.step(_together(list(self._window)))
        return figures

    def _begin_video(self, batch: Batch) -> None:
        video = batch.metas[0].video
        if self._frames and video == self._video:
            return
        if self._frames and self._source is not None:
            self._restore(self._source)
        self._window.clear()
        self._video = video

    def _state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return copy.deepcopy((self.learner.model.state_dict(), self.learner.state_dict()))

    def _restore(self, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
        # A copy, for an optimiser keeps the tensors that it is given and writes into them.
        weights, learner = copy.deepcopy(state)
        self.learner.model.load_state_dict(weights)
        self.learner.load_state_dict(learner)


def _together(frames: list[Batch]) -> Batch:
    """Frames of one video as one batch."""
    if len(frames) == 1:
        return frames[0]
    sizes = {tuple(frame.images.shape[-2:]) for frame in frames}
    if len(sizes) > 1:  # a video of changing size: the newest frame alone
        return frames[-1]
    padding = None if frames[-1].padding is None else torch.cat([frame.padding for frame in frames if frame.padding is not None])
    targets, metas = [t for frame in frames for t in frame.targets], [m for frame in frames for m in frame.metas]
    return Batch(torch.cat([frame.images for frame in frames]), targets, metas, padding)


def _wait(batch: Batch) -> None:
    """Let an accelerator finish, so that the clock tells what was computed."""
    if batch.images.device.type == "cuda":
        torch.cuda.synchronize(batch.images.device)
