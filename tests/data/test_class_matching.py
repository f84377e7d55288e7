"""Classes of data and model are brought together by name."""
from __future__ import annotations

import logging

import pytest

from saccade.data.class_matching import MatchClasses
from saccade.data.town.classification import TownClassification
from saccade.data.town.dataset import Town
from saccade.errors import InputError


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
