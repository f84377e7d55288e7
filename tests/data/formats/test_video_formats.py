"""COCO's json with videos, CrowdHuman and Scalabel, and what is written and read again."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from command_line import run
from saccade.data.contract import Dataset
from saccade.data.formats.coco_video import CocoVideo
from saccade.data.formats.crowdhuman import CrowdHuman
from saccade.data.formats.mot import Mot
from saccade.data.formats.scalabel import BDD100K, Scalabel
from saccade.data.formats.tracking_writers import write_coco_video, write_mot
from saccade.data.inspection import inspect
from saccade.data.recognition import candidates, open_dataset, recognise
from saccade.data.town.dataset import Town
from saccade.data.tracking_results import score_results
from saccade.errors import DataError, InputError


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (value, 0, 0)).save(path)


@pytest.fixture(scope="module")
def town() -> Town:
    return Town(split="val", num_videos=2, frames_per_video=4, size=96, masks=False, segmentation=False, panoptic=False)


def video_json(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "categories": [{"id": 3, "name": "car"}, {"id": 1, "name": "pedestrian"}],
        "videos": [{"id": 7, "name": "late", "fps": 10}, {"id": 5, "name": "early"}],
        "images": [{"id": i, "video_id": v, "frame_id": f, "file_name": f"{v}/{f}.png", "height": 48, "width": 64}
                   for i, (v, f) in enumerate([(5, 11), (5, 10), (7, 0), (5, 12)], 1)],
        "annotations": [{"id": n, "image_id": i, "category_id": c, "bbox": [n, 2, 10, 20], "area": 150.0, "iscrowd": 0, "instance_id": t}
                        for n, (i, c, t) in enumerate([(1, 1, 0), (2, 1, 0), (1, 3, 4), (3, 3, 9)], 1)],
    }
    for image in content["images"]:
        picture(folder / f"frames/{image['file_name']}", 10 * image["video_id"] + image["frame_id"])
    (folder / "annotations").mkdir(exist_ok=True)
    file = folder / "annotations/tracks_val.json"
    file.write_text(json.dumps(content | changes))
    return file


def test_frames_come_by_video_in_order_from_zero_with_ids_from_one(tmp_path: Path) -> None:
    video_json(tmp_path)
    data = CocoVideo(root=tmp_path, annotations="annotations/tracks_val.json", images="frames")
    assert isinstance(data, Dataset) and data.classes == ("pedestrian", "car")
    assert [(v.name, v.frames, v.frame_rate) for v in data.videos] == [("late", (0,), 10.0), ("early", (1, 2, 3), None)]
    samples = [data[i] for i in range(4)]
    assert [(s.meta.video, s.meta.frame) for s in samples] == [("late", 0), ("early", 0), ("early", 1), ("early", 2)]
    assert [int(s.image[0, 0, 0]) for s in samples] == [70, 60, 61, 62]
    assert [s.track_ids.tolist() for s in samples] == [[10], [1], [1, 5], []] and samples[2].labels.tolist() == [0, 1]
    assert [p.consequence for p in data.problems if "higher by 1" in p.what] == ["kept"] and data.describe()["tracks"] == 3


def test_only_frames_with_objects_and_only_some_classes(tmp_path: Path) -> None:
    video_json(tmp_path)
    data = CocoVideo(root=tmp_path, annotations="annotations/tracks_val.json", images="frames", keep_empty=False, classes=["car"])
    assert [data.annotations(i).track_ids.tolist() for i in range(len(data))] == [[9], [4]] and data.frame_number(1) == 1


def test_what_is_wrong_in_a_video_file_is_listed(tmp_path: Path) -> None:
    images = [{"id": 1, "video_id": 5, "frame_id": 0, "file_name": "a.png"}, {"id": 2, "video_id": 5, "frame_id": 0, "file_name": "b.png"},
              {"id": 3, "video_id": 99, "frame_id": 0, "file_name": "c.png"}, {"id": 4, "file_name": "d.png"}]
    annotations = [{"id": n, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20], **extra}
                   for n, extra in enumerate([{"instance_id": 3}, {"instance_id": 3}, {}, {"instance_id": "x"}], 1)]
    video_json(tmp_path, images=images, annotations=annotations)
    data = CocoVideo(root=tmp_path, annotations="annotations/tracks_val.json", images="frames")
    assert len(data) == 1 and data.annotations(0).track_ids.tolist() == [3, 3, -1, -1]
    text = " ".join(f"{p.where}: {p.what}" for p in data.problems)
    for part in ("image 2: it is frame 0 of video 5, as is image 1", "image 3: it is frame 0 of video 99", "image 4: it is frame None of video None",
                 "the track 3 is there more than once", "2 of 4 have no instance_id"):
        assert part in text
    video_json(tmp_path, videos=None)
    with pytest.raises(DataError, match="no list of videos"):
        CocoVideo(root=tmp_path, annotations="annotations/tracks_val.json", images="frames")


def test_crowdhuman_has_full_visible_and_head_boxes_and_ignored_people(tmp_path: Path) -> None:
    people = [
        {"tag": "person", "fbox": [-5, 1, 20, 40], "vbox": [0, 1, 15, 40], "hbox": [2, 1, 5, 5], "extra": {"box_id": 0}, "head_attr": {"ignore": 0}},
        {"tag": "person", "fbox": [30, 1, 20, 40], "vbox": [30, 1, 15, 40], "hbox": [32, 1, 5, 5], "extra": {"ignore": 1}},
        {"tag": "mask", "fbox": [0, 0, 60, 10], "vbox": [0, 0, 60, 10], "hbox": [0, 0, 60, 10], "extra": {"ignore": 1}},
        {"tag": "person", "fbox": [0, 0, 0, 10], "vbox": [1, 1, 3, 3], "hbox": [1, 1, 3, 3], "extra": {}},
    ]
    empty = json.dumps({"ID": "b", "gtboxes": []})
    lines = [json.dumps({"ID": "a,1", "gtboxes": people}), "no json", empty, "[]", empty]
    (tmp_path / "annotation_train.odgt").write_text("\n".join(lines))
    for name in ("a,1", "b"):
        picture(tmp_path / f"train/Images/{name}.jpg")
    data = open_dataset(tmp_path)
    assert isinstance(data, CrowdHuman) and len(data) == 2 and recognise(tmp_path / "annotation_train.odgt")[0] == "crowdhuman"
    assert data[0].boxes.tolist() == [[-5, 1, 15, 41], [30, 1, 50, 41], [0, 0, 60, 10]] and data[0].crowd.tolist() == [False, True, True]
    assert [p.where for p in data.problems] == ["line 1, person 3", "line 2", "line 4", "line 5"]
    assert CrowdHuman(root=tmp_path, box="visible", keep_crowd=False).annotations(0).boxes.tolist() == [[0, 1, 15, 41], [1, 1, 4, 4]]
    assert inspect(data).num_crowd == 2
    (tmp_path / "annotation_val.odgt").write_text("{}\n")
    with pytest.raises(DataError, match="no line with an ID"):
        CrowdHuman(root=tmp_path, split="val")


def scalabel_frames(video: str, count: int = 3) -> list[dict[str, Any]]:
    def label(track: str, category: str, x: float, **attributes: bool) -> dict[str, Any]:
        return {"id": track, "category": category, "attributes": attributes, "box2d": {"x1": x, "y1": 2, "x2": x + 9, "y2": 21}}

    return [{
        "name": f"{video}-{n + 1:07d}.jpg", "videoName": video, "frameIndex": n, "attributes": {"timeofday": "night" if video == "b" else "daytime"},
        "labels": [label("17", "person", 1 + n), label("4", "van", 20), label("8", "other person", 40), label("9", "bus", 50, crowd=True),
                   label("10", "traffic light", 30)],
    } for n in range(count)]


def test_scalabel_names_ids_and_crowds(tmp_path: Path) -> None:
    for video in ("a", "b"):
        (tmp_path / "labels/box_track_20/val").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"labels/box_track_20/val/{video}.json").write_text(json.dumps(scalabel_frames(video)[::-1]))
        for n in range(3):
            picture(tmp_path / f"images/track/val/{video}/{video}-{n + 1:07d}.jpg", n)
    assert recognise(tmp_path) == ("scalabel", {"root": str(tmp_path), "annotations": "labels/box_track_20/val", "images": "images/track/val"})
    data = open_dataset(tmp_path)
    assert isinstance(data, Scalabel) and data.classes == BDD100K and len(data) == 6 and [v.name for v in data.videos] == ["a", "b"]
    sample = data[1]
    assert sample.meta.video == "a" and sample.meta.frame == 1 and sample.boxes[0].tolist() == [2, 2, 12, 22]
    assert [data.classes[k] for k in sample.labels.tolist()] == ["pedestrian", "car", "pedestrian", "bus"]
    assert sample.crowd.tolist() == [False, False, True, True] and sample.track_ids.tolist() == [1, 2, 3, 4]
    shift = Scalabel(root=tmp_path, annotations="labels/box_track_20/val", images="images/track/val", classes="shift", where={"timeofday": ["night"]},
                     keep_crowd=False)
    assert [v.name for v in shift.videos] == ["b"] and shift.annotations(0).labels.tolist() == [0, 1] and not inspect(shift).num_crowd
    with pytest.raises(InputError, match="bdd100k, shift"):
        Scalabel(root=tmp_path, annotations="labels", classes="bdd")


def test_scalabel_of_one_file_still_images_and_what_is_wrong(tmp_path: Path) -> None:
    frames = scalabel_frames("v", 2)
    frames += [{**frames[1], "name": "again.jpg"}, {"videoName": "v"}, {"name": "still.jpg", "labels": None}]
    frames[0]["labels"] += [{"id": "17", "category": "person", "box2d": {"x1": 1, "y1": 1, "x2": 5, "y2": 5}}, "text",
                            {"id": "3", "category": "car", "box2d": {"x1": 5, "y1": 1, "x2": 2, "y2": 5}}, {"category": "car", "box2d": {"x1": None}}]
    (tmp_path / "det_2d.json").write_text(json.dumps({"frames": frames, "config": {}}))
    data = open_dataset(tmp_path / "det_2d.json")
    assert isinstance(data, Scalabel) and len(data) == 3 and data.item_id(0) == "still.jpg" and data.videos[0].frames == (1, 2)
    assert len(data.problems) == 6 and data.annotations(0).track_ids.tolist() == []
    (tmp_path / "other.json").write_text('{"frames": 3}')
    with pytest.raises(DataError, match="no Scalabel file"):
        Scalabel(root=tmp_path, annotations="other.json")


def assert_same_frames(one: Dataset, other: Dataset, labels: dict[int, int]) -> None:
    assert len(one) == len(other) and [len(v.frames) for v in one.videos] == [len(v.frames) for v in other.videos]
    partners: dict[tuple[str | None, int], int] = {}
    for i in range(len(one)):
        a, b = one[i], other[i]
        assert torch.equal(a.image, b.image) and (a.meta.video, a.meta.frame) == (b.meta.video, b.meta.frame)
        rows = [(t, labels[k], box) for t, k, box in zip(a.track_ids.tolist(), a.labels.tolist(), a.boxes.tolist(), strict=True) if k in labels]
        found = sorted(zip(b.track_ids.tolist(), b.labels.tolist(), b.boxes.tolist(), strict=True), key=lambda row: row[2])
        for (track, label, box), (own, kind, other_box) in zip(sorted(rows, key=lambda row: row[2]), found, strict=True):
            assert label == kind and box == pytest.approx(other_box, abs=1e-3)
            assert partners.setdefault((a.meta.video, track), own) == own, "a track is one track after reading"


def test_written_videos_are_read_as_the_same_videos(town: Town, tmp_path: Path) -> None:
    written = write_coco_video(town, tmp_path / "coco", split="val")
    again = open_dataset(tmp_path / "coco")
    assert isinstance(again, CocoVideo) and written.images == 8
    assert_same_frames(town, again, {k: k for k in range(len(town.classes))})
    assert [name for name, _ in candidates(tmp_path / "coco")] == ["coco_video", "coco"]
    written = write_mot(town, tmp_path / "mot", split="val", frame_rates={"val_0000": 10.0})
    mot = open_dataset(tmp_path / "mot", split="val")
    assert isinstance(mot, Mot) and mot.videos[0].frame_rate == 10 and not mot.problems
    assert_same_frames(town, mot, {town.classes.index("person"): 0})
    dogs = sum(int((town.annotations(i).labels == town.classes.index("dog")).sum()) for i in range(8))
    kept = {"person", "car", "bicycle"}
    others = sum(int(sum(town.classes[k] not in kept for k in town.annotations(i).labels.tolist())) for i in range(8))
    assert written.left_out == others >= dogs


def test_still_images_and_objects_without_ids_do_not_fit(town: Town, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="belongs to no video"):
        write_mot(Town(num_videos=2, frames_per_video=1, size=64, masks=False), tmp_path / "a")
    sample = town[0]
    sample.track_ids = None
    with pytest.raises(InputError, match="no track ids"):
        write_coco_video([sample], tmp_path / "b", classes=town.classes)
    with pytest.raises(InputError, match="one after another"):
        write_mot([town[0], town[4], town[1]], tmp_path / "c", classes=town.classes)
    assert not list(tmp_path.iterdir())


def test_the_command_line_makes_converts_and_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "make", "town", "--out", str(tmp_path / "town"), "--format", "coco_video", "--frames", "3", "--videos", "2", "--size", "64",
               "--split", "val") == 0
    assert run("data", "convert", str(tmp_path / "town"), "--to", "mot", "--out", str(tmp_path / "mot")) == 0
    data = open_dataset(tmp_path / "town")
    (tmp_path / "results").mkdir()
    for video in data.videos:
        lines = []
        for index in video.frames:
            known = data.annotations(index)
            for track, (x1, y1, x2, y2), label in zip(known.track_ids.tolist(), known.boxes.tolist(), known.labels.tolist(), strict=True):
                lines.append(f"{data.frame_number(index) + 1},{track},{x1},{y1},{x2 - x1},{y2 - y1},0.9,{label + 1},-1,-1\n")
        (tmp_path / f"results/{video.name}.txt").write_text("".join(lines))
    figures = score_results(data, tmp_path / "results").figures()
    assert figures["mot/HOTA"] == pytest.approx(1) and figures["mot/class_average/MOTA"] == pytest.approx(1)
    assert run("evaluate", "--results", str(tmp_path / "results"), "--data", str(tmp_path / "town"), "--out", str(tmp_path)) == 0
    assert "100.00" in capsys.readouterr().out
    assert json.loads((tmp_path / "evaluation/town/figures.json").read_text())["mot/HOTA"] == pytest.approx(1)
    assert run("evaluate", "--results", str(tmp_path / "results")) == 2
    assert run("evaluate", "x", "--results", str(tmp_path / "results"), "--data", str(tmp_path / "town")) == 2
