"""`saccade track` on files as they come: MOT text, folders of sequences, COCO results; what is wrong in them is named."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import run
from saccade.data.media import VideoReader
from saccade.metrics.mot.files import read_table
from saccade.tracking.byte_track import ByteTrack
from tracking import scenes


def lines(frames: list[np.ndarray]) -> list[str]:
    """A det.txt of frames (n, 5)."""
    return [f"{i},-1,{x1:.4f},{y1:.4f},{x2 - x1:.4f},{y2 - y1:.4f},{s:.4f},-1,-1,-1" for i, f in enumerate(frames, 1) for x1, y1, x2, y2, s in f]


def sequence(folder: Path, seed: int = 0, frames: int = 40) -> Path:
    """A MOTChallenge folder with detections alone."""
    (folder / "det").mkdir(parents=True)
    (folder / "det" / "det.txt").write_text("\n".join(lines([f["dets"] for f in scenes.walk(seed, frames)])) + "\n")
    return folder


def test_a_det_file_becomes_a_result_file_of_its_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = sequence(tmp_path / "STREET-01")
    assert run("track", place / "det" / "det.txt", "--tracker", "bytetrack", "--out", tmp_path / "out") == 0
    assert "STREET-01" in capsys.readouterr().out
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["STREET-01.txt"]
    table, given, tracker = read_table(tmp_path / "out" / "STREET-01.txt"), read_table(place / "det" / "det.txt"), ByteTrack()
    for number in range(1, 41):
        here = given.take(given.frame == number)
        found = tracker.update(scenes.detections(np.concatenate([here.boxes, here.scores[:, None]], 1)), number - 1)
        mine = table.take(table.frame == number)
        assert mine.ids.tolist() == found.track_ids.tolist()
        np.testing.assert_allclose(mine.boxes, found.boxes.numpy(), atol=2e-3)
    assert table.ids.min() == 1 and (table.classes == -1).all()


def test_every_sequence_of_a_folder_has_its_file(tmp_path: Path) -> None:
    for seed, name in enumerate(("train/A", "train/B", "test/C")):
        sequence(tmp_path / "data" / name, seed)
    assert run("track", tmp_path / "data", "--out", tmp_path / "out") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["A.txt", "B.txt", "C.txt"]
    assert run("track", tmp_path / "out", "--out", tmp_path / "again", "--tracker", "sort:score_threshold=null,min_hits=0") == 0
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == ["A.txt", "B.txt", "C.txt"]


def test_the_order_of_lines_is_free_and_blank_ones_are_passed_over(tmp_path: Path) -> None:
    file = sequence(tmp_path / "a") / "det" / "det.txt"
    rows = file.read_text().splitlines()
    by_frame = [[row for row in rows if row.startswith(f"{frame},")] for frame in range(1, 41)]
    (tmp_path / "b" / "det").mkdir(parents=True)
    (tmp_path / "b" / "det" / "det.txt").write_text("\n\n".join(row for frame in reversed(by_frame) for row in frame))
    assert run("track", tmp_path / "a", "--out", tmp_path / "out") == run("track", tmp_path / "b", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "a.txt").read_text() == (tmp_path / "out" / "b.txt").read_text()


BROKEN_LINES = ["3,-1,10,10", "3,-1,10,x,5,5,1", "3,-1,10,nan,5,5,1", "0,-1,10,10,5,5,1", "3,-1,10,10,5,5,nan", "3,-1,10,10,5,5,inf"]


@pytest.mark.parametrize("line", BROKEN_LINES)
def test_a_wrong_line_is_named_with_its_file(tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.txt").write_text(f"1,-1,10,10,5,5,1\n2,-1,10,10,5,5,1\n{line}\n")
    assert run("track", tmp_path / "x.txt", "--out", tmp_path / "out") == 3
    told = capsys.readouterr().err
    assert "x.txt, line 3" in told and not (tmp_path / "out" / "x.txt").exists()


def test_a_file_without_detections_gives_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    assert run("track", tmp_path / "x.txt", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "x.txt").read_text() == ""


def test_scores_beyond_one_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.txt").write_text("1,-1,10,10,5,5,37.5\n2,-1,10,10,5,5,-0.5\n")
    assert run("track", tmp_path / "x.txt", "--out", tmp_path / "out") == 0
    assert "-0.5..37.5" in capsys.readouterr().err


MISTAKES = {
    "--tracker sorted": "Did you mean sort?", "--tracker sort:patience=3": "unknown key", "--tracker sort:min_hits=many": "min_hits",
    "--tracker sort:min_hits": "key=value", "--images x.json": "COCO", "--video": "img1", "--tracker quasidense": "embeddings",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_what_can_not_be_is_the_users_mistake(tmp_path: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.txt").write_text("1,-1,10,10,5,5,1\n")
    assert run("track", tmp_path / "x.txt", "--out", tmp_path / "out", *words.split()) == 2
    assert MISTAKES[words] in capsys.readouterr().err


def test_nothing_to_track_is_the_users_mistake(tmp_path: Path) -> None:
    assert run("track", tmp_path / "missing.txt", "--out", tmp_path / "out") == 2
    assert run("track", tmp_path, "--out", tmp_path / "out") == 2


def coco(folder: Path) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Results for two videos: in the first a person and a car (which the person passes), each with a frame missed; in the second a person."""
    images = [{"id": 10 * v + t, "video_id": v, "frame_id": t, "file_name": f"{v}/{t}.jpg"} for v in (1, 2) for t in range(8)]
    known = {
        "images": images, "videos": [{"id": 1, "name": "first"}, {"id": 2, "name": "second"}],
        "categories": [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}],
    }
    rows: list[dict[str, object]] = []
    for t in range(8):
        rows += [{"image_id": 10 + t, "category_id": 1, "bbox": [10 + 2 * t, 20, 30, 60], "score": 0.9}] * (t != 5)
        rows += [{"image_id": 10 + t, "category_id": 3, "bbox": [12, 22, 30, 60], "score": 0.8}] * (t != 3)
        rows += [{"image_id": 20 + t, "category_id": 1, "bbox": [90, 20, 30, 60], "score": 0.9}]
    return rows, known


def test_coco_results_are_tracked_video_by_video_and_class_by_class(tmp_path: Path) -> None:
    rows, known = coco(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps(rows[::-1]))
    (tmp_path / "known.json").write_text(json.dumps(known))
    words = ("track", tmp_path / "results.json", "--images", tmp_path / "known.json", "--tracker", "ocsort:min_hits=0", "--out", tmp_path / "out")
    assert run(*words) == 0
    first, second = (read_table(tmp_path / "out" / f"{name}.txt") for name in ("first", "second"))
    assert {(int(i), int(c)) for i, c in zip(first.ids, first.classes, strict=True)} in ({(1, 1), (2, 2)}, {(1, 2), (2, 1)})
    assert len(first) == 14 and second.ids.tolist() == [1] * 8 and (second.classes == 1).all()
    tracks = json.loads((tmp_path / "out" / "tracks.json").read_text())
    assert len(tracks) == 22
    assert {row["category_id"] for row in tracks if row["image_id"] == 10} == {1, 3}


BROKEN_ROWS: dict[str, dict[str, object]] = {
    "image": {"image_id": 99}, "category": {"category_id": "person"}, "box": {"bbox": [1, 2, 3]}, "bbox": {"bbox": [1, 2, None, 3]},
    "finite": {"score": float("inf")},
}


@pytest.mark.parametrize("what", BROKEN_ROWS)
def test_a_wrong_coco_entry_is_named(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows, known = coco(tmp_path)
    rows[4] = rows[4] | BROKEN_ROWS[what]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    (tmp_path / "images.json").write_text(json.dumps(known))
    assert run("track", tmp_path / "results.json", "--out", tmp_path / "out") == 3
    assert "results.json, entry 4" in capsys.readouterr().err


def test_coco_results_without_their_images_say_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text("[]")
    assert run("track", tmp_path / "results.json", "--out", tmp_path / "out") == 3
    assert "--images" in capsys.readouterr().err
    (tmp_path / "images.json").write_text("[1, 2")
    assert run("track", tmp_path / "results.json", "--out", tmp_path / "out") == 3
    assert "images.json can't be read" in capsys.readouterr().err


def test_tracks_are_drawn_on_the_pictures_of_a_sequence(tmp_path: Path) -> None:
    folder = tmp_path / "S"
    (folder / "det").mkdir(parents=True)
    (folder / "img1").mkdir()
    boxes = [np.array([[10.0 + 4 * t, 20, 40 + 4 * t, 80, 0.9]]) for t in range(12)]
    (folder / "det" / "det.txt").write_text("\n".join(lines(boxes)))
    (folder / "seqinfo.ini").write_text("[Sequence]\nname=S\nimDir=img1\nframeRate=12\nseqLength=12\nimWidth=480\nimHeight=120\nimExt=.png\n")
    for t in range(12):
        Image.new("RGB", (480, 120), (60, 60, 60)).save(folder / "img1" / f"{t + 1:06d}.png")
    assert run("track", folder, "--video", "--out", tmp_path / "out", "--tracker", "sort:min_hits=0") == 0
    reader = VideoReader(tmp_path / "out" / "S.mp4")
    frames = list(reader)
    assert len(frames) == 12 and reader.frame_rate == 12
    tail = frames[-1][78:83, 26:40].astype(int)  # left of the last box, on the way that its feet came
    assert (np.abs(tail - 60).max(-1) > 40).any() and np.abs(frames[0][78:83, 46:60].astype(int) - 60).max() < 40
