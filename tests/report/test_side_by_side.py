"""Truth, before and after in one video: three panels of the same frames, ids that begin anew with each video, memory that does not grow."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data.contract import Video
from saccade.data.media import VideoReader
from saccade.data.town.dataset import Town
from saccade.errors import InputError
from saccade.layers.pixels import PixelNorm
from saccade.models.contract import Model, VideoModel
from saccade.report.drawing import draw_tracks, enlargement
from saccade.report.side_by_side import _truth, write_side_by_side
from saccade.structures import Annotations, Batch, Detections, Outputs, Prediction, Sample, make_sample

SIZE = (96, 128)


class Block:
    """Two videos of a bright block that moves to the right by four pixels a frame; the truth calls it 70 in the first and 90 in the second."""

    name, classes = "block", ("thing",)

    def __init__(self, frames: int = 10) -> None:
        self.frames = frames
        self.videos = [Video(f"video{v}", tuple(range(v * frames, (v + 1) * frames)), 5.0) for v in range(2)]

    def __len__(self) -> int:
        return 2 * self.frames

    def __getitem__(self, index: int) -> Sample:
        video, t = divmod(index, self.frames)
        image = torch.zeros(3, *SIZE, dtype=torch.uint8)
        image[:, 24:56, 8 + 4 * t : 40 + 4 * t] = 255
        return make_sample(image, self.annotations(index), id=index, video=f"video{video}", frame=t)

    def annotations(self, index: int) -> Annotations:
        video, t = divmod(index, self.frames)
        box = torch.tensor([[8.0 + 4 * t, 24, 40 + 4 * t, 56]])
        return Annotations(boxes=box, labels=torch.tensor([0]), track_ids=torch.tensor([70 + 20 * video]))

    def item_id(self, index: int) -> str:
        return str(index)

    def describe(self) -> dict[str, object]:
        return {}


class Follows(VideoModel):
    """Sees the bright block where `sees` is true; gives it the number of frames seen so far, so that a state that is not renewed shows."""

    def __init__(self, sees: bool = True) -> None:
        super().__init__(("thing",), PixelNorm())
        self.weight, self.sees = torch.nn.Parameter(torch.zeros(1)), sees
        self.seen: list[tuple[str | None, int]] = []

    def start(self) -> int:
        return 0

    def step(self, batch: Batch, state: int) -> tuple[Prediction, int]:
        self.seen.append((batch.metas[0].video, state))
        assert all(target.boxes is None and target.track_ids is None for target in batch.targets)
        rows, columns = (batch.images[0, 0] > 127).nonzero(as_tuple=True)
        box = torch.tensor([[float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1]])
        found = Detections(box, torch.tensor([0.9]), torch.tensor([0]), track_ids=torch.tensor([1]))
        return found if self.sees else found[:0], state + 1



def panels(frame: np.ndarray, factor: int) -> list[np.ndarray]:
    """The three pictures of a frame, without their titles."""
    width, height = SIZE[1] * factor, SIZE[0] * factor
    return [frame[-height:, k * (width + 6) : k * (width + 6) + width].astype(int) for k in range(3)]


def colourful(picture: np.ndarray) -> np.ndarray:
    """Pixels that are drawn: the frames themselves are black and white."""
    return (picture.max(2) - picture.min(2)) > 40


def test_the_three_panels_show_truth_and_what_each_model_tracks(tmp_path: Path) -> None:
    blind, seeing = Follows(sees=False), Follows()
    path = write_side_by_side(Block(), blind, seeing, tmp_path / "new" / "video.mp4")
    reader = VideoReader(path)
    frames = list(reader)
    assert len(frames) == 20 and reader.frame_rate == 5
    factor = enlargement(*SIZE)
    truth, before, after = (colourful(p) for p in panels(frames[8], factor))
    assert not before.any() and truth.sum() > 500 and abs(int(truth.sum()) - int(after.sum())) < 0.1 * truth.sum()
    tail = slice(55 * factor, 58 * factor), slice(26 * factor, 38 * factor)  # behind the block's feet, left of it
    assert truth[tail].any() and after[tail].any()
    first_of_second = colourful(panels(frames[10], factor)[2])
    assert not first_of_second[:, 45 * factor :].any()  # no tail reaches from one video into the next
    assert seeing.seen == blind.seen == [(f"video{v}", t) for v in range(2) for t in range(10)]


def test_one_frame_lies_beside_the_video_as_a_picture(tmp_path: Path) -> None:
    path = write_side_by_side(Block(), Follows(), Follows(), tmp_path / "video.mp4", videos=1)
    frames = list(VideoReader(path))
    assert len(frames) == 10
    picture = np.asarray(Image.open(tmp_path / "video.jpg")).astype(int)
    differences = [np.abs(picture - frame[: picture.shape[0], : picture.shape[1]]).mean() for frame in frames]
    assert int(np.argmin(differences)) == 6


def test_the_truth_counts_its_ids_from_one_in_each_video() -> None:
    see, data = _truth(), Block()
    assert [see(data[i]).track_ids.tolist() for i in (0, 5, 10, 19)] == [[1]] * 4  # type: ignore[union-attr]
    two = Annotations(boxes=torch.rand(2, 4), labels=torch.tensor([0, 0]), track_ids=torch.tensor([500, 90]))
    assert see(make_sample(data[10].image, two, video="video1", frame=1)).track_ids.tolist() == [2, 1]  # type: ignore[union-attr]
    assert see(replace(data[0], boxes=None)).boxes.shape == (0, 4)


def test_models_without_tracks_show_what_they_are_sure_of(detector: Model, tmp_path: Path) -> None:
    class Unsure(type(detector)):  # type: ignore[misc]
        def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
            return [replace(found, scores=found.scores * 0.5) for found in super().predictions(outputs, batch)]

    path = write_side_by_side(Block(frames=2), Unsure().eval(), detector, tmp_path / "video.mp4", videos=1)
    _, unsure, sure = (colourful(p) for p in panels(next(iter(VideoReader(path))), enlargement(*SIZE)))
    assert not unsure.any() and sure.any()


def test_what_can_not_be_shown_is_named(classifier: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no videos"):
        write_side_by_side(Town(num_videos=2, frames_per_video=1), classifier, classifier, tmp_path / "video.mp4")
    with pytest.raises(InputError, match="BrightnessClassifier finds no objects"):
        write_side_by_side(Block(), classifier, classifier, tmp_path / "video.mp4")
    assert not list(tmp_path.iterdir())


def test_tracks_are_named_by_id_and_class_in_the_colour_of_their_id() -> None:
    black = np.zeros((480, 640, 3), dtype=np.uint8)
    boxes = torch.tensor([[100.0, 100, 300, 300], [float("nan"), 0, 1, 1]])
    one, two = (Detections(boxes, torch.ones(2), torch.zeros(2, dtype=torch.int64), track_ids=torch.tensor([k, k])) for k in (1, 2))
    first, second = draw_tracks(one, black, ("car",)), draw_tracks(two, black, ("car",))
    assert first.any() and not black.any() and not np.array_equal(first[300, 200], second[300, 200])
    assert not np.array_equal(first, draw_tracks(replace(one, track_ids=None), black, ("car",)))
