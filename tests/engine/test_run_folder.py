"""Run folders: what is recorded, and what is cut off when a run goes on from an earlier step."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from saccade.engine.run_folder import Records, RunFolder
from saccade.errors import InputError
from saccade.recipes import recipe_from_values


def test_a_new_run_describes_itself(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.begin(recipe_from_values({"run": {"steps": 5}}, "tiny", "tiny.yaml:1"))
    assert yaml.safe_load((folder.path / "recipe.yaml").read_text()) == {"run": {"steps": 5}}
    assert json.loads((folder.path / "recipe_origins.json").read_text())["run.steps"] == "tiny.yaml:1"
    environment = json.loads((folder.path / "environment.json").read_text())
    assert environment["versions"]["torch"] and environment["cores"] and environment["command"]


def test_folders_with_a_run_or_with_anything_else_are_refused(tmp_path: Path) -> None:
    recipe = recipe_from_values({}, "tiny", "x")
    RunFolder(tmp_path / "run").begin(recipe)
    with pytest.raises(InputError, match=r"already holds a run.*--resume"):
        RunFolder(tmp_path / "run").check(resume=False)
    with pytest.raises(InputError, match="not empty"):
        RunFolder(tmp_path).check(resume=False)
    with pytest.raises(InputError, match="no run in"):
        RunFolder(tmp_path / "other").check(resume=True)
    RunFolder(tmp_path / "run").check(resume=True)
    RunFolder(tmp_path / "other").check(resume=False)


def test_records_after_a_step_and_a_cut_off_line_go(tmp_path: Path) -> None:
    records = Records(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        records.append("train", step, {"loss": 0.5})
    with records.path.open("a") as file:
        file.write('{"kind": "train", "st')
    records.cut_after(2)
    assert [r["step"] for r in records.read()] == [1, 2]
    assert records.path.read_text().endswith("\n")


def test_numbers_that_json_does_not_know_are_words(tmp_path: Path) -> None:
    records = Records(tmp_path / "metrics.jsonl")
    records.append("train", 1, {"a": float("nan"), "b": float("-inf"), "c": 1.5})
    read = json.loads(records.path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))
    assert (read["a"], read["b"], read["c"]) == ("NaN", "-Infinity", 1.5)


def test_a_disk_that_takes_no_records_costs_a_warning_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = Records(tmp_path / "nowhere" / "metrics.jsonl")
    records.append("train", 1, {})
    records.append("train", 2, {})
    assert caplog.text.count("can't be written") == 1
