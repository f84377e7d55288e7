"""Tails of tracks, and tracking while predicting."""
from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import run
from saccade.data.media import VideoReader, VideoWriter, find_media
from saccade.errors import InputError
from saccade.metrics.mot.files import read_table
from saccade.models.contract import Model, VideoModel
from saccade.report.media_prediction import predict_media
from saccade.report.trails import Trails
from saccade.structures import Batch, Classification, Detections, Outputs, Prediction
from saccade.tracking.sort import SORT


def at(x: float, track: int = 1) -> Detections:
    box = torch.tensor([[x, 100.0, x + 40, 200]])
    return Detections(box, torch.ones(1), torch.zeros(1, dtype=torch.int64), track_ids=torch.tensor([track]))


def test_a_tail_follows_the_feet_and_ends_after_its_length() -> None:
    trails, black = Trails(length=10), np.zeros((300, 600, 3), dtype=np.uint8)
    for t in range(30):
        trails.add(at(10.0 + 10 * t))
    drawn = trails.draw(black, 300, 600)
    columns = np.flatnonzero(drawn.any((0, 2)))
    rows = np.flatnonzero(drawn.any((1, 2)))
    assert abs(columns.max() - 320) <= 3 and abs(columns.min() - 230) <= 3 and rows.min() > 190 and rows.max() < 210
    assert not black.any()


def test_tracks_that_are_gone_are_forgotten() -> None:
    trails = Trails(length=10)
    for t in range(500):
        trails.add(at(10.0, track=t))
    assert len(trails._points) == 10


def moving(frames: int, width: int = 128, height: int = 96) -> list[np.ndarray]:
    """A bright block that moves to the right by four pixels a frame."""
    pictures = []
    for t in range(frames):
        picture = np.zeros((height, width, 3), dtype=np.uint8)
        picture[24:56, 8 + 4 * t : 40 + 4 * t] = 255
        pictures.append(picture)
    return pictures


def video(path: Path, frames: int = 12) -> Path:
    with VideoWriter(path, Fraction(10)) as writer:
        for picture in moving(frames):
            writer.write(picture)
    return path


def test_a_tracked_video_has_ids_in_all_that_is_written(detector: Model, tmp_path: Path) -> None:
    media = find_media([video(tmp_path / "a.mp4"), video(tmp_path / "b.mp4", 6)])
    predict_media(detector, media, tmp_path / "out", tracker=SORT(min_hits=0))
    first, second = (read_table(tmp_path / "out" / f"{name}.txt") for name in "ab")
    assert first.frame.tolist() == list(range(1, 13)) and second.frame.tolist() == list(range(1, 7))
    assert set(first.ids) == set(second.ids) == {1}  # the next video begins anew
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(rows) == 18 and {row["track_id"] for row in rows} == {1}
    frames = list(VideoReader(tmp_path / "out" / "a.mp4"))
    factor = frames[0].shape[1] // 128
    feet = frames[-1][55 * factor : 58 * factor, 30 * factor : 50 * factor].astype(int)
    assert feet.max() > 100  # the tail lies on the black ground behind the block


def test_images_of_a_folder_are_frames_in_the_order_of_their_numbers(detector: Model, tmp_path: Path) -> None:
    for place in ("one/img1", "two"):
        (tmp_path / place).mkdir(parents=True)
        for t, picture in enumerate(moving(12), start=1):
            if t != 7:
                Image.fromarray(picture).save(tmp_path / place / f"{t}.png")
    (tmp_path / "two" / "7.png").write_bytes(b"broken")
    predict_media(detector, find_media([tmp_path]), tmp_path / "out", tracker=SORT(min_hits=0, retain_frames=1), pictures=False)
    one, two = (read_table(tmp_path / "out" / f"{name}.txt") for name in ("one", "two"))
    assert set(one.ids) == set(two.ids) == {1}
    assert one.frame.tolist() == list(range(1, 12)) and two.frame.tolist() == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]
    assert (np.diff(one.boxes[:, 0]) > 0).all()


def test_results_of_predict_can_be_tracked_afterwards(detector: Model, tmp_path: Path) -> None:
    media = find_media([video(tmp_path / "a.mp4")])
    predict_media(detector, media, tmp_path / "found", pictures=False, score_threshold=0.1)
    predict_media(detector, media, tmp_path / "out", pictures=False, score_threshold=0.1, tracker=SORT(min_hits=0))
    assert run("track", tmp_path / "found" / "predictions.json", "--tracker", "sort:min_hits=0", "--out", tmp_path / "later") == 0
    now, later = (read_table(tmp_path / place / "a.txt") for place in ("out", "later"))
    assert now.ids.tolist() == later.ids.tolist()
    np.testing.assert_allclose(now.boxes, later.boxes, atol=0.01)


class Following(VideoModel):
    """The small detector, which follows what it finds by itself; every score is made lower than what single images need."""

    def __init__(self, inner: Model) -> None:
        super().__init__(inner.classes, inner.pixel_norm)
        self.inner = inner
        self.evaluation_transforms = getattr(inner, "evaluation_transforms", [])

    def forward(self, batch: Batch) -> Outputs:
        return self.inner(batch)

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        return [replace(found, scores=found.scores * 0.4) for found in self.inner.predictions(outputs, batch)]

    def start(self) -> SORT:
        return SORT(min_hits=0, score_threshold=None)

    def step(self, batch: Batch, state: SORT) -> tuple[Prediction, SORT]:
        (found,) = self.predictions(self(batch), batch)
        return state.update(found, batch.metas[0].frame), state


def test_a_model_that_tracks_by_itself_keeps_what_it_tracks(detector: Model, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for t, picture in enumerate(moving(5)):
        Image.fromarray(picture).save(tmp_path / "images" / f"{t}.png")
    model, media = Following(detector), find_media([video(tmp_path / "a.mp4", 6), tmp_path / "images"])
    predict_media(model, media, tmp_path / "out", frames=True, pictures=False)
    assert read_table(tmp_path / "out" / "a.txt").ids.tolist() == [1] * 6
    assert read_table(tmp_path / "out" / "images.txt").ids.tolist() == [1] * 5
    predict_media(model, media, tmp_path / "single", pictures=False)
    assert [row["file_name"] for row in json.loads((tmp_path / "single" / "predictions.json").read_text())] == ["a.mp4"] * 6
    predict_media(model, media, tmp_path / "other", tracker=SORT(min_hits=0, score_threshold=0.5), pictures=False)
    assert (tmp_path / "other" / "a.txt").read_text() == ""  # another tracker takes the place of the model's own


def test_a_model_that_finds_no_objects_can_not_be_tracked(detector: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(detector), "predictions", lambda self, outputs, batch: [Classification(torch.tensor([1.0]))] * len(batch))
    with pytest.raises(InputError, match="Classification"):
        predict_media(detector, find_media([video(tmp_path / "a.mp4", 2)]), tmp_path / "out", tracker=SORT())
