"""Recipes: inheritance, references, deletions, overrides, origins."""
from __future__ import annotations

from pathlib import Path

import pytest

from saccade.errors import InputError
from saccade.recipes import compare, load_recipe, recipe_from_values


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_later_wins_mappings_merge_lists_replace(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "run: {steps: 10, seed: 1}\ndata:\n  train_transforms: [a, b]\n")
    child = write(tmp_path, "child.yaml", "base: base.yaml\nrun: {steps: 20}\ndata:\n  train_transforms: [c]\n")
    assert load_recipe(child).values == {"run": {"steps": 20, "seed": 1}, "data": {"train_transforms": ["c"]}}


def test_several_bases_are_merged_left_to_right(tmp_path: Path) -> None:
    write(tmp_path, "one.yaml", "run: {steps: 1, seed: 1}")
    write(tmp_path, "two.yaml", "run: {steps: 2}")
    assert load_recipe(write(tmp_path, "c.yaml", "base: [one.yaml, two.yaml]")).values == {"run": {"steps": 2, "seed": 1}}


def test_delete_removes_an_inherited_key_and_an_unneeded_delete_leaves_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "run: {steps: 10, seed: 1}\nmodel: {type: A}")
    child = write(tmp_path, "child.yaml", "base: base.yaml\nrun: {seed: !delete}\nmodel: !delete\ndata: {x: !delete}")
    assert load_recipe(child).values == {"run": {"steps": 10}, "data": {}}


def test_another_type_starts_afresh_instead_of_inheriting_foreign_arguments(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "learner: {optimizer: {type: SGD, momentum: 0.9}}")
    child = write(tmp_path, "child.yaml", "base: base.yaml\nlearner: {optimizer: {type: AdamW, lr: 1e-4}}")
    assert load_recipe(child).values["learner"]["optimizer"] == {"type": "AdamW", "lr": 1e-4}


def test_references_copy_values_fill_text_and_keep_both_origins(tmp_path: Path) -> None:
    path = write(tmp_path, "r.yaml", "model: {size: [3, 4]}\nrun:\n  a: ${model.size}\n  b: ${model.size.1}\n  c: s${run.b}x\n")
    recipe = load_recipe(path)
    assert recipe.values["run"] == {"a": [3, 4], "b": 4, "c": "s4x"}
    assert recipe.origins["run.b"] == f"{path}:1 via {path}:4"


def test_an_override_reaches_into_what_a_reference_stands_for(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("data:\n  train: {type: Town, size: 64, num_videos: 5}\n  evaluate:\n    fog: ${data.train}\n")
    values = load_recipe(tmp_path / "r.yaml", ["data.evaluate.fog.num_videos=2"]).values
    assert values["data"]["evaluate"]["fog"] == {"type": "Town", "size": 64, "num_videos": 2} and values["data"]["train"]["num_videos"] == 5


@pytest.mark.parametrize(
    "text, words",
    [
        ("a: ${b}\nb: ${a}", ["refers to itself", ":1"]),
        ("model: {size: 1}\na: ${model.sise}", ["model.size", ":2"]),
    ],
)
def test_bad_references_name_line_and_remedy(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        load_recipe(write(tmp_path, "r.yaml", text))
    assert all(word in str(error.value) for word in words)


def test_overrides_come_last_may_index_lists_and_say_where_they_come_from(tmp_path: Path) -> None:
    path = write(tmp_path, "r.yaml", "run: {steps: 10, seed: 3}\ndata:\n  train_transforms:\n    - {type: Resize, size: 1}\n    - {type: Pad}\n")
    overrides = ["run.steps=1e3", "data.train_transforms.0.size=[8, 9]", "run.seed=!delete", "data.train_transforms.1=!delete", "run.name=x=y"]
    recipe = load_recipe(path, overrides)
    assert recipe.values == {"run": {"steps": 1000.0, "name": "x=y"}, "data": {"train_transforms": [{"type": "Resize", "size": [8, 9]}]}}
    assert recipe.origins["run.steps"] == "command line"
    assert recipe.origins["data.train_transforms.0.type"] == f"{path}:4"


@pytest.mark.parametrize("override", ["run.steps", "=3", "data.list.7=1", "run.absent=!delete"])
def test_overrides_that_say_nothing_are_refused(tmp_path: Path, override: str) -> None:
    path = write(tmp_path, "r.yaml", "run: {steps: 10}\ndata: {list: [1, 2]}")
    with pytest.raises(InputError):
        load_recipe(path, [override])


def test_scalars_follow_yaml_1_2(tmp_path: Path) -> None:
    path = write(tmp_path, "r.yaml", "a: 1e-3\nb: no\nc: '1'\nd: 0x10\ne: .inf\nf: ~\ng: true\nh: 1_000\ni: 1.\nj: -5")
    assert load_recipe(path).values == {
        "a": 0.001, "b": "no", "c": "1", "d": "0x10", "e": float("inf"), "f": None, "g": True, "h": 1000, "i": 1.0, "j": -5,
    }


def test_a_dumped_recipe_loads_to_the_same_values(tmp_path: Path) -> None:
    first = load_recipe(write(tmp_path, "r.yaml", "run: {steps: 1e-3, name: 'no', other: '12', n: ~}\ndata: {x: [1, {y: 2.0}]}"))
    assert load_recipe(write(tmp_path, "again.yaml", first.dump())).values == first.values


def test_comparison_is_by_value_with_origins_of_both_sides(tmp_path: Path) -> None:
    left = load_recipe(write(tmp_path, "a.yaml", "run: {steps: 1, seed: 0}\nx: 1"))
    right = recipe_from_values({"run": {"steps": 2, "seed": 0}, "y": True}, "b", "python")
    found = {d.path: (d.left, d.right) for d in compare(left, right)}
    assert found == {"run.steps": (1, 2), "x": (1, "(absent)"), "y": ("(absent)", True)}


def test_bases_that_circle_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "base: b.yaml")
    path = write(tmp_path, "b.yaml", "base: a.yaml")
    with pytest.raises(InputError, match="leads back to itself"):
        load_recipe(path)
