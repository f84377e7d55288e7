"""Result files of any tracker judged against a data set: MOTChallenge's text, one file a video, whoever wrote them.

Lines are `frame, id, left, top, width, height, score, class, ...` with frames from 1 on. MOTChallenge's own sets are judged by their rules with the
full truth file; other sets of videos by their annotations, where the class is 1 for the first name, and may be -1 where there is one alone.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.contract import Dataset, Video
from saccade.data.formats.mot import Mot, plain_name
from saccade.data.formats.still_images import existing_folder, file_name
from saccade.errors import DataError
from saccade.metrics.mot.challenge import check_table
from saccade.metrics.mot.evaluation import Counts, class_average, count, pooled
from saccade.metrics.mot.files import MotTable, read_table
from saccade.metrics.mot.tracks import Regions, Sequence, Tracks, Truth


@dataclass(frozen=True)
class TrackingScores:
    """The counts of each video by class; `figures`, `of_video` and `of_class` are made of them."""

    videos: dict[str, dict[str, Counts]]

    def by_class(self) -> dict[str, Counts]:
        """Each class over all videos."""
        names = next(iter(self.videos.values()), {})
        return {name: pooled(video[name] for video in self.videos.values()) for name in names}

    def figures(self) -> dict[str, float]:
        """All figures over all videos and classes, as `mot/HOTA` and so on; several classes also under `mot/class_average/`."""
        by_class = self.by_class()
        figures = {f"mot/{name}": float(value) for name, value in pooled(by_class.values()).figures().items()}
        if len(by_class) > 1:
            figures |= {f"mot/class_average/{name}": value for name, value in class_average(by_class).items()}
        return figures

    def rows(self) -> dict[str, dict[str, float]]:
        """The figures of each video, all classes pooled."""
        return {name: pooled(counts.values()).figures(of_one_video=True) for name, counts in self.videos.items()}


def score_results(dataset: Dataset, folder: str | Path, *, iou_threshold: float = 0.5) -> TrackingScores:
    """The result files in `folder` (`<video>.txt`, there or in its subfolder `data`) against `dataset`.

    Raises `DataError` for videos without a file, data without videos or tracks, and whatever in a file can't be judged, with its line.
    """
    if not dataset.videos:
        raise DataError(f"{dataset.name} has no videos, so there is nothing to track in it; give a tracking data set")
    files = result_files(dataset, folder)
    labels: list[tuple[str, int | None]] = [(name, label) for label, name in enumerate(dataset.classes)]
    if isinstance(dataset, Mot):
        labels = [("pedestrian", None)]
    return TrackingScores({
        sequence.name: {name: count(sequence, label, iou_threshold) for name, label in labels} for sequence in _sequences(dataset, files)
    })


def result_files(dataset: Dataset, folder: str | Path) -> dict[str, Path]:
    """The file of every video. A MOT17 video may have that of another of its three copies, where its own is not there."""
    place = existing_folder(folder, "the folder of results")
    place = place / "data" if (place / "data").is_dir() and not next(place.glob("*.txt"), None) else place
    there = {file.stem: file for file in sorted(place.glob("*.txt"))}
    plain = {plain_name(stem): file for stem, file in reversed(there.items())}
    found: dict[str, Path] = {}
    for video in dataset.videos:
        file = there.get(file_name(video.name)) or plain.get(plain_name(video.name) if isinstance(dataset, Mot) else video.name)
        if file is not None:
            found[video.name] = file
    missing = [video.name for video in dataset.videos if video.name not in found]
    if missing:
        raise DataError(
            f"{place} has no results for {len(missing)} of the {len(dataset.videos)} videos of {dataset.name}: {', '.join(missing[:5])}; each needs "
            f"a file of its name (an empty one where nothing was found), here are {', '.join(list(there)[:5]) or 'no text files'}"
        )
    return found


def _sequences(dataset: Dataset, files: Mapping[str, Path]) -> Iterator[Sequence]:
    for video in dataset.videos:
        if isinstance(dataset, Mot):
            yield dataset.result_sequence(video.name, files[video.name])
        else:
            numbers = _frame_numbers(dataset, video)
            yield Sequence(video.name, len(video.frames), _truth(dataset, video, numbers), _found(read_table(files[video.name]), dataset, numbers))


def _frame_numbers(dataset: Dataset, video: Video) -> list[int]:
    """The number of each frame, from 1 on."""
    number = getattr(dataset, "frame_number", None)
    return list(range(1, len(video.frames) + 1)) if number is None else [number(index) + 1 for index in video.frames]


def _found(table: MotTable, dataset: Dataset, numbers: list[int]) -> Tracks:
    check_table(table, "the result")
    unknown = ~np.isin(table.frame, numbers)
    if unknown.any():
        raise DataError(f"{table.path}, line {table.lines[unknown][0]}: the video has no frame {table.frame[unknown][0]} (its {len(numbers)} frames "
                        f"are {min(numbers, default=0)} to {max(numbers, default=0)})")
    classes = np.where(table.classes < 1, 1, table.classes) if len(dataset.classes) == 1 else table.classes
    wrong = (classes < 1) | (classes > len(dataset.classes))
    if wrong.any():
        raise DataError(f"{table.path}, line {table.lines[wrong][0]}: its class (eighth column) is {table.classes[wrong][0]}; {dataset.name} has "
                        f"{', '.join(f'{i} {name}' for i, name in enumerate(dataset.classes, 1))}")
    return Tracks(table.frame, table.ids, table.boxes, classes - 1).by_frame()


def _truth(dataset: Dataset, video: Video, numbers: list[int]) -> Truth:
    columns: dict[str, list[Any]] = {name: [] for name in ("frame", "ids", "boxes", "labels", "crowd", "difficult")}
    for index, number in zip(video.frames, numbers, strict=True):
        known = dataset.annotations(index)
        if known.boxes is None or known.labels is None or (known.track_ids is None and len(known.labels)):
            raise DataError(f"{dataset.item_id(index)} of {dataset.name} has no boxes with track ids, so results can't be judged on it")
        size = len(known.labels)
        flags = {name: np.zeros(size, dtype=bool) if (value := getattr(known, name)) is None else value.numpy() for name in ("crowd", "difficult")}
        ids = np.zeros(0, dtype=np.int64) if known.track_ids is None else known.track_ids.numpy()
        row = {"frame": np.full(size, number), "ids": ids, "boxes": known.boxes.numpy().astype(np.float64), "labels": known.labels.numpy(), **flags}
        for name, values in row.items():
            columns[name].append(values)
    frame, ids, boxes, labels, crowd, difficult = (np.concatenate(values) for values in columns.values())
    real = ~crowd
    return Truth(frame[real], ids[real], boxes[real], labels[real], counted=~difficult[real], distractor=difficult[real],
                 regions=Regions(frame[crowd], boxes[crowd])).by_frame()
