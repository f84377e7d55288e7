"""The shipped recipes of AdaptSegNet and ADVENT: valid without data, with a header that says how to run them, and with the published settings."""
from __future__ import annotations

from typing import Any

import pytest
import torch

from saccade.data.class_sets import CLASS_SETS
from saccade.learning.schedules import Poly
from saccade.recipes import build, check, load_recipe, zoo_names

METHODS = (
    "adaptsegnet_multi", "adaptsegnet_single", "adaptsegnet_ls", "adaptsegnet_vgg", "minent", "minent_er", "advent", "advent_cp", "advent_st",
)
RECIPES = [name for name in zoo_names() if name.startswith(("adaptsegnet_", "minent_", "advent_"))]
PUBLISHED = [name for name in RECIPES if name.endswith("_cityscapes")]


def terms(name: str) -> list[dict[str, Any]]:
    """The terms of a recipe."""
    found: list[dict[str, Any]] = load_recipe(name).section("learner")["terms"]  # type: ignore[index]
    return found


def test_every_method_has_a_recipe_for_every_pair_of_domains() -> None:
    assert {f"{method}_{pair}_cityscapes" for method in METHODS for pair in ("gta5", "synthia")} <= set(RECIPES)
    small = [method for method in METHODS if not method.endswith("vgg")]
    assert {f"{method}_{pair}" for method in small for pair in ("camvid_dusk", "town_night", "town_fog")} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_valid_and_says_how_to_run_it(name: str) -> None:
    recipe = load_recipe(name)
    check(recipe)
    command = "train" if recipe.section("model") and name in PUBLISHED else "adapt"
    assert f"Command: saccade {command} {name}" in recipe.header and "Hardware" in recipe.header
    assert recipe.section("metrics") == [{"type": "SegmentationIoU"}]
    data = recipe.section("data")
    assert data["train"]["labelled"] is False and data["source"].get("labelled", True)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_steps_rates_and_pictures(name: str) -> None:
    recipe = load_recipe(name)
    learner, run, data = recipe.section("learner"), recipe.section("run"), recipe.section("data")
    assert learner["optimizer"] == {"type": "SGD", "lr": 2.5e-4, "momentum": 0.9, "weight_decay": 5e-4} and run["batch_size"] == 1
    assert learner.get("groups") == (None if "vgg" in name else {"head": {"lr": 10}}) and learner["mode"] == "train"
    of_advent = not name.startswith("adaptsegnet")
    steps = 90000 if of_advent and "synthia" in name else 120000 if of_advent else 130000 if "vgg" in name else 150000
    assert run["steps"] == steps
    rate = build(learner["schedule"])
    assert isinstance(rate, Poly) and rate.power == 0.9 and rate.total_steps == (90000 if steps == 90000 else 250000)
    assert data["train_transforms"] == [{"type": "Resize", "size": [512, 1024], "interpolation": "bicubic"}]
    assert data["source_transforms"][0]["size"] == ([720, 1280] if "gta5" in name else [760, 1280])
    for term in terms(name):
        if term["type"] == "Adversarial":
            assert term["optimizer"] == {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99]} and term["schedule"] == learner["schedule"]


@pytest.mark.parametrize(("name", "expected"), [
    ("adaptsegnet_multi_gta5_cityscapes", {("aux_logits", "softmax", "bce"): 2e-4, ("logits", "softmax", "bce"): 1e-3}),
    ("adaptsegnet_single_gta5_cityscapes", {("logits", "softmax", "bce"): 1e-3}),
    ("adaptsegnet_ls_gta5_cityscapes", {("logits", "softmax", "ls"): 1e-2}),
    ("adaptsegnet_vgg_synthia13_cityscapes", {("logits", "softmax", "bce"): 1e-3}),
    ("advent_gta5_cityscapes", {("aux_logits", "self_information", "bce"): 2e-4, ("logits", "self_information", "bce"): 1e-3}),
    ("advent_synthia_cityscapes", {("logits", "self_information", "bce"): 1e-3}),
    ("minent_gta5_cityscapes", {}),
])
def test_the_published_weights_of_the_adversaries(name: str, expected: dict[tuple[str, str, str], float]) -> None:
    adversaries = [term for term in terms(name) if term["type"] == "Adversarial"]
    found = {(t.get("output", "logits"), t.get("maps", "softmax"), t.get("loss", "bce")): t["weight"] for t in adversaries}
    assert found == expected and terms(name)[0] == {"type": "Supervision"}
    auxiliary = load_recipe(name).section("model")["auxiliary"]  # type: ignore[index]
    assert auxiliary == any(t.get("output") == "aux_logits" for t in terms(name))


def test_the_published_weights_of_the_entropy() -> None:
    for name, share in (("minent_gta5_cityscapes", 1), ("minent_er_gta5_cityscapes", 0.3)):
        found = {t.get("output", "logits"): (t["weight"], t.get("share", 1)) for t in terms(name) if t["type"] == "MapEntropy"}
        assert found == {"aux_logits": (2e-4, share), "logits": (1e-3, share)}


@pytest.mark.parametrize("name", ["tent_classifier_town_night", "mean_teacher_classifier_town_night", "tent_ssd_town_night"])
def test_the_crossings_are_valid(name: str) -> None:
    recipe = load_recipe(name)
    check(recipe)
    assert f"Command: saccade adapt {name} --from runs/" in recipe.header and "Hardware" in recipe.header


@pytest.mark.parametrize(("pair", "classes", "parameters"), [("gta5", "cityscapes19", 44_601_560), ("synthia", "synthia16", 43_679_872)])
def test_the_ensembles_are_two_of_the_published_networks(pair: str, classes: str, parameters: int) -> None:
    recipe = load_recipe(f"ensemble_advent_minent_{pair}_cityscapes")
    check(recipe)
    names = CLASS_SETS[classes].classes
    with torch.device("meta"):
        model = build(recipe.section("model"), classes=names)
    assert model.classes == names and model.weights == [0.5, 0.5]
    assert sum(p.numel() for p in model.parameters()) == 2 * parameters
    assert [source["into"] for source in recipe.section("weights")] == ["members.0", "members.1"]
    assert f"Command: saccade evaluate {recipe.name} --weights recipe" in recipe.header
