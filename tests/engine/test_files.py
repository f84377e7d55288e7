"""Files that matter are written whole or not at all."""
from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from saccade.engine import files
from saccade.engine.files import atomic_write, remove_stale, require_space, temporary_folder
from saccade.errors import StorageError


def test_bytes_and_functions_replace_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"one")
    assert path.read_bytes() == b"one"
    atomic_write(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_half_way_leaves_the_old_content_and_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def fails(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, fails)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_data_is_on_the_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = files.os.fsync, files.os.replace
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: (order.append("sync"), fsync(descriptor)))
    monkeypatch.setattr(files.os, "replace", lambda old, new: (order.append("rename"), replace(old, new)))
    atomic_write(tmp_path / "file", b"x")
    assert order == ["sync", "rename", "sync"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/file could not be written"):
        atomic_write(tmp_path / "nowhere" / "file", b"x")


def test_too_little_room_is_said_in_bytes(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"1,000,000,000,000,000,000 bytes are needed, [\d,]+ are free"):
        require_space(tmp_path, 10**18)


def test_stale_files_and_folders_are_removed_and_others_stay(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.touch()
    folder = temporary_folder(tmp_path / "step_00000001")
    folder.mkdir()
    (folder / "file").touch()
    (tmp_path / ".file.123.saccade-tmp").touch()
    assert len(remove_stale(tmp_path)) == 2
    assert list(tmp_path.iterdir()) == [kept]
