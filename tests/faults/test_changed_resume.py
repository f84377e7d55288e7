"""F12: a resumed run is the same run. What can't change its result may differ; the rest is refused, with the flag that permits it."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_run import CLASSES, end, in_process, in_ranks, losses, records, run_to_end, same, tiny_recipe, train, weights

from saccade.engine.resuming import Conditions, check_conditions
from saccade.errors import InputError
from saccade.recipes import Recipe, recipe_from_values


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps whose checkpoint of step 10 is the newest."""
    import shutil

    folder = tmp_path_factory.mktemp("stopped") / "run"
    run_to_end(folder, run={"steps": 20})
    for step in (15, 20):
        shutil.rmtree(folder / "checkpoints" / f"step_{step:08d}")
    return folder


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(stopped, tmp_path / "run"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_to_end(folder, run={"steps": 20})
    return folder


def test_another_number_of_data_workers_and_other_records_change_nothing(run: Path, whole: Path) -> None:
    run_to_end(run, resume=True, workers=1, run={"steps": 20, "save_every": 4, "log_every": 2, "keep_last": 1})
    assert same(weights(run), weights(whole))
    assert [r["step"] for r in records(run, "resume")] == [10]


def test_another_learning_rate_or_seed_is_refused_and_permitted_by_its_flag(run: Path, tmp_path: Path) -> None:
    messages = tmp_path / "stderr"
    assert end([in_process(train, run, stderr=messages, resume=True, run={"steps": 20, "seed": 7})]) == [2]
    message = messages.read_text()
    assert "run.seed" in message and "7" in message and "--allow-changes" in message and "world" not in message
    assert end([in_process(train, run, stderr=messages, resume=True, run={"steps": 20, "seed": 7}, allow_changes=True)]) == [0]
    assert max(losses(run)) == 20
    assert "run.seed" in str(records(run, "resume")[-1]["permitted"])


def test_data_of_another_length_is_refused(run: Path, tmp_path: Path) -> None:
    messages = tmp_path / "stderr"
    assert end([in_process(train, run, stderr=messages, resume=True, length=50, run={"steps": 20})]) == [2]
    message = messages.read_text()
    assert "length of the training data: 48 -> 50" in message and "--allow-changes" in message
    assert end([in_process(train, run, stderr=messages, resume=True, length=50, run={"steps": 20}, allow_changes=True)]) == [0]
    assert max(losses(run)) == 20


def test_another_number_of_processes_is_refused_and_permitted_by_its_own_flag(run: Path, tmp_path: Path) -> None:
    messages = tmp_path / "stderr"
    assert end(in_ranks(train, run, stderr=messages, resume=True, run={"steps": 20})) == [2, 2]
    message = messages.read_text()
    assert "number of processes: 1 -> 2" in message and "--allow-world-size-change" in message
    assert end(in_ranks(train, run, stderr=messages, resume=True, run={"steps": 20}, allow_world_size_change=True)) == [0, 0]
    assert max(losses(run)) == 20


def test_a_folder_with_a_run_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    messages = tmp_path / "stderr"
    before = sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*"))
    assert end([in_process(train, run, stderr=messages, run={"steps": 20})]) == [2]
    assert "--resume" in messages.read_text()
    assert sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*")) == before


def _conditions(recipe: Recipe) -> Conditions:
    return Conditions(recipe.values, 1, 6, 48, list(CLASSES))


@pytest.mark.parametrize(
    "before, now",
    [
        ({"train": {"type": "Voc", "root": "/old/VOC2007"}}, {"train": {"type": "Voc", "root": "/new/place"}}),
        ({"train": {"type": "Coco", "annotations": "/old/train.json"}}, {"train": {"type": "Coco", "annotations": "/new/train.json"}}),
        ({"workers": 0}, {"workers": 4}),
        ({"size_divisor": 1}, {"size_divisor": 1, "workers": 4}),
    ],
)
def test_moved_data_and_workers_are_no_change(before: dict[str, object], now: dict[str, object]) -> None:
    earlier, later = (recipe_from_values({**tiny_recipe().values, "data": data}, "tiny", "test") for data in (before, now))
    assert check_conditions(_conditions(earlier).as_state(), later, _conditions(later), allow_changes=False, allow_world_size_change=False) == []


def test_another_annotation_file_and_a_removed_transform_are_changes() -> None:
    before = {"train": {"type": "Coco", "annotations": "/data/train.json"}, "train_transforms": [{"type": "RandomHorizontalFlip"}]}
    now = {"train": {"type": "Coco", "annotations": "/data/val.json"}, "train_transforms": []}
    earlier, later = (recipe_from_values({**tiny_recipe().values, "data": data}, "tiny", "test") for data in (before, now))
    with pytest.raises(InputError, match=r"(?s)data.train.annotations.*train.json.*val.json.*train_transforms"):
        check_conditions(_conditions(earlier).as_state(), later, _conditions(later), allow_changes=False, allow_world_size_change=False)


def test_source_data_of_another_length_is_a_change() -> None:
    recipe = tiny_recipe()
    before, now = (replace(_conditions(recipe), source_samples=number) for number in (30, 29))
    with pytest.raises(InputError, match="length of the source data: 30 -> 29"):
        check_conditions(before.as_state(), recipe, now, allow_changes=False, allow_world_size_change=False)
    without = {name: value for name, value in _conditions(recipe).as_state().items() if name != "source_samples"}  # of an older checkpoint
    assert check_conditions(without, recipe, _conditions(recipe), allow_changes=False, allow_world_size_change=False) == []
