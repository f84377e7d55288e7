"""F3: a full disk costs a checkpoint, never the one before, and says how much room is needed."""
from __future__ import annotations

import functools
import os
import resource
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_run import end, in_process, records, stale_files, train, weights

from saccade.engine.checkpoints import all_checkpoints, find_damage, newest_valid
from saccade.engine.files import atomic_write
from saccade.errors import StorageError


class LimitFileSize:
    """A callback that lets no file grow beyond `limit` bytes after step `since`, until step `until`."""

    def __init__(self, since: int, until: int, limit: int = 60_000) -> None:
        self.since, self.until, self.limit = since, until, limit

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        if step in (self.since, self.until):
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit if step == self.since else hard, hard))


def train_with_little_room(folder: Path, since: int, until: int, messages: Path, run: dict[str, Any]) -> None:
    import logging

    logging.basicConfig(filename=messages)
    train(folder, callbacks=[LimitFileSize(since, until)], run={"steps": 20, **run})


def test_training_goes_on_to_the_next_checkpoint_after_a_loud_warning(tmp_path: Path) -> None:
    folder, messages = tmp_path / "run", tmp_path / "messages"
    assert end([in_process(train_with_little_room, folder, 6, 11, messages, {})]) == [0]
    assert [p.name for p in all_checkpoints(folder / "checkpoints")] == ["step_00000005", "step_00000015", "step_00000020"]
    assert not stale_files(folder)
    warning = next(line for line in messages.read_text().splitlines() if "ERROR" in line)
    assert "STEP 10 IS NOT WRITTEN" in warning and "bytes are needed" in warning and "are free" in warning
    assert [r["step"] for r in records(folder, "checkpoint failed")] == [10]
    assert max(r["step"] for r in records(folder)) == 20


def test_the_old_checkpoint_is_intact_when_the_last_one_can_not_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert end([in_process(train_with_little_room, folder, 16, 99, tmp_path / "messages", {})]) == [5]
    newest = newest_valid(folder / "checkpoints")
    assert newest is not None and newest.name == "step_00000015" and find_damage(newest) is None
    assert weights(folder)


def test_a_strict_run_ends_with_the_code_for_storage(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert end([in_process(train_with_little_room, folder, 6, 99, tmp_path / "messages", {"strict_storage": True})]) == [5]
    assert max(r["step"] for r in records(folder)) == 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True) if os.geteuid() == 0 else None
    if mounted is None or mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full_leaves_the_old_file_and_names_the_bytes(small_disk: Path) -> None:
    path = small_disk / "file"
    atomic_write(path, b"old" * 100_000)
    with pytest.raises(StorageError, match=r"900,000 bytes are needed, [\d,]+ are free"):
        atomic_write(path, b"new" * 300_000)
    assert path.read_bytes() == b"old" * 100_000
    assert [p.name for p in small_disk.iterdir()] == ["file"]


def test_a_run_on_a_disk_with_room_for_one_checkpoint_ends_with_that_one(small_disk: Path) -> None:
    folder = small_disk / "run"
    code = end([in_process(functools.partial(train, run={"steps": 10, "evaluate_every": None}), folder)])
    assert code == [5]
    newest = newest_valid(folder / "checkpoints")
    assert newest is not None and newest.name == "step_00000005"
    assert not stale_files(folder)


def test_a_folder_that_can_not_be_made_is_an_error_of_storage(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert end([in_process(train, blocked / "run")]) == [5]
