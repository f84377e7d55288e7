"""MOTChallenge's result files: one box a line, `frame, id, left, top, width, height, score, class, -1, -1`, written while the video goes on."""
from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import IO

from saccade.structures import Detections


class MotFile:
    """The text file `path` of one video's tracks; frames count from 1 in it.

    The class is the label + 1 where there are several, and -1 (not stated) where there is one. Nothing is at `path` before `close`, and nothing at
    all where neither `open` nor `add` was called. Use as a context manager; leaving it by an exception removes what was written.
    """

    def __init__(self, path: str | Path, num_classes: int) -> None:
        self.path, self._several = Path(path), num_classes > 1
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._file: IO[str] | None = None

    def open(self) -> IO[str]:
        """Begin the file, so that it exists even if nothing is found."""
        if self._file is None:
            self._file = open(self._partial, "w", encoding="utf-8")  # noqa: SIM115  (closed by close)
        return self._file

    def add(self, frame_index: int, found: Detections) -> None:
        """The objects of the frame `frame_index` (from 0 on), which have `track_ids`."""
        file = self.open()
        assert found.track_ids is not None
        boxes = found.boxes.detach().cpu().double().tolist()
        rows = zip(found.track_ids.tolist(), boxes, found.scores.tolist(), found.labels.tolist(), strict=True)
        file.writelines(
            f"{frame_index + 1},{track},{x1:.3f},{y1:.3f},{x2 - x1:.3f},{y2 - y1:.3f},{score:.5g},{label + 1 if self._several else -1},-1,-1\n"
            for track, (x1, y1, x2, y2), score, label in rows
        )

    def close(self) -> None:
        """Complete the file and give it its name."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        os.replace(self._partial, self.path)

    def __enter__(self) -> MotFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:
            self._file.close()
            self._file = None
            self._partial.unlink(missing_ok=True)
