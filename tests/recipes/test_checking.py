"""Checking and building: mistakes are found without imports, objects get plain typed arguments."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from saccade.errors import InputError
from saccade.recipes import build, check, recipe_from_values
from saccade.recipes.registry import TABLE, add_plugin, find_target, known_names
from saccade.recipes.signatures import read_signature


def test_every_name_of_the_table_has_a_readable_fully_annotated_signature() -> None:
    for name in (n for names in TABLE.values() for n in names):
        signature = read_signature(str(find_target(name)))
        assert signature.summary, f"{name} has no docstring"
        assert all(p.text for p in signature.parameters), f"{name} has arguments without types"


def test_names_of_types_are_followed_into_the_modules_that_they_come_from() -> None:
    for name in ("student", "pupil"):
        objects = {"type": "ConfidentDetections", "network": name}
        learner = {"type": "Adapting", "objects": objects, "terms": [], "optimizer": {"type": "Adam", "lr": 1}}
        recipe = recipe_from_values({"learner": learner}, "r", "here")
        if name == "student":
            check(recipe)
        else:
            with pytest.raises(InputError, match="'student', 'teacher' or 'fixed'"):
                check(recipe)


def test_torchvision_names_have_signatures() -> None:
    for name in known_names("transforms"):
        assert read_signature(str(find_target(name))).name


def test_text_is_no_number_and_a_list_is_a_tuple(tmp_path: Path) -> None:
    built = build({"type": "Resize", "size": [3, 4]})
    assert list(built.size) == [3, 4]
    with pytest.raises(InputError, match="valid number"):
        build({"type": "RandomHorizontalFlip", "p": "0.5"})


def test_all_mistakes_are_listed_at_once_with_paths_and_near_names() -> None:
    recipe = recipe_from_values(
        {"dta": {}, "data": {"train_transforms": [{"type": "Resise", "size": 3}, {"type": "RandomHorizontalFlip", "q": 1}]}}, "r", "here"
    )
    with pytest.raises(InputError) as error:
        check(recipe)
    message = str(error.value)
    assert "did you mean data" in message
    assert "did you mean Resize" in message
    assert "data.train_transforms.1.q" in message


def test_plugins_add_their_classes_and_may_not_take_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_plugin").mkdir()
    (tmp_path / "my_plugin/__init__.py").write_text("SACCADE = {'transforms': {'Mine': 'my_plugin.things:Mine'}}")
    (tmp_path / "my_plugin/things.py").write_text("class Mine:\n    'Mine.'\n    def __init__(self, *, x: int) -> None:\n        self.x = x\n")
    (tmp_path / "thief.py").write_text("SACCADE = {'transforms': {'Resize': 'thief:Resize'}}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(TABLE, "transforms", dict(TABLE["transforms"]))
    add_plugin("my_plugin")
    assert build({"type": "Mine", "x": 3}).x == 3
    for wrong in ("thief", "no_such_package_at_all"):
        with pytest.raises(InputError):
            add_plugin(wrong)


def test_checking_imports_nothing_heavy() -> None:
    code = "import sys; from saccade.recipes import load_recipe, check, zoo_names\nfor n in zoo_names():\n    if n[0] != '_': check(load_recipe(n))\n"
    code += "assert not {'torch', 'torchvision', 'lightning_fabric', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
