"""What a writer puts on disk the reader of the format gives back: pixels, boxes, labels, flags, masks, ids, classes."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from saccade.data.formats.coco import Coco
from saccade.data.formats.folders import ImageFolder
from saccade.data.formats.voc import Voc
from saccade.data.formats.writers import object_crops, write_coco, write_image_folder, write_voc, write_yolo
from saccade.data.formats.yolo import Yolo
from saccade.errors import InputError
from saccade.structures import Annotations, Sample, make_sample

CLASSES = ("tram", "a & <b>", "Straße")


def samples(number: int = 5, *, whole: bool = True) -> list[Sample]:
    """Random pictures of different sizes; picture 0 has no objects, the others up to four, with masks."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for i in range(number):
        height, width = 40 + 3 * i, 61 - 2 * i
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        corner = torch.rand(i, 2, generator=generator) * 20
        boxes = torch.cat([corner, corner + 1 + torch.rand(i, 2, generator=generator) * 17], 1)
        boxes = boxes.round() if whole else boxes
        masks = torch.rand(i, height, width, generator=generator) < 0.3
        found = Annotations(
            boxes=boxes, labels=torch.randint(0, 3, (i,), generator=generator), masks=masks, crowd=torch.arange(i) == 2,
            difficult=torch.arange(i) == 1, areas=masks.sum((1, 2)).float(),
        )
        made.append(make_sample(image, found, dataset="made", id=100 - 7 * i))
    return made


def same(a: Tensor | None, b: Tensor | None) -> bool:
    assert a is not None and b is not None
    return torch.equal(a.as_subclass(Tensor), b.as_subclass(Tensor))


@pytest.mark.parametrize("whole", [True, False])
def test_coco_gives_back_everything(tmp_path: Path, whole: bool) -> None:
    written = write_coco(samples(whole=whole), tmp_path / "out", classes=CLASSES, category_ids=[3, 7, 90])
    back = Coco(root=tmp_path / "out", split="train", masks=True)
    assert (written.images, written.objects, written.left_out) == (5, 10, 0)
    assert back.classes == CLASSES and back.category_ids == (3, 7, 90)
    assert not [p for p in back.problems if p.consequence != "kept"]
    for given, read in zip(samples(whole=whole), (back[i] for i in range(5)), strict=True):
        assert same(given.image, read.image) and given.meta.id == read.meta.id
        for field in ("boxes", "labels", "masks", "crowd", "difficult", "areas"):
            assert same(getattr(given, field), getattr(read, field)), field


def test_each_split_of_coco_stands_in_a_file_of_its_own(tmp_path: Path) -> None:
    write_coco({"train": samples()[3:], "val": samples()[:3], "none": []}, tmp_path / "out", classes=CLASSES)
    lengths = {split: len(Coco(root=tmp_path / "out", split=split)) for split in ("train", "val", "none")}
    assert lengths == {"train": 2, "val": 3, "none": 0}


@pytest.mark.parametrize("whole", [True, False])
def test_voc_gives_back_all_but_crowd(tmp_path: Path, whole: bool) -> None:
    written = write_voc({"train": samples(whole=whole)[:3], "val": samples(whole=whole)[3:]}, tmp_path / "out", classes=CLASSES)
    assert (written.images, written.objects, written.left_out) == (5, 8, 2)
    back = [s for split in ("train", "val") for s in (lambda d: [d[i] for i in range(len(d))])(Voc(root=tmp_path / "out", split=split))]
    assert Voc(root=tmp_path / "out").classes == CLASSES
    for given, read in zip(samples(whole=whole), back, strict=True):
        given = given.select(~given.crowd)
        assert same(given.image, read.image) and read.meta.id == f"{given.meta.id:012d}"
        assert same(given.boxes, read.boxes) and same(given.labels, read.labels) and same(given.difficult, read.difficult)


def test_voc_file_holds_corners_counted_from_one_and_inside(tmp_path: Path) -> None:
    truth = Annotations(boxes=torch.tensor([[0.0, 4, 10, 5]]), labels=torch.tensor([0]))
    write_voc([make_sample(torch.zeros(3, 30, 30, dtype=torch.uint8), truth, id="a")], tmp_path / "out", classes=["x"])
    assert "<xmin>1</xmin><ymin>5</ymin><xmax>10</xmax><ymax>5</ymax>" in (tmp_path / "out" / "Annotations" / "a.xml").read_text()


@pytest.mark.parametrize("whole", [True, False])
def test_yolo_gives_back_boxes_within_a_ten_thousandth_of_a_pixel(tmp_path: Path, whole: bool) -> None:
    write_yolo(samples(whole=whole), tmp_path / "out", classes=CLASSES, split="val")
    back = Yolo(root=tmp_path / "out", split="val")
    assert back.classes == CLASSES and len(back) == 5 and not back.problems
    by_id = {f"images/val/{s.meta.id:012d}.png": s for s in samples(whole=whole)}
    for i in range(5):
        given, read = by_id[back.item_id(i)], back[i]
        given = given.select(~given.crowd)
        assert same(given.image, read.image) and same(given.labels, read.labels)
        torch.testing.assert_close(read.boxes.as_subclass(Tensor), given.boxes.as_subclass(Tensor), atol=1e-4, rtol=0)


def test_image_folder_keeps_the_order_of_the_classes_and_odd_names(tmp_path: Path) -> None:
    names = ("zebra", "T-shirt/top", "ant")
    given = [make_sample(torch.full((3, 8, 8), i, dtype=torch.uint8), Annotations(label=i % 3), id=i) for i in range(7)]
    write_image_folder(given, tmp_path / "out", classes=names)
    back = ImageFolder(root=tmp_path / "out", split="train")
    assert back.classes == names and not back.problems
    assert sorted((int(s.image[0, 0, 0]), s.label) for s in (back[i] for i in range(7))) == [(i, i % 3) for i in range(7)]


def test_crops_are_the_pixels_of_the_boxes() -> None:
    crops = list(object_crops(samples(), smallest=1))
    sample = samples()[1]
    x1, y1, x2, y2 = sample.boxes[0].int().tolist()
    assert same(crops[0].image, sample.image[:, y1:y2, x1:x2]) and crops[0].label == int(sample.labels[0])
    assert len(crops) == 8, "ten objects, two of them crowd regions"


def test_a_folder_with_something_in_it_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(InputError, match="nothing is overwritten"):
        write_coco(samples(), tmp_path / "out", classes=CLASSES)
    assert [f.name for f in tmp_path.rglob("*")] == ["out", "precious"]


def test_a_writer_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    good = samples()
    with pytest.raises(InputError, match="no boxes"):
        write_yolo([*good, make_sample(good[0].image, Annotations(label=0), id="odd")], tmp_path / "out", classes=CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_the_same_name_stay_apart_and_copies_are_the_files_bytes(tmp_path: Path) -> None:
    first = samples()
    for folder in ("a", "b"):
        write_coco(first, tmp_path / folder, classes=CLASSES)
    both = [s for folder in ("a", "b") for s in (Coco(root=tmp_path / folder, split="train")[i] for i in range(5))]
    written = write_coco(both, tmp_path / "both", classes=CLASSES, pictures="copy")
    assert written.images == 10 and len(list((tmp_path / "both" / "train").iterdir())) == 10
    assert (tmp_path / "both" / "train" / "000000000100_2.png").read_bytes() == (tmp_path / "b" / "train" / "000000000100.png").read_bytes()
    assert len(Coco(root=tmp_path / "both", split="train")) == 10
