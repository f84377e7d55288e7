"""Pictures of one object each."""
from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from saccade.data.contract import Dataset
from saccade.data.town.classification import TownClassification
from saccade.data.town.vocabulary import ACTIONS, CLASSES


@pytest.mark.parametrize(("target", "names"), [("class", CLASSES), ("action", ACTIONS)])
def test_labels_are_balanced_and_named(target: str, names: tuple[str, ...]) -> None:
    town = TownClassification(num_images=48, target=target)  # type: ignore[arg-type]
    assert isinstance(town, Dataset) and town.classes == names
    counts = Counter(town[i].label for i in range(48))
    assert counts == {k: 48 // len(names) for k in range(len(names))}
    assert town.describe()["labels"] == {name: 48 // len(names) for name in names}


def test_pictures_are_functions_of_their_index_and_share_scenes_over_domains() -> None:
    day, night = (TownClassification(num_images=12, domain=d) for d in ("day", "night"))
    again = TownClassification(num_images=12)
    assert all(torch.equal(day[i].image, again[i].image) for i in (5, 0, 11))
    assert [day[i].label for i in range(12)] == [night[i].label for i in range(12)] and day.item_id(3) == night.item_id(3)
    assert all((day[i].image.float() - night[i].image.float()).abs().mean() > 20 for i in range(3))


def test_splits_seeds_and_indices_differ() -> None:
    kinds = [{"split": "train"}, {"split": "val"}, {"seed": 4}]
    images = [TownClassification(num_images=12, **kind)[i].image.as_subclass(Tensor) for kind in kinds for i in (0, 6)]
    assert all(not torch.equal(images[a], images[b]) for a in range(6) for b in range(a))


def test_the_object_fills_the_middle() -> None:
    town = TownClassification(num_images=18, size=(64, 96))
    for index in range(18):
        layer = town._portrait(index)
        corners = layer.figure.points * (layer.scale, -layer.scale) + (layer.x, layer.y)
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        assert max((right - left) / 1.5, bottom - top) == pytest.approx(0.77, abs=0.1)
        assert abs((left + right) / 2 - 0.75) < 0.1 and abs((top + bottom) / 2 - 0.5) < 0.06
        assert town[index].image.shape == (3, 64, 96)


def test_an_index_beyond_the_end_is_refused() -> None:
    with pytest.raises(IndexError, match="12"):
        TownClassification(num_images=12)[12]
