"""Where files that belong to samples lie in a folder."""
from __future__ import annotations

from pathlib import Path

from saccade.errors import DataError


def file_of(folder: Path, item: str | int, suffix: str) -> Path:
    """The file of the sample `item` in `folder`: its id, folders in it included, with `suffix`. Raises DataError for an id that leads out of it."""
    parts = Path(str(item)).parts
    if not parts or Path(str(item)).is_absolute() or ".." in parts:
        raise DataError(f"the sample id {str(item)!r} can't name a file in {folder}; give the data set ids without .. and without a leading /")
    return folder.joinpath(*parts[:-1], parts[-1] + suffix)
