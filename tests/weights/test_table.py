"""The table of published checkpoints is complete and consistent; torchvision's own list is offered beside it."""
from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from saccade.errors import InputError
from saccade.recipes import zoo_names
from saccade.weights.table import find, published, torchvision_weights


def test_every_entry_names_where_it_is_and_under_which_terms() -> None:
    for name, entry in published().items():
        assert entry.name == name and entry.licence and entry.page, name
        assert urlsplit(entry.url).scheme in ("http", "https") and entry.file.startswith(name.partition("/")[0] + "/"), name
        assert all(0 < value < 1 for value in entry.figures.values()), name


def test_digests_are_those_of_the_file_names() -> None:
    for name, entry in published().items():
        in_name = re.search(r"-([0-9a-f]{8})\.pth$", entry.url)
        assert entry.sha256 == (in_name[1] if in_name else None), name


def test_no_two_entries_share_a_file() -> None:
    files = [entry.file for entry in published().values()]
    assert len(files) == len(set(files))


def test_the_seven_ssd_files_are_there_with_their_figures() -> None:
    figures = {name: entry.figures for name, entry in published().items() if entry.system == "SSD"}
    assert len(figures) == 7
    assert figures["lufficc/ssd300_vgg16_voc"] == {"voc/mAP07": 0.777} and figures["lufficc/ssd512_vgg16_coco"] == {"coco/AP": 0.29}


def test_torchvision_offers_its_own_with_digests() -> None:
    weights = torchvision_weights()
    resnet = weights["torchvision/resnet50.IMAGENET1K_V2"]
    assert resnet.sha256 and resnet.sha256 in resnet.url and resnet.figures["classification/top1"] == pytest.approx(0.80858)
    assert find("torchvision/resnet50.IMAGENET1K_V2") == resnet


def test_unknown_names_get_near_ones() -> None:
    with pytest.raises(InputError, match="mmcls/resnet50_8xb32_in1k"):
        find("mmcls/resnet50_8xb32")
    with pytest.raises(InputError, match=r"resnet50\.IMAGENET1K_V"):
        find("torchvision/resnet50.IMAGENET1K_V9")




def test_the_recipes_that_entries_name_are_shipped() -> None:
    named = {entry.recipe for entry in published().values() if entry.recipe is not None}
    assert named <= set(zoo_names())
