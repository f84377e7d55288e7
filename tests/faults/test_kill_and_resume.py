"""F1, F2: a run that is killed at any moment and resumed is the run that was never killed."""
from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from tiny_run import SlowSteps, in_process, kill, losses, records, run_to_end, same, stale_files, train, wait_until, weights

from saccade.engine import checkpoints
from saccade.engine.checkpoints import all_checkpoints, find_damage, newest_valid


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_to_end(folder)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_five_times_ends_with_the_weights_of_one_that_was_not(uninterrupted: Path, tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "run"
    draw = random.Random(workers)
    seen = 0
    for attempt in range(5):
        process = in_process(train, folder, workers=workers, resume=attempt > 0, callbacks=[SlowSteps(0.02)])
        goal = min(seen + draw.randint(2, 8), 38)
        wait_until(lambda goal=goal: max(losses(folder), default=0) >= goal, process)
        time.sleep(draw.random() * 0.02)
        kill(process)
        seen = max(losses(folder))
        newest = newest_valid(folder / "checkpoints")
        assert newest is None or seen - checkpoints.step_of(newest) <= 6, "more than one save interval (and the step in progress) is lost"
    run_to_end(folder, resume=True, workers=workers)
    assert losses(folder) == losses(uninterrupted)
    assert same(weights(folder), weights(uninterrupted))
    assert [r["step"] for r in records(folder, "evaluation")] == [10, 20, 30, 40]
    assert [r["val/classification/top1"] for r in records(folder, "evaluation")] == [
        r["val/classification/top1"] for r in records(uninterrupted, "evaluation")]
    assert not stale_files(folder)


def train_with_slow_writes(folder: Path) -> None:
    """From the second checkpoint on the weights are written in two halves with a pause."""
    whole = checkpoints.write_synced

    def slowly(path: Path, content: bytes) -> tuple[int, str]:
        if path.name == checkpoints.WEIGHTS and "00000010" in str(path):
            path.write_bytes(content[: len(content) // 2])
            time.sleep(30)
        return whole(path, content)

    checkpoints.write_synced = slowly  # type: ignore[assignment]
    train(folder)


def test_a_kill_inside_a_checkpoint_write_leaves_the_one_before_and_nothing_else(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = in_process(train_with_slow_writes, folder)
    wait_until(lambda: any("00000010" in name and name.endswith(checkpoints.WEIGHTS) for name in stale_files(folder) + _files(folder)), process)
    kill(process)
    assert stale_files(folder)
    newest = newest_valid(folder / "checkpoints")
    assert newest is not None and newest.name == "step_00000005"
    run_to_end(folder, resume=True)
    assert not stale_files(folder)
    assert same(weights(folder), weights(uninterrupted))


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_to_end(folder)
    newest = all_checkpoints(folder / "checkpoints")[-1]
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "model.safetensors").write_bytes(bytes(content))
    assert "SHA-256" in (find_damage(newest) or "")
    run_to_end(folder, resume=True)
    assert records(folder, "resume")[-1]["step"] == 35
    assert losses(folder) == losses(uninterrupted)
    assert same(weights(folder), weights(uninterrupted))


def _files(folder: Path) -> list[str]:
    return [str(p) for p in folder.rglob("*")]
