"""What `inspect` counts, how folders are recognised, and that a contact sheet shows every sample asked for."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from label_maps import write_pairs
from saccade.data.formats.coco import Coco
from saccade.data.formats.folders import ImageFolder
from saccade.data.formats.segmentation import SegmentationFolders
from saccade.data.formats.writers import write_coco, write_image_folder, write_voc, write_yolo
from saccade.data.inspection import inspect
from saccade.data.recognition import candidates, open_dataset, open_splits, recognise
from saccade.errors import DataError, InputError
from saccade.report.contact_sheet import contact_sheet
from saccade.structures import Annotations, Sample, make_sample

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CLASSES = ("ant", "bee")


def samples(number: int = 4) -> list[Sample]:
    """Picture i has i objects, squares of 10, 40, 70 ... pixels of alternating class."""
    made = []
    for i in range(number):
        side = torch.tensor([10.0, 40.0, 100.0])[:i]
        boxes = torch.stack([torch.zeros_like(side), torch.zeros_like(side), side, side], 1)
        image = torch.full((3, 120, 140), 40 * i, dtype=torch.uint8)
        made.append(make_sample(image, Annotations(boxes=boxes, labels=torch.arange(i) % 2, label=i % 2), id=i + 1))
    return made


def test_counts_and_sizes_are_right(tmp_path: Path) -> None:
    write_coco(samples(), tmp_path / "out", classes=CLASSES)
    found = inspect(Coco(root=tmp_path / "out", split="train"))
    assert (found.num_images, found.num_objects, dict(found.class_counts)) == (4, 6, {0: 4, 1: 2})
    assert dict(found.object_sizes) == {"small": 3, "medium": 2, "large": 1} and dict(found.objects_per_image) == {0: 1, 1: 1, 2: 1, 3: 1}
    assert dict(found.image_sizes) == {(120, 140): 4} and [p.what for p in found.problems] == ["it has no objects"]


def test_files_with_the_same_bytes_are_found_when_images_are_verified(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (3, 3), (0, 0, 200 if name.endswith("3.png") else 0)).save(tmp_path / name)
    data = ImageFolder(root=tmp_path)
    assert not inspect(data).problems
    assert [(p.where, p.what) for p in inspect(data, verify_images=True).problems] == [("a/2.png", "its bytes are those of 1.png")]


@pytest.mark.parametrize("write, format_name", [
    (write_coco, "coco"), (write_voc, "voc"), (write_yolo, "yolo"), (write_image_folder, "imagefolder"),
])
def test_every_written_format_is_recognised_and_opens_by_split(tmp_path: Path, write: Any, format_name: str) -> None:
    write({"train": samples()[:3], "val": samples()[3:]}, tmp_path / "out", classes=CLASSES)
    assert recognise(tmp_path / "out")[0] == format_name and {name for name, _ in candidates(tmp_path / "out")} == {format_name}
    for split, number in (("train", 3), ("val", 1)):
        assert len(open_dataset(tmp_path / "out", split=split)) == number
        assert len(open_dataset(tmp_path / "out", format_name, split=split)) == number
    assert {split: len(data) for split, data in open_splits(tmp_path / "out").items()} == {"train": 3, "val": 1}


def test_an_annotation_file_is_recognised_too(tmp_path: Path) -> None:
    write_coco({"train": samples()[:3], "val": samples()[3:]}, tmp_path / "out", classes=CLASSES)
    assert len(open_dataset(tmp_path / "out" / "annotations" / "instances_val.json")) == 1


def test_a_broken_coco_file_is_recognised_and_opening_it_says_what_is_wrong(tmp_path: Path) -> None:
    write_coco(samples(), tmp_path / "out", classes=CLASSES)
    file = (tmp_path / "out" / "annotations" / "instances_train.json").rename(tmp_path / "out" / "labels.json")
    file.write_text(file.read_text()[:-10])
    with pytest.raises(DataError, match=r"labels\.json is not valid json"):
        open_dataset(tmp_path / "out")


def test_the_domains_of_a_classification_set_are_read_one_by_one(tmp_path: Path) -> None:
    for name in ("photo/train/dog", "photo/val/dog", "sketch/train/dog"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (3, 3)).save(tmp_path / name / "a.png")
    found = [(Path(known["root"]).name, known["split"]) for _, known in candidates(tmp_path)]
    assert found == [("photo", "train"), ("photo", "val"), ("sketch", "train")]


def test_nothing_recognised_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(DataError, match=r"Looked for: COCO .*VOC .*YOLO .*CIFAR .*MNIST .*image list .*image folders"):
        recognise(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        recognise(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no format is called 'kitti'"):
        open_dataset(tmp_path, "kitti")


def test_unknown_settings_name_those_that_exist(tmp_path: Path) -> None:
    write_voc(samples(), tmp_path / "out", classes=CLASSES)
    with pytest.raises(InputError, match="Voc takes no 'masks'; it takes root, split"):
        open_dataset(tmp_path / "out", masks=True)


def test_a_contact_sheet_shows_each_sample_and_survives_a_broken_one(tmp_path: Path) -> None:
    write_coco(samples(), tmp_path / "out", classes=CLASSES)
    data = Coco(root=tmp_path / "out", split="train")
    sheet = np.asarray(contact_sheet(data, columns=2))
    assert sheet.shape[0] > 2 * 420 and sheet.shape[1] > 2 * 420
    data.image_path(3).write_bytes(b"")
    broken = np.asarray(contact_sheet(data, columns=2))
    changed = np.argwhere((sheet != broken).any(-1))
    assert broken.shape == sheet.shape and changed.min(0)[0] > sheet.shape[0] // 2 - 30 and changed.min(0)[1] > sheet.shape[1] // 2 - 30


def test_a_contact_sheet_shows_label_maps(tmp_path: Path) -> None:
    for name, values in (("road", (0,)), ("both", (0, 1)), ("nothing", (255,))):
        write_pairs(tmp_path / name, ["a"], values)
    sheets = [np.asarray(contact_sheet(SegmentationFolders(root=tmp_path / name, classes=["road", "sky"]))) for name in ("road", "both", "nothing")]
    colours = [len(np.unique(sheet[10:400, 10:400].reshape(-1, 3), axis=0)) for sheet in sheets]
    assert (sheets[0] != sheets[1]).any() and (sheets[0] != sheets[2]).any() and colours[2] < colours[1]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the small real data sets are not here")
def test_the_identical_raccoons_are_found() -> None:
    found = inspect(open_dataset(SHARED / "raccoon_voc"), verify_images=True)
    pairs = {(p.where[-3:], p.what.split("_")[-1][:3]) for p in found.problems}
    assert pairs == {("116", "011"), ("074", "052"), ("098", "065"), ("120", "083")} and found.num_objects == 217
