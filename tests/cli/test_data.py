"""`saccade data` on files that it made itself: make, show, convert, and what happens with wrong arguments."""
from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from command_line import run
from saccade.data.recognition import open_dataset
from saccade.data.town.panoptic import TownPanoptic


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "town"
    assert run("data", "make", "town", "--out", str(folder), "--format", "coco", "--frames", "3", "--size", "64", "--domain", "night") == 0
    return folder


def test_the_town_in_every_format_is_the_same_town(town: Path, tmp_path: Path) -> None:
    one = open_dataset(town, split="val")
    for name in ("voc", "yolo"):
        assert run("data", "make", "town", "--out", str(tmp_path / name), "--format", name, "--frames", "3", "--size", "64", "--domain", "night") == 0
        other = open_dataset(tmp_path / name, split="val")
        assert len(one) == len(other) == 3 and one.classes == other.classes
        for i in range(3):
            a, b = one[i], other[i]
            assert bool((a.image == b.image).all()) and a.labels.tolist() == b.labels.tolist()
            assert float((a.boxes - b.boxes).abs().max()) < 1e-4
    assert run("data", "make", "town", "--out", str(tmp_path / "folders"), "--format", "imagefolder", "--frames", "6", "--size", "64") == 0
    assert len(open_dataset(tmp_path / "folders", split="train")) == 6


def test_show_prints_counts_and_writes_a_picture(town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "show", str(town), "--split", "val", "--out", str(tmp_path / "sheet.png"), "--verify-images") == 0
    printed = capsys.readouterr().out
    assert "instances_val.json" in printed and "person" in printed and "3, sizes 64 x 64" in printed
    assert Image.open(tmp_path / "sheet.png").width > 1000


def test_the_panoptic_town_is_made_shown_and_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "town"
    assert run("data", "make", "town", "--out", str(made), "--format", "coco_panoptic", "--frames", "2", "--size", "64", "--split", "val") == 0
    sample, rendered = open_dataset(made)[1], TownPanoptic(split="val", num_images=2, size=64)[1]
    assert sample.panoptic is not None and rendered.panoptic is not None
    assert bool((sample.image == rendered.image).all()) and sample.panoptic.segments == rendered.panoptic.segments
    assert bool((sample.panoptic.segment_map == rendered.panoptic.segment_map).all()) and bool((sample.masks == rendered.masks).all())
    capsys.readouterr()
    assert run("data", "show", str(made), "--out", str(tmp_path / "sheet.png")) == 0
    printed = capsys.readouterr().out
    assert "CocoPanoptic" in printed and "stuff classes" in printed and "contradicts" not in printed
    assert run("data", "convert", str(made), "--to", "coco", "--out", str(tmp_path / "objects")) == 0
    objects = open_dataset(tmp_path / "objects", masks=True)[1]
    assert objects.labels.tolist() == sample.labels.tolist() and bool((objects.masks == sample.masks).all())
    assert run("data", "convert", str(tmp_path / "objects"), "--to", "coco_panoptic", "--out", str(tmp_path / "maps")) == 2
    assert run("data", "convert", str(made), "--to", "coco_panoptic", "--out", str(tmp_path / "maps")) == 0
    assert open_dataset(tmp_path / "maps")[0].panoptic.segments == open_dataset(made)[0].panoptic.segments


def test_convert_takes_all_splits_along(town: Path, tmp_path: Path) -> None:
    assert run("data", "convert", str(town), "--to", "yolo", "--out", str(tmp_path / "yolo")) == 0
    assert {s: len(open_dataset(tmp_path / "yolo", split=s)) for s in ("train", "val")} == {"train": 3, "val": 3}
    assert run("data", "convert", str(town), "--to", "imagefolder", "--out", str(tmp_path / "crops")) == 0
    assert open_dataset(tmp_path / "crops", split="train").classes == open_dataset(town).classes


@pytest.mark.parametrize("words, code, said", [
    (("show", "nowhere"), 3, "does not exist"), (("show", "TOWN", "--format", "kitti"), 2, "no format is called"),
    (("convert", "TOWN", "--to", "voc", "--out", "TOWN"), 2, "nothing is overwritten"),
    (("make", "town", "--out", "TOWN/x", "--split", "dusk"), 2, "no split 'dusk'"),
    (("show", "TOWN", "--out", "sheet.xyz"), 2, ".png or .jpg"),
])
def test_wrong_arguments_end_with_their_exit_code_and_one_paragraph(
    town: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, said: str
) -> None:
    assert run("data", *(word.replace("TOWN", str(town)) for word in words)) == code
    shown = capsys.readouterr().err
    assert said in shown and "Traceback" not in shown
