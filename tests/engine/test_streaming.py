"""Following videos: one state a video, frames in order, in evaluation and for media."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from saccade.data.contract import Video
from saccade.data.loading import Loader
from saccade.engine.evaluation import evaluate
from saccade.engine.streaming import Follower
from saccade.layers.pixels import PixelNorm
from saccade.models.contract import VideoModel
from saccade.report.prediction import predict_stream
from saccade.structures import Annotations, Batch, Detections, Meta, Prediction, Sample, make_sample


class Counter(VideoModel):
    """Finds one object a frame; its track id says how many frames of the video it has seen before, -1 without a state."""

    def __init__(self) -> None:
        super().__init__(("thing",), PixelNorm())
        self.weight = nn.Parameter(torch.zeros(1))
        self.finished: list[int] = []

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    def predictions(self, outputs: Any, batch: Batch) -> list[Prediction]:
        return [self._found(-1)] * len(batch)

    def start(self) -> int:
        return 0

    def step(self, batch: Batch, state: int) -> tuple[Prediction, int]:
        assert len(batch) == len(batch.metas) == 1
        return self._found(state), state + 1

    @staticmethod
    def _found(number: int) -> Detections:
        return Detections(torch.zeros(1, 4), torch.ones(1), torch.zeros(1, dtype=torch.int64), track_ids=torch.tensor([number]))


class Frames:
    """Two videos whose frames are mixed, and a still image at the end."""

    name, classes = "frames", ("thing",)
    videos = (Video("a", (0, 2, 4)), Video("b", (1, 3)))

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        video = next((v for v in self.videos if index in v.frames), None)
        meta = {} if video is None else {"video": video.name, "frame": video.frames.index(index)}
        return make_sample(torch.zeros(3, 8, 8, dtype=torch.uint8), self.annotations(index), id=index, **meta)

    def annotations(self, index: int) -> Annotations:
        return Annotations()

    def item_id(self, index: int) -> str:
        return str(index)

    def describe(self) -> dict[str, Any]:
        return {}


def test_evaluation_follows_each_video_in_order_whatever_the_batch_size() -> None:
    for size in (1, 2, 6):
        seen: list[tuple[Any, int]] = []

        def note(batch: Batch, predictions: Any, seen: list[tuple[Any, int]] = seen) -> None:
            seen.extend((m.id, int(p.track_ids[0])) for m, p in zip(batch.metas, predictions, strict=True))

        evaluate(Counter(), Loader(dataset=Frames(), batch_size=size, training=False), [], [note])
        assert seen == [(0, 0), (2, 1), (4, 2), (1, 0), (3, 1), (5, -1)]


def test_a_video_that_begins_again_is_followed_anew() -> None:
    follower = Follower(Counter())
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    found = [follower(Batch(images, [], [Meta(video="a", frame=frame)]))[0] for frame in (0, 1, 5, 0, 1)]
    assert [int(p.track_ids[0]) for p in found if isinstance(p, Detections) and p.track_ids is not None] == [0, 1, 2, 0, 1]


def test_a_stream_of_frames_is_one_video() -> None:
    frames = [(i, torch.zeros(3, 8, 8, dtype=torch.uint8)) for i in range(3)]
    found = [p for _, _, p in predict_stream(Counter(), frames, video="street.mp4")]
    assert [int(p.track_ids[0]) for p in found if isinstance(p, Detections) and p.track_ids is not None] == [0, 1, 2]
    alone = [p for _, _, p in predict_stream(Counter(), frames)]
    assert [int(p.track_ids[0]) for p in alone if isinstance(p, Detections) and p.track_ids is not None] == [-1, -1, -1]
