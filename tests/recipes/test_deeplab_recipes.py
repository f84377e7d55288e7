"""The shipped recipes of DeepLabV2: valid, with a header that says how to run them, networks of the published sizes, groups of the published kind."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.engine.checkpoints import without_downloads
from saccade.learning.groups import GroupRules, parameter_groups
from saccade.models.deeplab import DeepLabV2
from saccade.recipes import build, check, load_recipe, zoo_names

RECIPES = [name for name in zoo_names() if name.startswith(("deeplab_", "oracle_segmentation_"))]
# Parameters with one head, and the classes that the data have.
SIZES = {
    "deeplab_r101_gta5": (43_901_068, 19), "deeplab_r101_synthia": (43_679_872, 16), "deeplab_vgg16_gta5": (29_573_004, 19),
    "oracle_segmentation_cityscapes": (43_901_068, 19),
}


def on_meta(name: str, classes: int) -> DeepLabV2:
    spec: dict[str, Any] = without_downloads(load_recipe(name).section("model"))
    with torch.device("meta"):
        model = build(spec, classes=[f"class {k}" for k in range(classes)])
    assert isinstance(model, DeepLabV2)
    return model


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_valid_and_says_how_to_run_it(name: str) -> None:
    recipe = load_recipe(name)
    check(recipe)
    assert f"Command: saccade train {name}" in recipe.header and "Hardware" in recipe.header
    assert recipe.section("metrics") == [{"type": "SegmentationIoU"}]


@pytest.mark.parametrize("name", SIZES)
def test_networks_have_the_published_size(name: str) -> None:
    parameters, classes = SIZES[name]
    assert sum(p.numel() for p in on_meta(name, classes).parameters()) == parameters


def test_heads_learn_ten_times_as_fast_and_the_published_optimiser_can_be_had() -> None:
    recipe = load_recipe("deeplab_r101_gta5", ["learner.groups.repeated_3={repeats: 3}", "learner.groups.repeated_4={repeats: 4}"])
    groups = parameter_groups(on_meta("deeplab_r101_gta5", 19), 2.5e-4, 5e-4, GroupRules(recipe.section("learner")["groups"]))  # type: ignore[index]
    assert {(g.name, g.lr, g.repeats, len(g.parameters)) for g in groups} == {
        ("all others", 2.5e-4, 1, 1), ("repeated_3", 2.5e-4, 3, 99), ("repeated_4", 2.5e-4, 4, 4), ("head", 2.5e-3, 1, 8),
    }


def test_published_networks_get_their_pixels(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: [deeplab_r101_gta5, _deeplab_caffe_pixels]\n")
    norm = build(load_recipe(tmp_path / "mine.yaml").section("model")["pixel_norm"])  # type: ignore[index]
    white = norm(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    # The original: PIL's RGB turned to BGR, less (104.00698793, 116.66876762, 122.67891434).
    torch.testing.assert_close(white, 255 - torch.tensor([104.00698793, 116.66876762, 122.67891434]))
    ordinary = on_meta("deeplab_r101_gta5", 19).pixel_norm
    assert ordinary.channel_order == "rgb" and ordinary.std == pytest.approx((58.395, 57.12, 57.375))
