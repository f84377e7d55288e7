"""Downloads into the cache: resumed where they stopped, checked against the digest, complete or not there at all."""
from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from saccade.errors import StorageError

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0


def cache_folder() -> Path:
    """`$SACCADE_CACHE`, else `~/.cache/saccade/weights`."""
    named = os.environ.get("SACCADE_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "saccade" / "weights"


def fetch(url: str, file: str, sha256: str | None, attempts: int = 4) -> Path:
    """The file of `url` under the cache folder as `file`, downloaded unless it lies there.

    `sha256`: the first digits of its digest, or None where it is not known (then only the length is checked). A transfer that breaks off is continued
    up to `attempts` times, and by the next call. Raises StorageError when it does not succeed; the message says how to place the file by hand.
    """
    target = cache_folder() / file
    if target.is_file():
        _check_present(target, sha256)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        with _lock(target.with_name(target.name + ".lock")):
            if not target.is_file():  # another process may have brought it meanwhile
                _download(url, part, attempts)
                if sha256 is not None and not digest(part).startswith(sha256):
                    found = digest(part)
                    part.unlink()
                    raise StorageError(
                        f"The file at {url} has the digest {found[:16]}…, expected {sha256}…; it was discarded. It was damaged on the way or "
                        f"has changed at its source. Try again, or put the right file at {target}."
                    )
                os.replace(part, target)
    except (urllib.error.URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise StorageError(
            f"Could not download {url} ({reason}). Check the network, or bring the file by other means and put it at {target}"
            + (f" (its sha256 begins with {sha256})" if sha256 else "") + "; the next call uses it. $SACCADE_CACHE names another cache folder."
        ) from None
    return target


def digest(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_present(target: Path, sha256: str | None) -> None:
    """A file that the user has put there must be the right one; checked once, and remembered beside it."""
    mark = target.with_name(target.name + ".sha256")
    stamp = f"{target.stat().st_size} {target.stat().st_mtime_ns}"
    if sha256 is None or (mark.is_file() and mark.read_text(encoding="utf-8") == stamp):
        return
    if not digest(target).startswith(sha256):
        raise StorageError(f"{target} is not the expected file: its sha256 does not begin with {sha256}. Delete it to download it again.")
    try:
        mark.write_text(stamp, encoding="utf-8")
    except OSError:  # a read-only cache is checked each time
        return


def _download(url: str, part: Path, attempts: int) -> None:
    """Brings `part` to its full length, continuing after interruptions."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(part.name.removesuffix(".part"), total=None)
        for attempt in range(1, attempts + 1):
            try:
                _continue(url, part, progress, task)
                return
            except urllib.error.HTTPError:
                raise  # the server's answer will not change
            except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError):
                if attempt == attempts:
                    raise


def _continue(url: str, part: Path, progress: Progress, task: object) -> None:
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "saccade"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: nothing lies behind what is there, or the part belongs to another file
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            return
        part.unlink()
        raise ConnectionError(f"the part that was there does not belong to {url}") from None
    with answer, part.open("ab" if answer.status == 206 else "wb") as file:
        have = have if answer.status == 206 else 0
        total = _length(answer, have)
        progress.update(task, total=total, completed=have)  # type: ignore[arg-type]
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            have += len(chunk)
            progress.update(task, completed=have)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {have} of {total} bytes")


def _length(answer: HTTPResponse, have: int) -> int | None:
    length = answer.headers.get("Content-Length")
    return have + int(length) if length is not None else None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time; the operating system frees the lock of a process that dies. Without `fcntl` (Windows) there is none."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
