"""Bare frames and videos as a data set without labels."""
from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data.contract import Dataset
from saccade.data.formats.frames import Frames
from saccade.data.inspection import inspect
from saccade.data.loading import Loader
from saccade.data.media import VideoReader, VideoWriter
from saccade.errors import DataError

DEMO = Path(__file__).resolve().parents[4] / "shared/data/demo/videos"


def write_video(path: Path, frames: int = 30) -> None:
    ramp = np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)
    with VideoWriter(path, Fraction(10)) as writer:
        for number in range(frames):
            writer.write(np.stack([np.roll(ramp, number * 3, 1), np.full_like(ramp, 8 * (number % 32)), ramp], 2))


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(folder / f"frame{number}.png")


def test_a_folder_of_pictures_is_one_video_in_the_order_of_numbers(tmp_path: Path) -> None:
    write_pictures(tmp_path / "street", 12)
    frames = Frames(root=tmp_path / "street", classes=["car"])
    assert isinstance(frames, Dataset) and len(frames) == 12 and [v.name for v in frames.videos] == ["street"]
    assert [int(frames[i].image[0, 0, 0]) for i in range(12)] == list(range(1, 13))
    assert frames[9].meta.frame == 9 and frames[9].meta.video == "street" and frames.item_id(9) == "frame10.png"
    assert frames[0].boxes is None and frames.annotations(0).boxes is None and frames.classes == ("car",)


def test_folders_and_videos_below_the_root_are_videos_each(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 2)
    write_pictures(tmp_path / "deep/b", 3)
    write_video(tmp_path / "c.mp4", 5)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    frames = Frames(root=tmp_path)
    assert {v.name: len(v.frames) for v in frames.videos} == {"a": 2, "c.mp4": 5, "deep/b": 3}
    assert frames.item_id(2) == "c.mp4#0" and frames.image_path(2) is None and frames[2].size == (64, 96)
    assert [p.where for p in frames.problems] == ["broken.mp4"]
    assert inspect(frames).num_images == 10
    with pytest.raises(IndexError):
        frames[10]


def test_frames_of_a_video_are_the_same_in_any_order(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    in_order = [torch.from_numpy(frame).permute(2, 0, 1) for frame in VideoReader(tmp_path / "v.mp4")]
    frames = Frames(root=tmp_path / "v.mp4")
    assert len(frames) == len(in_order) == 30 and frames.videos[0].frame_rate == 10
    for index in (0, 1, 2, 29, 7, 8, 20, 3, 3):
        assert torch.equal(frames[index].image, in_order[index])


@pytest.mark.skipif(not DEMO.is_dir(), reason="the demo videos are not here")
def test_real_videos_give_what_reading_in_order_gives() -> None:
    for file in sorted(DEMO.glob("*.mp4"))[:2]:
        frames, in_order = Frames(root=file), list(VideoReader(file))
        assert len(frames) == len(in_order)
        for index in (len(frames) - 1, 5, 6, len(frames) // 2):
            assert np.array_equal(frames[index].image.permute(1, 2, 0).numpy(), in_order[index])


def test_workers_read_a_video_that_is_open_already(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 12)
    frames = Frames(root=tmp_path / "v.mp4")
    assert frames[3].meta.frame == 3
    loader = Loader(dataset=frames, batch_size=3, workers=2, training=False)
    assert [meta.frame for batch in loader.batches() for meta in batch.metas] == list(range(12))


def test_a_video_cut_short_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    data = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 3])
    with pytest.raises(DataError, match=r"cut\.mp4"):
        list(Frames(root=tmp_path / "cut.mp4"))


def test_nothing_to_read_is_an_error_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no frames"):
        Frames(root=tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        Frames(root=tmp_path / "missing")
