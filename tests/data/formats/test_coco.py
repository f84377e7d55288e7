"""The COCO reader agrees with pycocotools, and finds its files by COCO's own names."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import coco as reference_coco
from torch import Tensor

from saccade.data.classes import CIFAR100, COCO, COCO_CATEGORY_IDS, VOC, imagenet
from saccade.data.formats.coco import Coco
from saccade.data.formats.voc import Voc
from saccade.errors import DataError

PENN = Path(__file__).parents[3].parent / "shared" / "data" / "pennfudan"


def write(root: Path, split: str, folder: str) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / folder).mkdir(exist_ok=True)
    Image.new("RGB", (20, 10)).save(root / folder / "a.jpg")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 10, "width": 20}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 90, "bbox": [1.5, 2, 3.25, 4], "area": 5.5, "iscrowd": 0}],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("split, folder", [("train2017", "train2017"), ("minival2014", "val2014"), ("valminusminival2014", "val2014")])
def test_a_split_names_its_annotations_and_images(tmp_path: Path, split: str, folder: str) -> None:
    write(tmp_path, split, folder)
    data = Coco(root=tmp_path, split=split)
    sample = data[0]
    assert data.classes == ("person", "toothbrush") and data.category_ids == (1, 90)
    assert sample.boxes.tolist() == [[1.5, 2, 4.75, 6]] and sample.labels.tolist() == [1] and sample.areas.tolist() == [5.5]
    assert sample.meta.id == 1 and sample.meta.path == str(tmp_path / folder / "a.jpg")


def test_classes_choose_and_order_the_labels(tmp_path: Path) -> None:
    write(tmp_path, "val", "val")
    data = Coco(root=tmp_path, split="val", classes=["toothbrush"])
    assert data.annotations(0).labels.tolist() == [0] and data.category_ids == (90,)
    assert len(Coco(root=tmp_path, split="val", classes=["person"]).annotations(0).labels) == 0
    with pytest.raises(DataError, match="no category 'unicorn'"):
        Coco(root=tmp_path, split="val", classes=["unicorn"])


def test_nobody_can_write_into_the_index(tmp_path: Path) -> None:
    write(tmp_path, "val", "val")
    data = Coco(root=tmp_path, split="val")
    data.annotations(0).boxes.zero_()
    assert data.annotations(0).boxes.tolist() == [[1.5, 2, 4.75, 6]]


def test_masks_of_another_size_than_the_image_are_a_data_error(tmp_path: Path) -> None:
    write(tmp_path, "val", "val")
    Image.new("RGB", (10, 20)).save(tmp_path / "val" / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg is 20 x 10"):
        Coco(root=tmp_path, split="val", masks=True)[0]


def test_the_class_lists_are_complete() -> None:
    assert [len(VOC), len(COCO), len(CIFAR100), len(imagenet())] == [20, 80, 100, 1000]
    assert len(COCO_CATEGORY_IDS) == 80 and COCO_CATEGORY_IDS[-1] == 90
    assert dict(zip(COCO_CATEGORY_IDS, COCO, strict=True))[44] == "bottle"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")
@pytest.mark.skipif(not PENN.is_dir(), reason="the Penn-Fudan pictures are not here")
def test_penn_fudan_is_read_as_pycocotools_reads_it() -> None:
    data = Coco(root=PENN, annotations="instances_val.json", images="JPEGImages", masks=True)
    reference = reference_coco.COCO(PENN / "instances_val.json")
    assert len(data) == 34
    for index in range(len(data)):
        truth, found = reference.imgToAnns[data.sample_id(index)], data.annotations(index)
        assert found.boxes[:, :2].tolist() == [t["bbox"][:2] for t in truth] and found.areas.tolist() == [t["area"] for t in truth]
        assert np.array_equal(found.masks.numpy(), np.stack([reference.annToMask(t) for t in truth]))


@pytest.mark.skipif(not PENN.is_dir(), reason="the Penn-Fudan pictures are not here")
def test_the_coco_and_the_voc_reading_of_the_same_pictures_agree() -> None:
    coco, voc = Coco(root=PENN, annotations="instances_val.json", images="JPEGImages"), Voc(root=PENN, split="val")
    number = {voc.item_id(i): i for i in range(len(voc))}
    for index in range(len(coco)):
        one, other = coco[index], voc[number[Path(coco.item_id(index)).stem]]
        assert torch.equal(one.image.as_subclass(Tensor), other.image.as_subclass(Tensor))
        assert sorted(one.boxes.tolist()) == sorted(other.boxes.tolist())
