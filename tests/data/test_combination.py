"""Combined data sets keep ids and videos, and rare classes come as often as the formula says."""
from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import Image

from label_maps import write_map, write_pairs
from saccade.data.combination import ClassBalanced, Concat, Repeat, Subset, present_classes
from saccade.data.contract import Dataset, Video
from saccade.data.formats.folders import ImageFolder
from saccade.data.formats.segmentation import SegmentationFolders
from saccade.data.town.panoptic import TownPanoptic
from saccade.data.town.segmentation import TownSegmentation
from saccade.errors import DataError, InputError


def folder(root: Path, **counts: int) -> ImageFolder:
    """An image folder with so many pictures of each class."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (2, 2)).save(root / name / f"{number:03d}.png")
    return ImageFolder(root=root, name=root.name)


def ids(data: Dataset) -> list[str]:
    return [data.item_id(i) for i in range(len(data))]


def test_concat_keeps_name_and_id_of_each_sample_and_shifts_videos(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one", a=2, b=1), folder(tmp_path / "two", a=1, b=1)
    two.videos = [Video("v", (0, 1))]
    both = Concat(datasets=[one, two])
    assert isinstance(both, Dataset) and ids(both) == ["one/a/000.png", "one/a/001.png", "one/b/000.png", "two/a/000.png", "two/b/000.png"]
    assert [(both[i].meta.dataset, both[i].meta.id) for i in (2, 3, -1)] == [("one", "b/000.png"), ("two", "a/000.png"), ("two", "b/000.png")]
    assert both.videos == [Video("v", (3, 4))] and [both.annotations(i).label for i in range(5)] == [0, 0, 1, 0, 1]
    with pytest.raises(IndexError):
        both[5]


def test_concat_of_different_classes_is_refused_and_says_which(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only in one of them: b, c"):
        Concat(datasets=[folder(tmp_path / "one", a=1, b=1), folder(tmp_path / "two", a=1, c=1)])


def test_repeat_and_subset_choose_items(tmp_path: Path) -> None:
    data = folder(tmp_path / "x", a=6)
    assert ids(Repeat(dataset=data, times=2)) == ids(data) * 2
    assert ids(Subset(dataset=data, indices=[5, 0])) == ["a/005.png", "a/000.png"]
    assert ids(Subset(dataset=data, count=2)) == ["a/000.png", "a/001.png"]
    half = Subset(dataset=data, fraction=0.5, seed=1)
    assert len(half) == 3 and ids(half) == sorted(ids(half)) == ids(Subset(dataset=data, fraction=0.5, seed=1))
    assert any(ids(half) != ids(Subset(dataset=data, fraction=0.5, seed=s)) for s in range(2, 6))
    for settings in ({}, {"count": 1, "fraction": 0.5}, {"indices": [6]}, {"fraction": 0.0}):
        with pytest.raises(InputError):
            Subset(dataset=data, **settings)


def test_rare_classes_come_ceil_of_the_square_root_of_threshold_over_frequency_times(tmp_path: Path) -> None:
    data = folder(tmp_path / "x", common=18, rare=2)
    balanced = ClassBalanced(dataset=data, threshold=0.9)
    times = math.ceil(math.sqrt(0.9 / 0.1))
    assert times == 3 and ids(balanced) == ids(data)[:18] + ["rare/000.png"] * 3 + ["rare/001.png"] * 3
    assert len(ClassBalanced(dataset=data, threshold=0.1)) == 20


def test_parts_know_what_the_whole_knows_of_its_classes() -> None:
    town = TownSegmentation(num_images=4, size=32)
    for part in (Subset(dataset=town, count=2), Repeat(dataset=town, times=2), Concat(datasets=[town, town])):
        assert part.colours == town.colours and part.subsets == town.subsets and part.things is None
    assert Subset(dataset=TownPanoptic(num_images=2, size=32), count=1).things == TownPanoptic(num_images=2, size=32).things


def test_images_that_show_rare_classes_in_their_pixels_come_more_often(tmp_path: Path) -> None:
    write_pairs(tmp_path, [f"{k}" for k in range(8)], (0,))
    write_map(tmp_path / "labels" / "3.png", (0, 1, 255))
    data = SegmentationFolders(root=tmp_path, classes=["road", "sky"])
    assert present_classes(data.annotations(3)) == {0, 1} and present_classes(data.annotations(2)) == {0}
    balanced = ClassBalanced(dataset=data, threshold=0.5)
    assert [balanced.source_index(i) for i in range(len(balanced))] == [0, 1, 2, 3, 3, 4, 5, 6, 7]
