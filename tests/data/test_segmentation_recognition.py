"""Folders of semantic segmentation are recognised, written and read again, from Python and from the command line."""
from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import run
from label_maps import SIZE, write_cityscapes, write_image, write_map, write_pairs
from saccade.data.class_sets import CLASS_SETS
from saccade.data.formats.driving_scenes import Cityscapes
from saccade.data.formats.segmentation import SegmentationFolders
from saccade.data.formats.segmentation_writer import write_segmentation
from saccade.data.inspection import inspect
from saccade.data.recognition import candidates, open_dataset, recognise
from saccade.data.town.segmentation import TownSegmentation
from saccade.engine.adaptation import Source, adaptation_recipe
from saccade.errors import DataError, InputError
from saccade.recipes import build, recipe_from_values
from saccade.structures import Annotations, make_sample


def readings(place: Path) -> list[tuple[str, dict[str, object]]]:
    return [(name, {key: value for key, value in known.items() if key != "root"}) for name, known in candidates(place)]


def test_cityscapes_is_recognised_with_and_without_labels(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    assert readings(tmp_path) == [("cityscapes", {"split": "train"}), ("cityscapes", {"split": "val"})]
    assert open_dataset(tmp_path, split="val").name == "cityscapes_val"
    write_image(tmp_path / "leftImg8bit" / "test" / "berlin" / "berlin_0_leftImg8bit.png")
    assert readings(tmp_path)[-1] == ("cityscapes", {"split": "test", "labelled": False})
    assert open_dataset(tmp_path, split="test").annotations(0).segmentation is None


def test_gta5_synthia_and_camvid_are_recognised(tmp_path: Path) -> None:
    write_image(tmp_path / "gta" / "images" / "00001.png", (1052, 1914))
    write_map(tmp_path / "gta" / "labels" / "00001.png", (7,), (1052, 1914))
    assert readings(tmp_path / "gta") == [("gta5", {})]
    write_image(tmp_path / "synthia" / "RGB" / "0000000.png")
    write_map(tmp_path / "synthia" / "GT" / "LABELS" / "0000000.png", (3,))
    assert readings(tmp_path / "synthia") == [("synthia", {})]
    write_pairs(tmp_path / "camvid", ["0016E5_00390"])
    (tmp_path / "camvid" / "splits").mkdir()
    (tmp_path / "camvid" / "splits" / "dusk.txt").write_text("0016E5_00390\n")
    assert readings(tmp_path / "camvid") == [("camvid", {}), ("camvid", {"split": "dusk"})]
    for split in ("train", "test"):
        write_image(tmp_path / "segnet" / split / "0016E5_1.png")
        write_map(tmp_path / "segnet" / f"{split}annot" / "0016E5_1.png", (11, 3))
    known = {"classes": "camvid11", "ids": "camvid"}
    expected = [("segmentation", {"images": split, "labels": f"{split}annot", **known}) for split in ("train", "test")]
    assert readings(tmp_path / "segnet") == expected
    found = open_dataset(tmp_path / "segnet", split="test").annotations(0).segmentation
    assert found is not None and found.unique().tolist() == [3, 255]


@pytest.mark.parametrize("labels", ["labels", "masks", "annotations"])
def test_folders_of_images_and_label_maps_are_recognised(tmp_path: Path, labels: str) -> None:
    named = {} if labels == "labels" else {"labels": labels}
    write_pairs(tmp_path)
    (tmp_path / "labels").rename(tmp_path / labels)
    assert readings(tmp_path) == [("segmentation", named)]
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "val.txt").write_text("b\n")
    assert readings(tmp_path) == [("segmentation", named), ("segmentation", {**named, "list_file": "splits/val.txt"})]
    assert len(open_dataset(tmp_path)) == 3 and len(open_dataset(tmp_path, split="val")) == 1


def test_a_yolo_folder_is_none_of_segmentation_and_the_other_way_round(tmp_path: Path) -> None:
    write_pairs(tmp_path / "maps")
    (tmp_path / "maps" / "classes.txt").write_text("road\nsky\n")
    assert recognise(tmp_path / "maps")[0] == "segmentation"
    write_image(tmp_path / "boxes" / "images" / "a.png")
    (tmp_path / "boxes" / "labels").mkdir()
    (tmp_path / "boxes" / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "boxes" / "classes.txt").write_text("cat\n")
    assert recognise(tmp_path / "boxes")[0] == "yolo"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    town = TownSegmentation(size=(48, 64), num_images=3)
    written = write_segmentation({"train": town, "val": [town[2]]}, tmp_path / "out", classes=town.classes, colours=town.colours)
    assert written.images == 4
    back = SegmentationFolders(root=tmp_path / "out", split="train")
    assert back.classes == town.classes and len(back) == 3 and back.problems == []
    assert len(SegmentationFolders(root=tmp_path / "out", split="val")) == 1
    for index in range(3):
        assert torch.equal(back[index].image, town[index].image) and torch.equal(back[index].segmentation, town[index].segmentation)  # type: ignore[arg-type]
    label = Image.open(tmp_path / "out" / "labels" / "train" / "train_0000_0000.png")
    shown, known = np.asarray(label.convert("RGB")), town.annotations(0).segmentation
    assert known is not None and town.colours is not None
    for number in (known.unique().tolist())[:-1]:
        assert (shown[known.numpy() == number] == town.colours[number]).all()


def test_samples_that_fit_no_label_map_are_refused(tmp_path: Path) -> None:
    plain = make_sample(torch.zeros(3, *SIZE, dtype=torch.uint8), id="x")
    with pytest.raises(InputError, match="sample x has no label map"):
        write_segmentation([plain], tmp_path / "out", classes=["road"])
    beyond = make_sample(torch.zeros(3, *SIZE, dtype=torch.uint8), Annotations(segmentation=torch.ones(SIZE, dtype=torch.uint8)), id="y")
    with pytest.raises(InputError, match="sample y has the label 1, and there are 1 classes"):
        write_segmentation([beyond], tmp_path / "out", classes=["road"])
    assert not (tmp_path / "out").exists()


def test_the_town_is_made_shown_and_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "town"
    words = ("--format", "segmentation", "--frames", "2", "--size", "64", "--domain", "fog", "--seed", "5")
    assert run("data", "make", "town", "--out", str(made), *words) == 0
    assert "wrote 4 pictures (train, val)" in capsys.readouterr().out
    rendered = TownSegmentation(split="val", domain="fog", num_images=2, size=64, seed=5)
    found = open_dataset(made, split="val")
    assert found.classes == CLASS_SETS["town"].classes and torch.equal(found[1].segmentation, rendered[1].segmentation)  # type: ignore[arg-type]
    assert run("data", "show", str(made), "--split", "val", "--out", str(tmp_path / "sheet.png")) == 0
    printed = capsys.readouterr().out
    assert "SegmentationFolders" in printed and "pixels, images of each class" in printed and "road" in printed
    assert Image.open(tmp_path / "sheet.png").width > 500
    assert run("data", "convert", str(made), "--to", "segmentation", "--out", str(tmp_path / "again")) == 0
    again = open_dataset(tmp_path / "again", split="train")
    assert torch.equal(again[0].segmentation, open_dataset(made, split="train")[0].segmentation)  # type: ignore[arg-type]


def test_show_lists_every_problem_of_label_maps_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path, [f"{k}" for k in range(4)])
    write_map(tmp_path / "labels" / "1.png", (0, 77))
    write_map(tmp_path / "labels" / "2.png", (0, 1), (24, 32))
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "val.txt").write_text("0\n1\n2\n" + "".join(f"lost{k}\n" for k in range(15)))
    assert run("data", "show", str(tmp_path), "--split", "val", "--all-problems") == 0
    printed = capsys.readouterr().out
    assert "labels/1.png has the id 77 (96 pixels)" in printed and "labels/2.png is 32 x 24 (width x height)" in printed
    assert all(f"images/lost{k} does not exist [left out]" in printed for k in range(15))
    assert "road" in printed and "50.00%" in printed


def test_an_empty_folder_of_images_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    assert run("data", "show", str(tmp_path), "--format", "segmentation") == 3
    assert "images holds no pictures; check the path" in capsys.readouterr().err
    for adapted in (lambda: open_dataset(tmp_path), lambda: adapted_data(tmp_path, ("road",))):
        with pytest.raises(DataError, match="is empty: there is no file in it"):
            adapted()


def test_a_file_of_no_known_format_is_not_called_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing of the kind\n")
    for place in (tmp_path / "notes.txt", tmp_path):
        with pytest.raises(DataError, match="holds no data set of a known format"):
            recognise(place)


def test_images_without_label_maps_are_pictures_without_labels(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "1.png")
    assert candidates(tmp_path) == [("frames", {"root": str(tmp_path / "images")})]
    data = adapted_data(tmp_path, ("road",))
    assert data["train"] == {"type": "Frames", "root": str(tmp_path / "images")} and data["evaluate"] == {}
    write_image(tmp_path / "more" / "2.png")
    assert readings(tmp_path) == [("imagefolder", {})]


METHOD = {"learner": {"type": "Adapting", "terms": []}, "data": {"source": {"type": "TownSegmentation", "num_images": 2}}, "run": {"best": "x"}}


def adapted_data(place: Path, classes: tuple[str, ...]) -> dict[str, Any]:
    """`data` of a run that adapts a network of `classes` to what lies at `place`."""
    recipe = adaptation_recipe(recipe_from_values(METHOD, "method", "test"), Source({}, classes, "weights", []), place)
    found: dict[str, Any] = recipe.values["data"]
    return found


def test_any_folder_of_images_and_label_maps_is_a_target(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    town = CLASS_SETS["town"].classes
    data = adapted_data(write_cityscapes(tmp_path / "city"), town)
    known = {"type": "Cityscapes", "root": str(tmp_path / "city"), "split": "train"}
    assert data["train"] == {"type": "MatchClasses", "dataset": known, "classes": list(town)} == data["evaluate"]["city"]
    assert data["source"] == METHOD["data"]["source"]  # type: ignore[index]
    shutil.rmtree(tmp_path / "city" / "gtFine")
    data = adapted_data(tmp_path / "city", CLASS_SETS["cityscapes19"].classes)
    assert data["train"] == {**known, "labelled": False} and data["evaluate"] == {}
    named = write_pairs(tmp_path / "named")
    (named / "classes.txt").write_text("road\nsky\n")
    assert adapted_data(named, ("sky", "road"))["evaluate"]["named"]["dataset"]["type"] == "SegmentationFolders"
    numbered = adapted_data(write_pairs(tmp_path / "numbered"), town)
    assert "the label maps of" in caplog.text and "are of no class of the model" in caplog.text
    assert numbered["train"]["labels"] is None and numbered["evaluate"] == {} and len(build(numbered["train"])) == 3


def test_data_without_labels_has_no_classes_that_never_occur(tmp_path: Path) -> None:
    assert inspect(Cityscapes(root=write_cityscapes(tmp_path), labelled=False)).problems == []
    assert [p.where for p in inspect(Cityscapes(root=tmp_path)).problems] == ["classes"]
