"""F8: every problem of broken annotations is listed with file and id in one pass, what is legal stays, and what is left can be trained on."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_detector import train_and_evaluate

from saccade.data.contract import Dataset, Problem
from saccade.data.formats.coco import Coco
from saccade.data.formats.voc import Voc
from saccade.data.formats.writers import encode_masks
from saccade.data.formats.yolo import Yolo
from saccade.data.inspection import inspect
from saccade.errors import DataError


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (40, 30), (number * 20, 100, 50)).save(folder / name)


def finds(problems: list[Problem], where: str, what: str, consequence: str) -> bool:
    return any(where in f"{p.file} {p.where}" and what in p.what and p.consequence == consequence for p in problems)


def usable(dataset: Dataset) -> None:
    """All samples load, their boxes are finite, have a positive size and a known class, and a detector trains on them and is evaluated."""
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample.boxes is not None and sample.labels is not None and sample.boxes.dtype == torch.float32
        assert sample.boxes.shape == (len(sample.labels), 4) and bool(torch.isfinite(sample.boxes).all())
        assert bool((sample.boxes[:, 2:] > sample.boxes[:, :2]).all())
        assert bool((sample.labels >= 0).all() and (sample.labels < len(dataset.classes)).all())
    assert {"coco/AP", "voc/mAP"} <= set(train_and_evaluate(dataset))


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    pictures(tmp_path / "images", "a.png", "b.png", "empty.png", "again.png")
    (tmp_path / "images" / "broken.png").write_bytes(b"no picture")
    image = {"height": 30, "width": 40}
    mask = torch.zeros(1, 30, 40, dtype=torch.bool)
    mask[0, 5:9, 3:8] = True
    compressed = encode_masks(mask)[0]
    good: dict[str, Any] = {"image_id": 7, "category_id": 5, "bbox": [1, 2, 10, 12]}
    (tmp_path / "a.json").write_text(json.dumps({
        "images": [
            {"id": 7, "file_name": "a.png", **image}, {"id": 9, "file_name": "b.png", "height": 40, "width": 30}, {"id": 1, "file_name": "empty.png"},
            {"id": 7, "file_name": "again.png", **image}, {"id": 30, "file_name": "missing.png", **image},
            {"id": 31, "file_name": "broken.png", **image}, {"id": 32, **image}, {"id": 33, "file_name": "a.png", **image},
        ],
        "categories": [{"id": 5, "name": "late"}, {"id": 0, "name": "early"}, {"id": 5, "name": "twice"}, {"id": 2, "name": "unused"}],
        "annotations": [
            {"id": 1, **good, "segmentation": [[1, 2, 11, 2, 11, 14, 1, 14]], "area": 120, "iscrowd": 0},
            {"id": 2, **good, "segmentation": compressed, "iscrowd": 1},
            {"id": 3, **good, "segmentation": {"size": [30, 40], "counts": [3 * 30 + 5, 4, 30 - 4, 4, 30 * 36 - 9]}},
            {"id": 4, **good, "bbox": [1, 2, 0, 5]}, {"id": 5, **good, "bbox": [1, 2, 5, -3]}, {"id": 6, **good, "bbox": [1, float("nan"), 5, 5]},
            {"id": 7, **good, "bbox": [1, 2, 5]}, {"id": 8, **good, "bbox": [50, 2, 5, 5]}, {"id": 9, **good, "bbox": [35, 20, 30, 30]},
            {"id": 10, **good, "category_id": 77}, {"id": 11, **good, "image_id": 1000}, {"id": 1, **good, "image_id": 9, "category_id": 0},
            {"id": 12, **good, "segmentation": [[1, 2, 3, 4]]}, {"id": 13, **good, "segmentation": {"size": [30, 40], "counts": "0PPPP"}},
            {"id": 16, **good, "category_id": [5]},
            {"id": 14, **good, "bbox": None}, {"id": 15, **good, "bbox": [1e400, 0, 1, 1]}, {"image_id": 30, "category_id": 0, "bbox": [0, 0, 1, 1]},
        ],
    }))
    return tmp_path


def test_coco_lists_every_problem_and_keeps_what_is_legal(coco: Path) -> None:
    data = Coco(root=coco, annotations="a.json", images="images", masks=True)
    found = inspect(data, verify_images=True)
    for where, what, consequence in [
        ("category 5", "used twice", "left out"), ("categories", "ids start at 0", "kept"), ("categories", "gaps (1, 3, 4", "kept"),
        ("image 7", "used twice", "left out"), ("image 32", "file_name", "left out"),
        ("annotation 4", "no positive width", "left out"), ("annotation 5", "no positive width", "left out"),
        ("annotation 6", "not four finite numbers", "left out"), ("annotation 7", "not four finite numbers", "left out"),
        ("annotation 8", "outside the image", "left out"), ("annotation 10", "category 77", "left out"),
        ("annotation 11", "image 1000", "left out"), ("annotation 1", "more than once", "kept"),
        ("annotation 12", "fewer than three points", "part left out"),
        ("annotation 13", "do not add up", "kept"), ("annotation 16", "category [5]", "left out"),
        ("annotation 14", "not four finite numbers", "left out"),
        ("annotation 15", "not four finite numbers", "left out"), ("b.png", "it is 40 x 30, its annotations say 30 x 40", "kept"),
        ("empty.png", "no objects", "kept"), ("missing.png", "does not exist", "can't be used"), ("broken.png", "no picture", "can't be used"),
        ("a.png", "the same image", "kept"), ("a.png", "reaches beyond the image", "kept"), ("a.png", "there more than once", "kept"),
        ("classes", "1 of 3 never occur: unused", "kept"),
    ]:
        assert finds(found.problems, where, what, consequence), (where, what)
    assert all(problem.file and problem.where for problem in found.problems)
    assert data.classes == ("early", "unused", "late") and data.category_ids == (0, 2, 5)
    first = data.annotations(0)
    assert first.labels.tolist() == [2] * 6 and first.crowd.tolist() == [False, True, False, False, False, False]
    assert found.num_crowd == 1 and found.num_images == 6


def test_the_masks_of_run_lengths_and_polygons_agree(coco: Path) -> None:
    masks = Coco(root=coco, annotations="a.json", images="images", masks=True).annotations(0).masks
    assert masks is not None and int(masks[0].sum()) == 120
    assert int(masks[1].sum()) == 20 and bool(masks[1, 5:9, 3:8].all())
    assert np.argwhere(masks[2].numpy()).tolist() == [[r, c] for r in range(5, 9) for c in (3, 4)]


def test_what_is_left_of_coco_can_be_used(coco: Path) -> None:
    content = json.loads((coco / "a.json").read_text())
    content["images"] = [i for i in content["images"] if i.get("file_name") in ("a.png", "empty.png", "again.png")]
    (coco / "b.json").write_text(json.dumps(content))
    data = Coco(root=coco, annotations="b.json", images="images")
    usable(data)
    assert data[1].boxes.shape == (0, 4), "an image without objects is legal"
    assert len(Coco(root=coco, annotations="b.json", images="images", keep_empty=False)) == 1
    assert not Coco(root=coco, annotations="b.json", images="images", keep_crowd=False).annotations(0).crowd.any()


@pytest.mark.parametrize("text, said", [
    ("{", "not valid json"), ("[]", "no COCO detection file"), ('{"images": [], "annotations": []}', "categories"), ("", "not valid json"),
    ('{"images": [1], "annotations": [], "categories": []}', "must be a mapping"),
    ('{"images": [], "annotations": [], "categories": []}', "no categories"), ("[" * 100_000, "not valid json"),
])
def test_a_file_that_is_not_coco_is_a_data_error_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        Coco(root=tmp_path, annotations="a.json")
    assert "a.json" in str(caught.value)


def voc_object(name: str, *corners: object, difficult: int = 0) -> str:
    numbers = "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{numbers}</bndbox></object>"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    pictures(tmp_path / "JPEGImages", "a.jpg", "empty.jpg", "noxml.jpg", "notxml.jpg", "other.png")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    objects = [
        voc_object("cat", 1, 1, 10, 10), voc_object("cat", 5, 5, 4, 9), voc_object("cat", "nan", 5, 9, 9), voc_object("cat", 5, 5, "x", 9),
        voc_object("dragon", 1, 1, 5, 5), voc_object("cat", 100, 1, 110, 5), voc_object("dog", 3, 3, 3, 8), voc_object("", 1, 1, 4, 4),
        "<object><name>cat</name></object>", voc_object("dog", 30, 20, 60, 28, difficult=1), voc_object("cat", 2.5, 3, 7.5, 9),
    ]
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    (tmp_path / "Annotations" / "a.xml").write_text(f"<annotation>{size}{''.join(objects)}</annotation>")
    (tmp_path / "Annotations" / "empty.xml").write_text("<annotation><size><width>30</width><height>40</height></size></annotation>")
    (tmp_path / "Annotations" / "notxml.xml").write_text("<annotation><object>")
    (tmp_path / "Annotations" / "other.xml").write_text(f"<annotation>{voc_object('cat', 1, 1, 5, 5)}</annotation>")
    (tmp_path / "Annotations" / "missing.xml").write_text(f"<annotation>{voc_object('cat', 1, 1, 5, 5)}</annotation>")
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nempty\nnoxml\nnotxml\n\nother\nmissing\n")
    return tmp_path


def test_voc_lists_every_problem_and_keeps_what_is_legal(voc: Path) -> None:
    data = Voc(root=voc, split="train", classes=["cat", "dog", "bird"])
    found = inspect(data)
    for where, what, consequence in [
        ("a.xml object 1", "corners exchanged", "left out"), ("a.xml object 2", "not finite", "left out"),
        ("a.xml object 3", "needs numbers", "left out"), ("a.xml object 4", "'dragon' is not among", "left out"),
        ("a.xml object 5", "outside the image", "left out"), ("a.xml object 7", "no <name>", "left out"),
        ("a.xml object 8", "needs numbers", "left out"), ("noxml", "does not exist", "left out"), ("notxml", "not valid xml", "left out"),
        ("empty", "no objects", "kept"), ("empty", "annotations say 30 x 40", "kept"), ("missing", "does not exist", "can't be used"),
        ("a.jpg", "reaches beyond", "kept"), ("classes", "1 of 3 never occur: bird", "kept"),
    ]:
        assert finds(found.problems, where, what, consequence), (where, what)
    first = data.annotations(0)
    assert first.boxes.tolist() == [[0, 0, 10, 10], [2, 2, 3, 8], [29, 19, 60, 28], [1.5, 2, 7.5, 9]]
    assert first.difficult.tolist() == [False, False, True, False]
    assert not Voc(root=voc, split="train", classes=["cat", "dog"], keep_difficult=False).annotations(0).difficult.any()
    assert data.image_path(2).name == "other.png"
    (voc / "ImageSets" / "Main" / "train.txt").write_text("a\nempty\nother\n")
    usable(Voc(root=voc, split="train", classes=["cat", "dog", "bird"]))


def test_an_entity_bomb_in_xml_is_refused(voc: Path) -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    (voc / "Annotations" / "a.xml").write_text(f'<!DOCTYPE a [<!ENTITY e0 "lol">{entities}]><annotation><x>&e11;</x></annotation>')
    data = Voc(root=voc, split="train", classes=["cat", "dog"])
    assert finds(data.problems, "a.xml", "not valid xml", "left out")


def test_yolo_lists_every_problem_and_keeps_what_is_legal(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "a.png", "nolabels.png", "blank.png", "binary.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "labels" / "blank.txt").write_text("\n\n")
    (tmp_path / "labels" / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "labels" / "a.txt").write_text("\n".join([
        "0 .5 .5 .5 .5", "1 .5 .5 0 .5", "1 .5 nan .2 .2", "2 .5 .5 .5 .5", "0 .5 .5 .5", "0 20 15 10 10", "-1 .5 .5 .5 .5", "0.5 .5 .5 .5 .5",
        "a b c d e", "1 0.1 0.2 0.5 0.2 0.3 0.6", "0 .9 .9 .4 .4", "0 2 2 .1 .1", "0 .5 .5 .5 .5 .99",
    ]))
    data = Yolo(root=tmp_path)
    found = inspect(data)
    for line, what, consequence in [
        (2, "no positive width", "left out"), (3, "not finite", "left out"), (4, "class 2", "left out"), (5, "4 columns", "left out"),
        (6, "not relative", "left out"), (7, "class -1", "left out"), (8, "class 0.5", "left out"), (9, "no number", "left out"),
        (11, "reaches beyond", "kept"), (12, "outside", "left out"), (13, "6 columns", "left out"),
    ]:
        assert finds(found.problems, f"a.txt line {line}", what, consequence), line
    assert finds(found.problems, "binary.txt", "UTF-8", "left out") and finds(found.problems, "nolabels.png", "no objects", "kept")
    boxes = data.annotations([data.item_id(i) for i in range(4)].index("images/a.png")).boxes
    torch.testing.assert_close(boxes, torch.tensor([[10, 7.5, 30, 22.5], [4, 6, 20, 18], [28, 21, 44, 33]]))
    usable(data)
