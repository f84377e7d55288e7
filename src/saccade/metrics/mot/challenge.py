"""MOTChallenge's rules: which rows of a truth file count, which are distractors, and a video put together from its files."""
from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from saccade.errors import DataError
from saccade.metrics.mot.files import MotTable, read_table
from saccade.metrics.mot.tracks import Sequence, Tracks, Truth

# The classes of the eighth column, from 1 on.
CLASSES = (
    "pedestrian", "person_on_vehicle", "car", "bicycle", "motorbike", "non_mot_vehicle", "static_person", "distractor", "occluder",
    "occluder_on_ground", "occluder_full", "reflection", "crowd",
)
Benchmark = Literal["MOT15", "MOT16", "MOT17", "MOT20", "DanceTrack"]
PEDESTRIAN = 1
_DISTRACTORS = (2, 7, 8, 12)
_DISTRACTORS_OF: dict[str, tuple[int, ...]] = {"MOT15": (), "MOT20": (2, 6, 7, 8, 12)}


def benchmark_of(name: str, table: MotTable | None = None) -> Benchmark:
    """The benchmark that a video called `name` belongs to: by its name, else by its truth (MOT15's has ten columns, world places and no classes)."""
    known: dict[str, Benchmark] = {"MOT15": "MOT15", "MOT16": "MOT16", "MOT17": "MOT17", "MOT20": "MOT20", "dancetrack": "DanceTrack"}
    named = next((benchmark for start, benchmark in known.items() if name.startswith(start)), None)
    if named is not None:
        return named
    return "MOT15" if table is not None and len(table) and (table.columns >= 10 or (table.classes < 1).all()) else "MOT17"


def roles(table: MotTable, benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool twice: the rows of a truth file that are to be found, and the distractors.

    MOT15 has no classes: every considered row counts.
    """
    considered = table.scores != 0
    if benchmark == "MOT15":
        return considered, np.zeros(len(table), dtype=bool)
    return considered & (table.classes == PEDESTRIAN), np.isin(table.classes, _DISTRACTORS_OF.get(benchmark, _DISTRACTORS))


def truth_of(table: MotTable, benchmark: Benchmark, preprocess: bool = True) -> Truth:
    """The truth of one video. Without `preprocess` there are only the counted rows, and distractors excuse nothing."""
    counted, distractor = roles(table, benchmark)
    if not preprocess or benchmark == "MOT15":
        table, counted, distractor = table.take(counted), counted[counted], np.zeros(int(counted.sum()), dtype=bool)
    return Truth(table.frame, table.ids, table.boxes, np.zeros(len(table), dtype=np.int64), counted, distractor).by_frame()


def tracks_of(table: MotTable) -> Tracks:
    """What a tracker found, from its result file."""
    return Tracks(table.frame, table.ids, table.boxes, np.zeros(len(table), dtype=np.int64)).by_frame()


def read_sequence(
    name: str, truth_file: str | Path, result_file: str | Path, *, num_frames: int | None = None, benchmark: Benchmark | None = None,
    preprocess: bool = True,
) -> Sequence:
    """One video from a truth and a result file; `num_frames` as in its seqinfo.ini, else the last frame of either file.

    Raises `DataError` that names file and line for frames beyond the end, ids that come twice in a frame, broken lines, and results of another class
    than pedestrians.
    """
    truth, found = read_table(truth_file), read_table(result_file)
    for table in (truth, found):
        beyond = table.frame > (num_frames or table.frame.max(initial=0))
        if beyond.any():
            line, frame = table.lines[beyond][0], table.frame[beyond][0]
            raise DataError(f"{table.path}, line {line}: frame {frame} lies beyond the {num_frames} frames of {name}; score the files of one video")
    if (found.classes > PEDESTRIAN).any():
        row = int(np.flatnonzero(found.classes > PEDESTRIAN)[0])
        raise DataError(f"{found.path}, line {found.lines[row]}: it has the class {found.classes[row]}, but only pedestrians (1 or -1) are judged; "
                        "leave the other objects out of the results")
    for table, whose in ((truth, "the truth"), (found, "the result")):
        check_table(table, whose)
    length = num_frames or int(max(truth.frame.max(initial=0), found.frame.max(initial=0)))
    return Sequence(name, length, truth_of(truth, benchmark or benchmark_of(name, truth), preprocess), tracks_of(found))


def check_table(table: MotTable, whose: str) -> None:
    """Raises `DataError` for detections, whose ids are all -1, and for an id that comes twice in a frame; `whose` the table is, for the message."""
    if len(table) and (table.ids == -1).all():
        raise DataError(f"{table.path}: every id is -1, so these are detections, not tracks; track them first (saccade track)")
    if not len(table):
        return
    lowest, highest = int(table.ids.min()), int(table.ids.max())
    if (highest - lowest) * int(table.frame.max()) < 2**62:
        keys = np.sort(table.frame * (highest - lowest + 1) + (table.ids - lowest))
        if (keys[1:] != keys[:-1]).all():
            return
    order = np.lexsort((table.ids, table.frame))
    twice = np.flatnonzero((np.diff(table.frame[order]) == 0) & (np.diff(table.ids[order]) == 0))
    if len(twice):
        first, second = order[twice[0]], order[twice[0] + 1]
        raise DataError(
            f"{table.path}, lines {table.lines[first]} and {table.lines[second]}: {whose} has the id {table.ids[first]} twice in frame "
            f"{table.frame[first]} ({len(twice)} such rows in all). Give every object of a frame an id of its own."
        )
