"""Classes of data and model are brought together by name."""
from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from label_maps import SIZE, write_cityscapes, write_image, write_map
from saccade.data.class_matching import MatchClasses
from saccade.data.class_sets import CLASS_SETS
from saccade.data.formats.driving_scenes import CamVid, Cityscapes
from saccade.data.town.classification import TownClassification
from saccade.data.town.dataset import Town
from saccade.errors import InputError
from saccade.structures import Annotations, Sample, make_sample


@pytest.fixture
def town() -> Town:
    return Town(size=64, num_videos=1, frames_per_video=3, masks=False, segmentation=False, panoptic=False)


def test_objects_get_the_models_labels_and_others_leave(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    present = next(i for i in range(3) if (labels := town.annotations(i).labels) is not None and len(labels.unique()) > 1)
    whole = town.annotations(present)
    assert whole.labels is not None
    kept = town.classes[int(whole.labels[0])]
    with caplog.at_level(logging.WARNING):
        matched = MatchClasses(dataset=town, classes=["unicorn", kept.upper()])
    assert "it has no unicorn" in caplog.text and "are left out" in caplog.text
    found = matched[present]
    assert found.labels is not None and found.boxes is not None and found.track_ids is not None
    assert set(found.labels.tolist()) == {1} and len(found.boxes) == len(found.track_ids) == int((whole.labels == whole.labels[0]).sum())
    assert matched.classes == ("unicorn", kept.upper()) and matched.videos == town.videos and len(matched) == 3
    assert matched.annotations(present).labels.tolist() == found.labels.tolist()  # type: ignore[union-attr]


def test_names_say_which_classes_are_the_same(town: Town) -> None:
    matched = MatchClasses(dataset=town, classes=["thing"], names=dict.fromkeys(town.classes, "thing"))
    assert set(matched.annotations(0).labels.tolist()) == {0}  # type: ignore[union-attr]
    with pytest.raises(InputError, match="unheard -> thing"):
        MatchClasses(dataset=town, classes=["thing"], names={"unheard": "thing"})


def test_nothing_in_common_is_an_error(town: Town) -> None:
    with pytest.raises(InputError, match="none of the model's classes"):
        MatchClasses(dataset=town, classes=["unicorn"])


def test_whole_images_get_the_models_label_or_none() -> None:
    images = TownClassification(size=32, num_images=8)
    labels = [images.annotations(i).label for i in range(8)]
    assert isinstance(labels[0], int)
    matched = MatchClasses(dataset=images, classes=[images.classes[labels[0]]])
    assert [matched.annotations(i).label for i in range(8)] == [0 if label == labels[0] else None for label in labels]


def test_pixels_get_the_models_labels_and_others_are_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = Cityscapes(root=write_cityscapes(tmp_path, (7, 26, 31, 22)))  # road, car, train, terrain
    with caplog.at_level(logging.WARNING):
        matched = MatchClasses(dataset=data, classes=CLASS_SETS["synthia16"].classes)
    assert "objects and pixels of terrain, truck, train are left out" in caplog.text
    for found in (matched[0], matched.annotations(0)):
        assert found.segmentation is not None and found.segmentation.dtype == torch.uint8
        assert found.segmentation[0, :4].tolist() == [0, 12, 255, 255]
    assert isinstance(matched[0], Sample) and type(matched[0].segmentation) is type(data[0].segmentation)
    assert matched.colours == CLASS_SETS["synthia16"].colours and matched.subsets == {"13": CLASS_SETS["synthia13"].classes}


def test_pixels_of_several_classes_may_become_one(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    write_map(tmp_path / "labels" / "a.png", (3, 4, 9, 10, 11))
    names = {"pavement": "sidewalk", "pedestrian": "person", "bicyclist": "person"}
    matched = MatchClasses(dataset=CamVid(root=tmp_path), classes=["person", "road", "sidewalk"], names=names)
    assert matched.annotations(0).segmentation[0, :5].tolist() == [1, 2, 0, 0, 255]  # type: ignore[index]


def test_a_map_of_other_things_than_the_objects_classes_stays_as_it_is() -> None:
    town = Town(size=64, num_videos=1, frames_per_video=1, masks=False, panoptic=False)  # its map has stuff, its objects have not
    matched = MatchClasses(dataset=town, classes=list(reversed(town.classes)))
    assert torch.equal(matched[0].segmentation, town[0].segmentation)  # type: ignore[arg-type]


def test_maps_of_numbers_wider_than_bytes_are_matched() -> None:
    class Wide:
        name, classes, videos = "wide", ("sky", "road"), ()

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return make_sample(torch.zeros(3, *SIZE, dtype=torch.uint8), self.annotations(index))

        def annotations(self, index: int) -> Annotations:
            return Annotations(segmentation=torch.tensor([[0, 1, 255]]))

    matched = MatchClasses(dataset=Wide(), classes=["road", "sky"])  # type: ignore[arg-type]
    assert matched.annotations(0).segmentation.tolist() == [[1, 0, 255]]  # type: ignore[union-attr]
