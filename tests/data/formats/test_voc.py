"""VOC's layouts, its two readings of a corner, its difficult objects, and the multi-label classification of the same files."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from saccade.data.classes import VOC
from saccade.data.formats.results import write_voc_results
from saccade.data.formats.voc import Voc, VocClassification
from saccade.errors import DataError
from saccade.structures import Detections

RACCOONS = Path(__file__).parents[3].parent / "shared" / "data" / "raccoon_voc"
Object = tuple[str, tuple[int, int, int, int], int]


def image(folder: Path, stem: str, *objects: Object, split: str = "trainval") -> None:
    """One picture of 50 x 40 with its xml, added to a split."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (50, 40)).save(folder / "JPEGImages" / f"{stem}.jpg")
    (folder / "Annotations" / f"{stem}.xml").write_text("<annotation><size><width>50</width><height>40</height></size>" + "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmax>{x2}</xmax><xmin>{x1}</xmin><ymax>{y2}</ymax><ymin>{y1}</ymin>"
        f"</bndbox><part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"
        for name, (x1, y1, x2, y2), difficult in objects
    ) + "</annotation>")
    with open(folder / "ImageSets" / "Main" / f"{split}.txt", "a") as listing:
        listing.write(f"{stem}\n")


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    image(tmp_path / "VOC2007", "000001", ("dog", (11, 12, 20, 30), 0), ("cat", (1, 1, 5, 5), 1))
    image(tmp_path / "VOC2007", "000002", split="test")
    image(tmp_path / "VOC2012", "2012_000001", ("dog", (2, 2, 9, 9), 1), ("dog", (2, 2, 9, 9), 0), ("tvmonitor", (3, 3, 9, 9), 0))
    return tmp_path


def test_the_named_years_are_read_as_published_with_one_taken_from_all_four_numbers(devkit: Path) -> None:
    data = Voc(root=devkit, year=2007, split="trainval")
    assert data.classes == VOC and data.annotations(0).boxes.tolist() == [[10, 11, 19, 29], [0, 0, 4, 4]]
    assert data.annotations(0).labels.tolist() == [VOC.index("dog"), VOC.index("cat")]
    assert data.annotations(0).difficult.tolist() == [False, True]


def test_half_open_boxes_cover_the_last_pixel(devkit: Path) -> None:
    assert Voc(root=devkit, year=2007, split="trainval", half_open=True).annotations(0).boxes.tolist() == [[10, 11, 20, 30], [0, 0, 5, 5]]
    plain = Voc(root=_renamed(devkit), split="trainval")
    assert plain.annotations(0).boxes.tolist() == [[10, 11, 20, 30], [0, 0, 5, 5]], "folders of one's own are exact by default"
    assert plain.classes == ("cat", "dog")


def _renamed(devkit: Path) -> Path:
    return (devkit / "VOC2007").rename(devkit / "pets")


def test_an_object_of_one_pixel_survives_only_half_open(tmp_path: Path) -> None:
    image(tmp_path / "VOC2012", "a", ("dog", (7, 7, 7, 7), 0))
    data = Voc(root=tmp_path, year=2012, split="trainval")
    assert len(data.annotations(0).boxes) == 0 and "half_open" in data.problems[0].what
    assert Voc(root=tmp_path, year=2012, split="trainval", half_open=True).annotations(0).boxes.tolist() == [[6, 6, 7, 7]]


def test_several_years_are_one_data_set_and_training_drops_difficult_objects(devkit: Path) -> None:
    data = Voc(root=devkit, sets=[(2007, "trainval"), (2012, "trainval")], keep_difficult=False)
    assert [data.item_id(i) for i in range(len(data))] == ["000001", "2012_000001"]
    assert [data.annotations(i).labels.tolist() for i in range(2)] == [[VOC.index("dog")], [VOC.index("dog"), VOC.index("tvmonitor")]]
    assert data[1].meta.path == str(devkit / "VOC2012" / "JPEGImages" / "2012_000001.jpg")


def test_an_image_without_objects_has_empty_boxes_and_not_none(devkit: Path) -> None:
    sample = Voc(root=devkit, year=2007, split="test")[0]
    assert sample.boxes.shape == (0, 4) and sample.labels.shape == (0,) and sample.labels.dtype == torch.int64


def test_lists_of_one_class_and_names_with_blanks_are_read(tmp_path: Path) -> None:
    image(tmp_path, "my photo", ("dog", (2, 2, 9, 9), 0))
    image(tmp_path, "b")
    (tmp_path / "ImageSets" / "Main" / "dog_trainval.txt").write_text("my photo  1\nb -1\n")
    for split in ("trainval", "dog_trainval"):
        data = Voc(root=tmp_path, split=split)
        assert [data.item_id(i) for i in range(2)] == ["my photo", "b"] and data[0].meta.path.endswith("my photo.jpg")


@pytest.mark.parametrize("settings, said", [
    ({"year": 2010, "split": "train"}, "no VOC2010"), ({"year": 2007, "split": "nope"}, "known are test, trainval"),
    ({}, "has no folder Annotations"), ({"sets": [(2007, "test")], "split": "train"}, "both"),
])
def test_what_is_missing_is_named(devkit: Path, settings: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Voc(root=devkit, **settings)


def test_multi_label_says_present_only_difficult_and_absent(devkit: Path) -> None:
    data = VocClassification(root=devkit, sets=[(2007, "trainval"), (2012, "trainval")])
    labels = [data[i].label for i in range(2)]
    expected = [{"dog": 1.0, "cat": -1.0}, {"dog": 1.0, "tvmonitor": 1.0}]
    assert [{VOC[i]: float(label[i]) for i in label.nonzero().flatten()} for label in labels] == expected
    assert data[0].boxes is None


@pytest.mark.parametrize("half_open, line", [(True, "000001 0.500000 11.000000 12.000000 20.000000 30.000000"),
                                             (False, "000001 0.500000 11.000000 12.000000 21.000000 31.000000")])
def test_result_files_count_from_one_and_every_class_has_one(tmp_path: Path, half_open: bool, line: str) -> None:
    found = Detections(torch.tensor([[10.0, 11, 20, 30]]), torch.tensor([0.5]), torch.tensor([1]))
    files: Sequence[Path] = write_voc_results(tmp_path / "out", [("000001", found)], ["cat", "dog"], half_open=half_open)
    assert [f.name for f in files] == ["comp4_det_test_cat.txt", "comp4_det_test_dog.txt"]
    assert files[0].read_text() == "" and files[1].read_text() == line + "\n"


@pytest.mark.skipif(not RACCOONS.is_dir(), reason="the raccoon pictures are not here")
def test_the_raccoons_are_all_there() -> None:
    train, val = Voc(root=RACCOONS, split="train"), Voc(root=RACCOONS, split="val")
    assert [(len(d), sum(len(d.annotations(i).boxes) for i in range(len(d)))) for d in (train, val)] == [(161, 173), (39, 44)]
    assert train.classes == ("raccoon",) and not train.problems and not val.problems
