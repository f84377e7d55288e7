"""Following videos with a model that remembers: frames in order, a fresh state for each video."""
from __future__ import annotations

from typing import Any

from saccade.models.contract import Model, VideoModel
from saccade.structures import Batch, Prediction


class Follower:
    """Predictions of the frames in batches as they come, one state a video.

    A new state begins where `meta.video` differs from that of the frame before, or where `meta.frame` does not grow. Images that belong to no video
    are predicted by themselves.
    """

    def __init__(self, model: VideoModel) -> None:
        self.model = model
        self._video: str | None = None
        self._frame = -1
        self._state: Any = None

    def __call__(self, batch: Batch) -> list[Prediction]:
        """One prediction for each image of `batch`."""
        return [self._one(batch.select(i, i + 1)) for i in range(len(batch))]

    def _one(self, batch: Batch) -> Prediction:
        meta = batch.metas[0]
        if meta.video is None:
            return self.model.predictions(self.model(batch), batch)[0]
        frame = self._frame + 1 if meta.frame is None else meta.frame
        if self._state is None or meta.video != self._video or frame <= self._frame:
            self._state = self.model.start()
        prediction, self._state = self.model.step(batch, self._state)
        self._video, self._frame = meta.video, frame
        return prediction


def follower(model: Model) -> Follower | None:
    """A `Follower` where `model` can follow videos, else None."""
    return Follower(model) if isinstance(model, VideoModel) else None
