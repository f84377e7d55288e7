"""Recipes with stages: each is the shared sections with its own merged over, and mistakes in any of them are found before anything runs."""
from __future__ import annotations

from pathlib import Path

import pytest

from saccade.errors import InputError
from saccade.recipes import check, compare, load_recipe, recipe_from_values, stage_recipes
from saccade.recipes.registry import TABLE
from saccade.recipes.stages import outcome, read_stages, stage_trees

SHARED = """\
model: {type: ImageClassifier, backbone: {type: LeNet5}}
data: {train: {type: ImageFolder, root: images}, workers: 2}
learner: {type: Supervised, optimizer: {type: SGD, lr: 0.1}, schedule: {type: Poly, power: 0.9}}
metrics: [{type: ClassificationAccuracy}]
run: {steps: 10, batch_size: 4}
"""
STAGED = SHARED + """\
stages:
  first: {run: {seed: "${run.steps}"}}
  labels: {task: {type: Write, into: maps}, weights: {source: "stage:first"}}
  second:
    base: [_second.yaml]
    weights: {source: "stage:first/teacher"}
    run: {steps: 20, batch_size: 8}
"""
SECOND = "base: [_faster.yaml]\nlearner: {schedule: !delete}\ndata: {train: {root: 'stage:labels'}}\n"


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(TABLE, "tasks", {"Write": "tiny_stages:Write"})
    write(tmp_path, "_faster.yaml", "learner: {clip_norm: 5, schedule: {power: 2}}")
    write(tmp_path, "_second.yaml", SECOND)
    return write(tmp_path, "staged.yaml", STAGED)


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def resolved(path: str, *overrides: str) -> dict[str, dict[str, object]]:
    """The plain values of each stage."""
    stages: dict[str, dict[str, object]] = load_recipe(path, overrides).values["stages"]
    return stages


def test_a_stage_is_the_shared_sections_with_its_bases_and_its_own_over_them(staged: str) -> None:
    stages = resolved(staged)
    assert list(stages) == ["first", "labels", "second"]
    assert stages["first"]["run"] == {"steps": 10, "batch_size": 4, "seed": 10}
    assert stages["second"]["run"] == {"steps": 20, "batch_size": 8}
    assert stages["second"]["data"] == {"train": {"type": "ImageFolder", "root": "stage:labels"}, "workers": 2}
    assert stages["second"]["learner"] == {"type": "Supervised", "optimizer": {"type": "SGD", "lr": 0.1}, "clip_norm": 5}


def test_a_stage_with_a_task_has_no_learner_metrics_or_online_section(staged: str) -> None:
    assert list(resolved(staged)["labels"]) == ["model", "data", "run", "task", "weights"]


def test_a_child_changes_stages_adds_to_them_and_removes_them(staged: str, tmp_path: Path) -> None:
    child = write(tmp_path, "child.yaml", "base: staged.yaml\nstages: {second: !delete, first: {run: {steps: 3}}, last: {run: {steps: 4}}}\n")
    stages = resolved(child)
    assert list(stages) == ["first", "labels", "last"] and stages["first"]["run"]["seed"] == 3  # type: ignore[index]
    assert "stages" not in load_recipe(write(tmp_path, "plain.yaml", "base: staged.yaml\nstages: !delete")).values


def test_values_keep_their_lines(staged: str) -> None:
    origins = load_recipe(staged, ["stages.second.data.workers=0"]).origins
    assert origins["stages.second.learner.clip_norm"].endswith("_faster.yaml:1")
    assert origins["stages.second.learner.optimizer.lr"] == f"{staged}:3" and origins["stages.second.run.steps"] == f"{staged}:12"
    assert origins["stages.first.run.seed"] == f"{staged}:5 via {staged}:7"
    assert origins["stages.second.data.workers"] == "command line"


def test_an_override_is_for_one_stage_or_for_all_whatever_they_say(staged: str) -> None:
    stages = resolved(staged, "run.batch_size=2", "stages.second.run.steps=1", "learner.clip_norm=!delete")
    assert [stage["run"] for stage in stages.values()] == [
        {"steps": 10, "batch_size": 2, "seed": 10}, {"steps": 10, "batch_size": 2}, {"steps": 1, "batch_size": 2}]
    assert "clip_norm" not in stages["second"]["learner"]  # type: ignore[operator]
    assert list(resolved(staged, "stages.labels=!delete", "stages.second.data.train.root=!delete")) == ["first", "second"]


@pytest.mark.parametrize(
    "override, words",
    [
        ("stages.secnd.run.steps=1", "did you mean second"),
        ("stages=3", "there is no stage"),
        ("stages.labels.learner.clip_norm=1", "has a task, which has no use for the section 'learner'"),
        ("model.size=!delete", "there is no model.size to delete"),
    ],
)
def test_overrides_that_fit_no_stage_are_refused(staged: str, override: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_recipe(staged, [override])


def test_references_to_stages_become_paths_in_the_run_folder(staged: str, tmp_path: Path) -> None:
    stages = dict(stage_recipes(load_recipe(staged), tmp_path / "run"))
    assert stages["second"].name == "staged/second"
    assert stages["second"].section("weights") == {"source": str(tmp_path / "run" / "first" / "teacher")}
    assert stages["second"].section("data")["train"]["root"] == str(tmp_path / "run" / "labels")
    assert {name: read_stages(tree) for name, tree in stage_trees(load_recipe(staged)).items()} == {
        "first": [], "labels": ["first"], "second": ["labels", "first"]}


def test_what_is_written_into_a_run_folder_loads_to_the_same(staged: str, tmp_path: Path) -> None:
    first = load_recipe(staged)
    assert compare(first, load_recipe(write(tmp_path, "again.yaml", first.dump()))) == []


def test_the_outcome_is_the_last_stage_that_trains(staged: str) -> None:
    assert outcome(load_recipe(staged)).section("run")["steps"] == 20
    assert outcome(load_recipe(staged, ["stages.second=!delete"])).section("run")["steps"] == 10


@pytest.mark.parametrize(
    "change, words",
    [
        (("first", "frist"), ["staged.yaml:8: stages.labels.weights.source: 'stage:first': there is no stage 'first'; did you mean frist?"]),
        (("stage:first/", "stage:second/"), ["stages.second.weights.source", "the stage 'second' reads 'second', which is itself"]),
        (('"stage:first"', '"stage:second"'), ["staged.yaml:8", "reads 'second', which comes later"]),
        (("task: {", "tasc: {"), ["staged.yaml:8: unknown section 'tasc'; did you mean task", "(stage labels)"]),
        (("run: {steps: 20", "run: {stepz: 20"), ["staged.yaml:12: run.stepz: unknown key 'stepz'; did you mean steps?", "(stage second)"]),
        (("into: maps", "to: maps"), ["task.to: unknown key 'to'", "Write needs 'into'"]),
        (("first: {", "checkpoints: {"), ["can't be a folder's name"]),
        (("first: {", "1st stage: {"), ["'1st stage' can't be a folder's name"]),
    ],
)
def test_mistakes_in_stages_are_found_before_anything_runs(staged: str, change: tuple[str, str], words: list[str]) -> None:
    Path(staged).write_text(STAGED.replace(*change, 1))
    with pytest.raises(InputError) as error:
        check(load_recipe(staged))
    assert all(word in str(error.value) for word in words), error.value


def test_a_sound_staged_recipe_passes_and_a_mistake_in_a_shared_section_is_told_once(staged: str) -> None:
    check(load_recipe(staged))
    Path(staged).write_text(STAGED.replace("workers: 2", "workerz: 2"))
    with pytest.raises(InputError) as error:
        check(load_recipe(staged))
    assert str(error.value).count("workerz") == 2 and "(stage" not in str(error.value)  # path and key of one message


@pytest.mark.parametrize(
    "text, words",
    [
        ("stages: {}", ["r.yaml:1: stages is a mapping of names"]),
        ("stages: [a]", ["r.yaml:1: stages is a mapping of names"]),
        ("stages:\n  a: 3", ["r.yaml:2: stages.a is a mapping"]),
        ("stages: {a: {base: [b.yaml]}}", ["r.yaml:1", "has a base with stages of its own"]),
        ("base: [b.yaml]\nstages: {x: !delete}", ["no stage is left"]),
        ("task: {type: Write}\nstages: {a: {}}", ["r.yaml:1: a task belongs to one stage"]),
        ("stages:\n  a:\n    task: {type: Write}\n    learner: {}", ["r.yaml:4: stages.a has a task (", "the section 'learner'"]),
        ("stages: {a: {run: {steps: 1}}}", ["stages.a has neither a `learner` nor a `task`"]),
        ("weights: {source: 'stage:first'}", ["r.yaml:1: weights.source: 'stage:first' names a stage, and this recipe has no stages"]),
        ("stagez: {a: {}}", ["did you mean stages?"]),
    ],
)
def test_what_is_no_staged_recipe_is_refused_with_its_place(tmp_path: Path, text: str, words: list[str]) -> None:
    write(tmp_path, "b.yaml", "stages: {x: {learner: {}}}")
    with pytest.raises(InputError) as error:
        check(load_recipe(write(tmp_path, "r.yaml", text)))
    assert all(word in str(error.value) for word in words), error.value


def test_the_example_of_the_documentation_is_sound(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text().split("## Stages")[1].split("```yaml\n")[1].split("```")[0]
    recipe = load_recipe(write(tmp_path, "two_stages.yaml", text))
    check(recipe)
    night = dict(stage_recipes(recipe, tmp_path / "run"))["by_night"]
    assert night.section("learner")["optimizer"] == {"type": "AdamW", "lr": 5e-4, "weight_decay": 0.01}
    assert night.section("weights") == {"source": str(tmp_path / "run" / "by_day")}


def test_plain_recipes_have_no_stages_to_override_and_values_in_python_are_checked_alike(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no stages"):
        load_recipe(write(tmp_path, "r.yaml", SHARED), ["stages.a.run.steps=3"])
    with pytest.raises(InputError, match="stages is empty"):
        check(recipe_from_values({"stages": {}}, "r", "python"))
    with pytest.raises(InputError, match="'run' stands beside stages"):
        check(recipe_from_values({"run": {}, "stages": {"a": {"learner": {}}}}, "r", "python"))
