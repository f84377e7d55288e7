"""The house's one way to write files that matter: whole or not at all, whatever happens in between.

A file is written under a temporary name in its own directory, synced, renamed over the old one, and the directory synced. torch.save and Fabric's
saving destroy the old file on a full disk; this does not.
"""
from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from saccade.errors import StorageError

_TEMPORARY = ".saccade-tmp"
_SPACE_ERRORS = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}

Content = bytes | Callable[[BinaryIO], object]


def atomic_write(path: str | Path, content: Content) -> None:
    """Write `content` (bytes, or a function that writes into the open binary file) to `path`; the old file stays until the new one is complete.

    Raises StorageError, with the bytes needed and free where the disk was full, and leaves no temporary file behind.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}{_TEMPORARY}")
    with storage_errors(target, len(content) if isinstance(content, bytes) else None):
        try:
            write_synced(temporary, content)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(target.parent)


def write_json(path: str | Path, value: Any) -> None:
    """`value` as readable JSON, by `atomic_write`."""
    atomic_write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


class DigestingFile:
    """A binary file for writing that counts and digests (SHA-256) what goes into it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        """As the file's own; every byte must be written in order."""
        written = self._file.write(data)
        self._digest.update(data)
        self.size += written
        return written

    def flush(self) -> None:
        """As the file's own."""
        self._file.flush()

    def hexdigest(self) -> str:
        """Of everything so far."""
        return self._digest.hexdigest()


def write_synced(path: Path, content: Content) -> tuple[int, str]:
    """Write a new file and wait until it is on the disk; returns its size and SHA-256. For files inside a folder that gets renamed when complete."""
    with path.open("wb") as file:
        digesting = DigestingFile(file)
        if isinstance(content, bytes):
            digesting.write(content)
        else:
            content(digesting)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    return digesting.size, digesting.hexdigest()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk (a no-op on systems that can't open folders)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(folder: Path, needed: int) -> None:
    """Raise StorageError where the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(f"The disk of {folder} is too full: {needed:,} bytes are needed, {free:,} are free. Make room there, or use another disk.")


def remove_stale(folder: Path) -> list[str]:
    """Remove what interrupted writes left in `folder`, temporary files and folders; returns their names."""
    stale = list(folder.glob(f".*{_TEMPORARY}")) if folder.is_dir() else []
    for path in stale:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return [p.name for p in stale]


def temporary_folder(target: Path) -> Path:
    """The name under which a folder is filled before it is renamed to `target`."""
    return target.with_name(f".{target.name}{_TEMPORARY}")


@contextmanager
def storage_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turns the operating system's errors into StorageError with `path`, and the bytes `needed` and free where there was no room."""
    try:
        yield
    except OSError as error:
        if error.errno in _SPACE_ERRORS:
            free = shutil.disk_usage(path.parent).free
            wanted = "" if needed is None else f"{needed:,} bytes are needed, "
            raise StorageError(
                f"{path} could not be written ({error.strerror}): {wanted}{free:,} are free on its disk. The file as it was before is intact. "
                "Make room there, or use another disk."
            ) from error
        raise StorageError(f"{path} could not be written: {error.strerror or error}. Check that the folder exists and may be written to.") from error
