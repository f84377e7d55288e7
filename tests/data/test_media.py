"""Inputs are found whatever they are called; videos come out as they went in."""
from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from saccade.data.media import VideoReader, VideoWriter, find_media
from saccade.errors import DataError, InputError


def save_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 24), (200, 30, 30)).save(path)
    return path


def write_video(path: Path, frames: int = 7, size: tuple[int, int] = (48, 64), rate: Fraction = Fraction(30000, 1001)) -> Path:
    with VideoWriter(path, rate) as writer:
        for i in range(frames):
            frame = np.zeros((*size, 3), dtype=np.uint8)
            frame[: size[0] // 2] = 30 * i
            frame[:, : size[1] // 4] = (220, 20, 20)
            writer.write(frame)
    return path


def test_folders_are_searched_through_in_order_and_other_files_left_out(tmp_path: Path) -> None:
    for name in ("b/z.JPG", "a.png", "b/c/d.jpeg", ".hidden.png"):
        save_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    found = find_media([tmp_path])
    assert [m.name for m in found] == ["a.png", "b/c/d.jpeg", "b/z.JPG", "clip.mp4"]
    assert [m.kind for m in found] == ["image", "image", "image", "video"]


def test_patterns_and_repeated_names_give_each_file_once(tmp_path: Path) -> None:
    one = save_image(tmp_path / "x" / "1.jpg")
    save_image(tmp_path / "y" / "2.jpg")
    assert len(find_media([str(tmp_path / "**" / "*.jpg"), one, tmp_path])) == 2


def test_names_with_pattern_letters_and_spaces_are_files_first(tmp_path: Path) -> None:
    for name in ("a[1].jpg", "what? *.jpg", "-rf.jpg", "ünïcode 日本.jpg", "new\nline.jpg"):
        assert find_media([save_image(tmp_path / name)])[0].path == tmp_path / name


def test_results_inside_a_searched_folder_are_no_inputs_but_a_folder_inside_results_is(tmp_path: Path) -> None:
    save_image(tmp_path / "a.jpg")
    save_image(tmp_path / "out" / "a.jpg")
    assert [m.name for m in find_media([tmp_path], leave_out=tmp_path / "out")] == ["a.jpg"]
    assert [m.name for m in find_media([tmp_path / "out"], leave_out=tmp_path)] == ["a.jpg"]


@pytest.mark.parametrize("given", ["missing.jpg", "missing_*.jpg", "empty"])
def test_an_input_that_gives_nothing_is_refused_by_name(tmp_path: Path, given: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=given.split("_")[0].split(".")[0]):
        find_media([tmp_path / given])


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(10)])
def test_a_written_video_has_the_frames_and_the_rate_that_it_was_given(tmp_path: Path, rate: Fraction) -> None:
    reader = VideoReader(write_video(tmp_path / "clip.mp4", frames=9, rate=rate))
    frames = list(reader)
    assert len(frames) == 9 and reader.frame_rate == rate and reader.size == (48, 64) and reader.length == 9
    assert frames[0].shape == (48, 64, 3) and frames[0].dtype == np.uint8
    assert frames[8][10, 40].mean() == pytest.approx(240, abs=12) and frames[8][40, 40].mean() == pytest.approx(0, abs=12)
    red, green, _ = frames[4][24, 6].astype(int)
    assert red > green + 100


def test_odd_sizes_are_written_too(tmp_path: Path) -> None:
    reader = VideoReader(write_video(tmp_path / "odd.mp4", size=(45, 63)))
    assert reader.size == (46, 64)


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    assert len(list(VideoReader(write_video(tmp_path / "one.mp4", frames=1)))) == 1


def test_a_turned_video_is_read_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "flat.mp4")
    turned = tmp_path / "turned.mp4"
    with av.open(str(path)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    reader = VideoReader(turned)
    frame = next(iter(reader))
    assert reader.size == (64, 48) and frame.shape == (64, 48, 3)
    red, green, _ = frame[-6, 20].astype(int)  # the red left side, turned counter-clockwise, is below
    assert red > green + 100


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 100])
def test_what_is_no_video_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.mp4"):
        VideoReader(tmp_path / "bad.mp4")


def test_a_video_that_is_cut_short_gives_the_frames_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "long.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(40):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (48, 64, 3), dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert 5 < len(list(VideoReader(path))) < 40


def test_a_video_that_fails_to_be_made_leaves_nothing(tmp_path: Path) -> None:
    def write(sizes: list[int]) -> None:
        with VideoWriter(tmp_path / "x.mp4", Fraction(25)) as writer:
            for size in sizes:
                writer.write(np.zeros((size, 32, 3), dtype=np.uint8))

    with pytest.raises(ValueError, match="frame 1"):
        write([32, 64])
    assert list(tmp_path.iterdir()) == []
