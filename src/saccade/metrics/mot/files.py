"""MOTChallenge's text files: one object a line, `frame, id, left, top, width, height, ...`, of the truth, of detections and of results.

The seventh column is a score (0 in a truth file: not considered), the eighth the class, the ninth the visibility; what is missing gets a default.
Columns are separated by commas, semicolons or blanks; the order of lines is free. A line that can't be used is named with its number.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import numpy as np

from saccade.errors import DataError

COLUMNS = 10
_DEFAULTS = np.array([np.nan] * 6 + [1.0, 1.0, 1.0, -1.0])
_LARGEST = 2**53  # whole numbers beyond are not exact in a float


@dataclass(frozen=True)
class MotTable:
    """The rows of a file in its order: `frame` (n,) and `ids` (n,) int64, `boxes` (n, 4) float64 xyxy, `scores` (n,), `classes` (n,) int64,
    `visibility` (n,), `lines` (n,) the number of each row's line, `columns` how many the file has."""

    path: Path
    frame: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    visibility: np.ndarray
    lines: np.ndarray
    columns: int

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, rows: np.ndarray) -> MotTable:
        """The rows that a mask or an index names."""
        names = ("frame", "ids", "boxes", "scores", "classes", "visibility", "lines")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


Refuse = Callable[[int, str], None]


def read_table(path: str | Path, refuse: Refuse | None = None) -> MotTable:
    """The table in `path`. `refuse(line, what)` is called for each line that can't be used, which then is left out; without it `DataError` is raised.

    Raises `DataError` where the file can't be read.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the tracking file {file} can't be read: {error}; check that it exists and is UTF-8 text") from error
    if refuse is None:
        def refuse(line: int, what: str) -> None:
            raise DataError(f"{file}, line {line}: {what}. Correct the line, or write the file again.")
    values, lines, columns = _numbers(text, refuse)
    values, lines = _usable(values, lines, refuse)
    boxes = np.concatenate([values[:, 2:4], values[:, 2:4] + values[:, 4:6]], 1)
    classes = np.where(np.isfinite(values[:, 7]) & (np.abs(values[:, 7]) < _LARGEST), values[:, 7], 0).astype(np.int64)
    return MotTable(file, values[:, 0].astype(np.int64), values[:, 1].astype(np.int64), boxes, values[:, 6], classes, values[:, 8], lines, columns)


def _numbers(text: str, refuse: Refuse) -> tuple[np.ndarray, np.ndarray, int]:
    """(n, 10) values with defaults for missing columns, the lines' numbers (n,), and the number of columns."""
    start = text.lstrip()
    first = start.partition("\n")[0]
    separator = next((s for s in ",;" if s in first), None)
    try:
        values = np.loadtxt(StringIO(text), delimiter=separator, ndmin=2, comments=None) if first else np.zeros((0, COLUMNS))
        lines = np.arange(1, len(values) + 1)
        if "\n\n" in text or len(start) < len(text):  # blank lines count, too
            lines = np.array([n for n, line in enumerate(text.splitlines(), 1) if line.strip()])
        if len(lines) == len(values) and (values.shape[1] >= 6 or not len(values)):
            return _filled(values), lines, values.shape[1]
    except ValueError:
        pass  # lines of several lengths or with something else than numbers; each is looked at on its own
    return _line_by_line(text, separator, refuse)


def _line_by_line(text: str, separator: str | None, refuse: Refuse) -> tuple[np.ndarray, np.ndarray, int]:
    rows, numbers, columns = [], [], 0
    for number, line in enumerate(text.splitlines(), 1):
        words = [word.strip() for word in line.strip().rstrip(separator).split(separator)]
        if not line.strip():
            continue
        if len(words) < 6:
            refuse(number, f"it has {len(words)} columns; frame, id, left, top, width and height are needed")
            continue
        try:
            row = [float(word) for word in words[:COLUMNS]]
        except ValueError:
            refuse(number, f"{line.strip()[:80]!r} has something else than numbers")
            continue
        columns = max(columns, len(words))
        rows.append(_filled(np.array([row]))[0])
        numbers.append(number)
    return np.array(rows).reshape(-1, COLUMNS), np.array(numbers, dtype=np.int64), columns


def _filled(values: np.ndarray) -> np.ndarray:
    known = values[:, :COLUMNS]
    missing = np.broadcast_to(_DEFAULTS[known.shape[1] :], (len(known), COLUMNS - known.shape[1]))
    filled: np.ndarray = np.concatenate([known, missing], 1)
    return filled


def _usable(values: np.ndarray, lines: np.ndarray, refuse: Refuse) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose frame and id are whole numbers, frames from 1 on, with finite boxes and scores."""
    with np.errstate(invalid="ignore"):
        whole = [np.isfinite(column) & (np.abs(column) < _LARGEST) & (np.trunc(column) == column) for column in values[:, :2].T]
        faults: list[tuple[np.ndarray, int | slice, str]] = [
            (~whole[0] | (values[:, 0] < 1), 0, "its frame is {}, not a whole number from 1 on"),
            (~whole[1], 1, "its id is {}, not a whole number"),
            (~np.isfinite(values[:, 2:6]).all(1) | (np.abs(values[:, 2:6]) > 1e9).any(1), slice(2, 6), "its box is {}, not four finite numbers"),
            (np.isnan(values[:, 6]), 6, "its score is {}"),
        ]
    wrong = np.zeros(len(values), dtype=bool)
    for rows, column, message in faults:
        for row in np.flatnonzero(rows & ~wrong):
            refuse(int(lines[row]), message.format(" ".join(f"{v:g}" for v in np.atleast_1d(values[row, column]))))
        wrong |= rows
    return values[~wrong], lines[~wrong]
