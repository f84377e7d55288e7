"""MOTChallenge's folders (motchallenge.net: MOT15, MOT16, MOT17, MOT20; DanceTrack has the same layout): one folder a sequence.

`SEQUENCE/{seqinfo.ini, img1/000001.jpg, gt/gt.txt, det/det.txt}`. Rows are (frame, id, left, top, width, height, considered, class, visibility);
boxes are taken as written (not moved by one, not clipped). Sequences without gt are unlabelled; those without pictures serve to judge result files.
"""
from __future__ import annotations

import configparser
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from saccade.data.formats.packed_objects import ObjectCollector
from saccade.data.formats.still_images import existing_folder
from saccade.data.formats.video_frames import FrameList, VideoFrames, from_one, picture_files
from saccade.errors import DataError, InputError
from saccade.metrics.mot import challenge, tracks
from saccade.metrics.mot.files import MotTable, read_table
from saccade.structures import Detections
from saccade.structures.ranges import Probability

_DETECTOR = re.compile(r"-(DPM|FRCNN|SDP)$")
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SequenceInfo:
    """What seqinfo.ini and the folder say of one sequence. `numbers`: the frames that are used, from 1 on, and their picture files."""

    name: str
    folder: Path
    length: int
    numbers: dict[int, str]
    frame_rate: float | None
    size: tuple[int, int]


class Mot(VideoFrames):
    """The sequences below `root` (a set's folder with `train` and `test`, a folder of sequences, or one sequence).

    `split` is one of the folders `train`, `val`, `test`; `half` takes the first or the rest of every sequence as train and val (the first n // 2 + 1
    of its n frames). `detector`: MOT17 has every video three times with different detections; "one" takes each once, a name that copy, "all" all of
    them. `sequences` picks by name. `classes` are MOTChallenge's (`metrics.mot.challenge.CLASSES`); pedestrians count only where they are
    considered. `min_visibility` leaves out what is less visible. `distractors` keeps persons on vehicles, static persons, distractors and reflections
    as pedestrians that are `difficult`: the tracking metric forgives what falls to them, as the benchmark does.
    """

    def __init__(
        self, *, root: str | Path, split: str | None = None, half: Literal["train", "val"] | None = None,
        detector: Literal["one", "all", "DPM", "FRCNN", "SDP"] = "one", sequences: Sequence[str] | None = None,
        classes: Sequence[str] = ("pedestrian",), min_visibility: Probability = 0.0, distractors: bool = False, name: str = "mot",
    ) -> None:
        folder = existing_folder(root, "the MOT root")
        super().__init__(name, folder, tuple(classes))
        unknown = [c for c in classes if c not in challenge.CLASSES]
        if unknown or not classes:
            raise InputError(f"MOTChallenge has no class {unknown[0] if unknown else ''!r}; it has {', '.join(challenge.CLASSES)}")
        if half not in (None, "train", "val"):
            raise InputError(f"`half` is train or val, not {half!r}")
        self.half, self._min_visibility, self._distractors = half, min_visibility, distractors
        self._infos = [self._info(place) for place in _chosen(folder, split, detector, sequences)]
        self._truth: dict[str, MotTable] = {}
        self._det: dict[str, MotTable] = {}
        self._read()

    def detections(self, index: int) -> Detections:
        """The detections that come with the data (`det/det.txt`) in frame `index`, best first; none where the sequence has no such file."""
        info = self._infos[self._video[index]]
        if info.name not in self._det:
            file = info.folder / "det/det.txt"
            table = read_table(file) if file.is_file() else None
            self._det[info.name] = _no_rows(file) if table is None else table.take(np.lexsort((-table.scores, table.frame)))
        table = self._det[info.name]
        rows = slice(*np.searchsorted(table.frame, [number := self.mot_frame(index), number + 1]))
        boxes, scores = (torch.from_numpy(values[rows].astype(np.float32)) for values in (table.boxes, table.scores))
        return Detections(boxes, scores, torch.zeros(len(boxes), dtype=torch.int64))

    def mot_frame(self, index: int) -> int:
        """The number of frame `index` in the sequence's own files, from 1 on, also where a half is used."""
        return self.frame_number(index) + min(self._infos[self._video[index]].numbers)

    def result_sequence(self, video: str, result_file: str | Path) -> tracks.Sequence:
        """The truth of `video` with all classes that the benchmark's rules need, and what the result file has for its frames.

        Raises `DataError` for broken lines, ids that come twice in a frame, and frames that the video does not have.
        """
        info = next((i for i in self._infos if i.name == video), None)
        if info is None:
            raise InputError(f"{self.root} has no sequence {video!r}; it has {', '.join(i.name for i in self._infos)}")
        whole = challenge.read_sequence(video, info.folder / "gt/gt.txt", result_file, num_frames=info.length)
        if self.half is None:
            return whole
        first, last = min(info.numbers, default=1), max(info.numbers, default=0)
        outside = (whole.found.frame < first) | (whole.found.frame > last)
        if outside.any():
            raise DataError(f"{result_file} has frame {whole.found.frame[outside][0]}, but the {self.half} half of {video} is {first} to {last}; "
                            "score the whole sequence, or write the results of this half alone")
        truth = whole.truth.take((whole.truth.frame >= first) & (whole.truth.frame <= last))
        return replace(whole, num_frames=last - first + 1, truth=truth)

    def describe(self) -> dict[str, Any]:
        """As for every reader of videos, with the benchmarks."""
        benchmarks = sorted({challenge.benchmark_of(i.name, self._truth.get(i.name)) for i in self._infos})
        return {**super().describe(), "benchmark": ", ".join(benchmarks), **({"half": self.half} if self.half else {})}

    def _read(self) -> None:
        frames, collector, ids, unlabelled = FrameList(), ObjectCollector(), list[int](), list[int]()
        for video, info in enumerate(self._infos):
            first = min(info.numbers, default=1)
            numbers = {
                number: frames.add((info.folder.relative_to(self.root) / file).as_posix(), video, number - first, info.size)
                for number, file in info.numbers.items()
            }
            file = info.folder / "gt/gt.txt"
            if not file.is_file():
                unlabelled += numbers.values()
                continue
            for table, label, distractor in self._objects_of(info, file):
                known = np.isin(table.frame, list(numbers))
                for frame, box in zip(table.frame[known].tolist(), table.boxes[known].tolist(), strict=True):
                    collector.add(numbers[frame], box, label, difficult=distractor)
                ids += table.ids[known].tolist()
        names, rates = [i.name for i in self._infos], [i.frame_rate for i in self._infos]
        self._settle(frames, names, rates, collector, ids, unlabelled, difficult=self._distractors)

    def _objects_of(self, info: SequenceInfo, file: Path) -> Iterator[tuple[MotTable, int, bool]]:
        """The rows of every wanted class of a sequence with its label, and the distractors."""
        table = self._checked(read_table(file, lambda line, what: self._problem(file, f"line {line}", what)), info)
        table = replace(table, ids=from_one(table.ids))
        self._truth[info.name] = table
        benchmark = challenge.benchmark_of(info.name, table)
        counted, distractor = challenge.roles(table, benchmark)
        visible = np.ones(len(table), dtype=bool) if benchmark == "MOT15" else table.visibility >= self._min_visibility
        for label, name in enumerate(self.classes):
            number = challenge.CLASSES.index(name) + 1
            wanted = counted if number == challenge.PEDESTRIAN else (table.classes == number) & (benchmark != "MOT15")
            yield table.take(wanted & visible), label, False
        if self._distractors and "pedestrian" in self.classes:
            yield table.take(distractor), self.classes.index("pedestrian"), True

    def _checked(self, table: MotTable, info: SequenceInfo) -> MotTable:
        """The rows that can be used; the others become problems."""
        twice = np.zeros(len(table), dtype=bool)
        order = np.lexsort((table.ids, table.frame))
        twice[order[1:]] = (np.diff(table.frame[order]) == 0) & (np.diff(table.ids[order]) == 0)
        size = table.boxes[:, 2:] - table.boxes[:, :2]
        faults = (
            (table.frame > info.length, lambda r: f"its frame {table.frame[r]} lies beyond the {info.length} of the sequence"),
            ((size <= 0).any(1), lambda r: f"its box of {size[r, 0]:g} x {size[r, 1]:g} has no area"),
            (twice, lambda r: f"the id {table.ids[r]} comes a second time in frame {table.frame[r]}"),
        )
        wrong = np.zeros(len(table), dtype=bool)
        for rows, what in faults:
            for row in np.flatnonzero(rows & ~wrong).tolist():
                self._problem(table.path, f"line {table.lines[row]}", what(row))
            wrong |= rows
        if len(table) and table.ids.min() < 1:
            self._problem(table.path, "ids", f"they start at {table.ids.min()}; here all are higher by {1 - table.ids.min()}", "kept")
        return table.take(~wrong)

    def _info(self, folder: Path) -> SequenceInfo:
        """A sequence from its seqinfo.ini and its pictures; what is missing is taken from the other."""
        stated = self._stated(folder / "seqinfo.ini")
        pictures = stated.get("imdir") or "img1"
        numbers = self._numbers(folder / pictures)
        length = _number(stated.get("seqlength"))
        if length is None:
            length = max(numbers, default=0) or _last_frame(folder / "gt/gt.txt")
        elif numbers:
            missing = length - len([n for n in numbers if n <= length])
            if missing:
                self._problem(folder / pictures, folder.name, f"{missing} of its {length} frames have no picture", "left out")
            for number in [n for n in numbers if n > length]:
                self._problem(folder / pictures / numbers.pop(number), folder.name, f"it lies beyond the {length} frames of seqinfo.ini")
        if not numbers:
            self._problem(folder / pictures, folder.name, "there are no pictures, so only results can be judged", "kept")
            numbers = {n: f"{n:06d}{stated.get('imext') or '.jpg'}" for n in range(1, length + 1)}
        kept = sorted(numbers)
        cut = len(kept) // 2 + 1
        kept = kept if self.half is None else kept[:cut] if self.half == "train" else kept[cut:]
        size = _number(stated.get("imheight")) or 0, _number(stated.get("imwidth")) or 0
        return SequenceInfo(folder.name, folder, length, {n: f"{pictures}/{numbers[n]}" for n in kept}, _rate(stated.get("framerate")), size)

    def _stated(self, file: Path) -> dict[str, str]:
        if not file.is_file():
            return {}
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string(file.read_text(encoding="utf-8-sig"))
        except (configparser.Error, UnicodeDecodeError, OSError) as error:
            self._problem(file, file.parent.name, f"it can't be read ({str(error).splitlines()[0]}); the pictures say what there is", "kept")
            return {}
        return {key: value.strip() for section in parser.sections() for key, value in parser[section].items()}

    def _numbers(self, folder: Path) -> dict[int, str]:
        """The pictures of a folder by the number in their name."""
        numbers: dict[int, str] = {}
        for file in picture_files(folder):
            digits = re.findall(r"[0-9]+", Path(file).stem)
            if not digits or int(digits[-1]) < 1 or int(digits[-1]) in numbers:
                self._problem(folder / file, folder.parent.name, "its name has no frame number of its own from 1 on")
            else:
                numbers[int(digits[-1])] = file
        return numbers


def sequence_folders(root: Path) -> list[Path]:
    """The folders directly below `root`, or `root` itself, that look like a sequence; sorted by name."""
    if is_sequence(root):
        return [root]
    return sorted((entry for entry in root.iterdir() if entry.is_dir() and is_sequence(entry)), key=lambda entry: entry.name)


def is_sequence(folder: Path) -> bool:
    """Whether a folder has seqinfo.ini, or pictures with a truth or detections beside them."""
    return (folder / "seqinfo.ini").is_file() or ((folder / "img1").is_dir() and ((folder / "gt").is_dir() or (folder / "det").is_dir()))


def plain_name(sequence: str) -> str:
    """A sequence's name without its detector: "MOT17-02" for "MOT17-02-FRCNN"."""
    return _DETECTOR.sub("", sequence)


def _chosen(root: Path, split: str | None, detector: str, wanted: Sequence[str] | None) -> list[Path]:
    place = root if split is None else existing_folder(root / split, "the split's folder")
    folders = sequence_folders(place)
    if not folders:
        inside = [s for s in _SPLITS if (root / s).is_dir() and sequence_folders(root / s)]
        hint = f"; give `split` ({', '.join(inside)})" if inside and split is None else ", folders with seqinfo.ini or img1 and gt"
        raise DataError(f"{place} has no MOTChallenge sequences{hint}")
    if detector == "one":
        first: dict[str, Path] = {}
        for folder in folders:
            if folder.name.endswith("-FRCNN") or plain_name(folder.name) not in first:
                first[plain_name(folder.name)] = folder
        folders = list(first.values())
    elif detector != "all":
        folders = [f for f in folders if f.name.endswith(f"-{detector}") or not _DETECTOR.search(f.name)]
    if wanted is not None:
        known = {f.name: f for f in folders} | {plain_name(f.name): f for f in folders}
        unknown = [s for s in wanted if s not in known]
        if unknown:
            raise InputError(f"{place} has no sequence {unknown[0]!r}; it has {', '.join(f.name for f in folders)}")
        folders = [known[s] for s in wanted]
    return folders


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() and int(text) > 0 else None


def _rate(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) and float(text) > 0 else None


def _last_frame(file: Path) -> int:
    return int(read_table(file, lambda line, what: None).frame.max(initial=0)) if file.is_file() else 0


def _no_rows(file: Path) -> MotTable:
    whole = np.zeros(0, dtype=np.int64)
    return MotTable(file, whole, whole, np.zeros((0, 4)), np.zeros(0), whole, np.zeros(0), whole, 0)
