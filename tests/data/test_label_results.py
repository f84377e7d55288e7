"""Label maps of any origin against a data set: which file is whose, what the pixels mean, and what is refused."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import run
from label_maps import SIZE, write_cityscapes, write_map, write_pairs
from saccade.data.class_matching import MatchClasses
from saccade.data.combination import Subset
from saccade.data.formats.driving_scenes import Cityscapes
from saccade.data.formats.segmentation import SegmentationFolders
from saccade.data.label_results import has_label_maps, label_maps_of, score_label_maps
from saccade.data.town.dataset import Town
from saccade.data.town.segmentation import TownSegmentation
from saccade.errors import DataError, InputError

CLASSES = ("road", "car")


def pairs(root: Path, **settings: object) -> SegmentationFolders:
    return SegmentationFolders(root=write_pairs(root), classes=CLASSES, **settings)  # type: ignore[arg-type]


def test_maps_are_found_by_path_and_name_and_scored(tmp_path: Path) -> None:
    dataset = pairs(tmp_path / "data")
    for name, values in (("a", (0, 1)), ("b", (0, 0)), ("c", (1, 1))):
        write_map(tmp_path / "mine" / f"{name}.png", values)
    metric = score_label_maps(dataset, tmp_path / "mine")
    half = SIZE[0] * SIZE[1] // 2
    assert (metric.confusion() == half * np.array([[2, 1, 0], [1, 2, 0]])).all()
    assert metric.compute()["iou/mIoU"] == pytest.approx(1 / 2)
    shutil.move(tmp_path / "mine", tmp_path / "theirs" / "labels")  # as an evaluation leaves them
    write_map(tmp_path / "theirs" / "colours" / "a.png", (1, 0))
    assert score_label_maps(dataset, tmp_path / "theirs").compute() == metric.compute()


@pytest.mark.parametrize("name", ["a.png", "a.png.png", "deep/er/a.png", "deep/a.png.png"])
def test_a_file_may_lie_deeper_and_keep_the_image_s_ending(tmp_path: Path, name: str) -> None:
    dataset = SegmentationFolders(root=write_pairs(tmp_path / "data", names=("a",)), classes=CLASSES)
    write_map(tmp_path / "mine" / name, (0, 1))
    assert label_maps_of(dataset, tmp_path / "mine") == [tmp_path / "mine" / name]


@pytest.mark.parametrize("name", ["lindau_000002_000019_pred.png", "lindau/lindau_000002_000019_leftImg8bit.png", "x/lindau_000002_000019.png"])
def test_cityscapes_frames_are_found_by_what_stands_before_leftimg8bit_and_read_in_its_ids(tmp_path: Path, name: str) -> None:
    dataset = Cityscapes(root=write_cityscapes(tmp_path / "data"), split="val", classes="synthia16")
    write_map(tmp_path / "mine" / name, (7, 26, 31, 7))  # truth: road, car, train, unlabelled; of the sixteen classes a train is none
    write_map(tmp_path / "mine" / "lindau_000002_000099_pred.png", (7,))
    figures = score_label_maps(dataset, tmp_path / "mine", ids="cityscapes").compute()
    assert figures["iou/class/road"] == 1 and figures["iou/class/car"] == 1 and "iou/mIoU_13" in figures
    write_map(tmp_path / "mine" / name, (31, 26, 31, 7))  # road taken for a train, which is no class here: a miss
    figures = score_label_maps(dataset, tmp_path / "mine", ids="cityscapes").compute()
    assert figures["iou/class/road"] == 0 and figures["iou/class/car"] == 1 and figures["iou/accuracy"] == 1 / 2


def test_images_without_a_map_are_counted_and_named(tmp_path: Path) -> None:
    write_map(tmp_path / "mine" / "b.png", (0, 1))
    with pytest.raises(DataError, match=r"no label map for 2 of the 3 images.*a\.png, c\.png.*here are b\.png"):
        score_label_maps(pairs(tmp_path / "data"), tmp_path / "mine")


def test_two_files_that_could_be_meant_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_map(tmp_path / "mine" / folder / "a.png", (0, 1))
    with pytest.raises(DataError, match=r"several PNGs.*a\.png: one/a\.png, two/a\.png"):
        score_label_maps(pairs(tmp_path / "data"), tmp_path / "mine")


def test_ids_colours_and_sizes_that_do_not_fit_name_the_file(tmp_path: Path) -> None:
    dataset = SegmentationFolders(root=write_pairs(tmp_path / "data", names=("a",)), classes=CLASSES)
    file = tmp_path / "mine" / "a.png"
    write_map(file, (0, 7))
    with pytest.raises(DataError, match=r"mine/a\.png has the id 7"):
        score_label_maps(dataset, tmp_path / "mine")
    with pytest.raises(InputError, match="no table of ids is called 'coco'"):
        score_label_maps(dataset, tmp_path / "mine", ids="coco")
    Image.fromarray(np.zeros((*SIZE, 3), dtype=np.uint8)).save(file)
    with pytest.raises(DataError, match=r"mine/a\.png has pixels of mode RGB"):
        score_label_maps(dataset, tmp_path / "mine")
    write_map(file, (0, 1), (6, 8))
    with pytest.raises(DataError, match=r"mine/a\.png.*\(6, 8\).*\(12, 16\)"):
        score_label_maps(dataset, tmp_path / "mine")


def test_the_command_prints_the_figures_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "data")
    for name in ("a", "b", "c"):
        write_map(tmp_path / "mine" / f"{name}.png", (0, 1))
    assert run("evaluate", "--results", tmp_path / "mine", "--data", tmp_path / "data", "--out", tmp_path) == 0
    assert "iou/mIoU" in capsys.readouterr().out
    figures = json.loads((tmp_path / "evaluation" / "data" / "figures.json").read_text())
    assert figures["iou/mIoU"] == 1 and json.loads((tmp_path / "evaluation" / "data" / "details.json").read_text())["iou"]["images"]["labelled"] == 3
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"data: {{evaluate: {{dusk: {{type: SegmentationFolders, root: {tmp_path / 'data'}, labels: null, classes: [road, car]}}}}}}\n")
    assert run("evaluate", "--results", tmp_path / "mine", "--recipe", recipe, "--data", "dusk", "--out", tmp_path) == 0
    assert "dusk: none of the 3 images has labels, so there is nothing to score" in capsys.readouterr().err
    assert json.loads((tmp_path / "evaluation" / "dusk" / "figures.json").read_text())["iou/mIoU"] == "NaN"


def test_data_of_label_maps_are_told_from_others(tmp_path: Path) -> None:
    assert has_label_maps(pairs(tmp_path / "a")) and has_label_maps(Subset(dataset=pairs(tmp_path / "a"), count=1))
    assert has_label_maps(TownSegmentation(size=64, num_images=1, labelled=False)) and has_label_maps(TownSegmentation(size=64, num_images=1))
    town = Town(size=64, num_videos=1, frames_per_video=1)  # it has maps of its classes, too, but boxes first of all
    assert not has_label_maps(town) and not has_label_maps(MatchClasses(dataset=Subset(dataset=town, count=1), classes=["person"]))


def test_ids_without_label_maps_are_refused(tmp_path: Path) -> None:
    assert run("evaluate", "some_run", "--ids", "cityscapes") == 2
