"""Trackers on detections from files: ids for every video, written as MOT text (and COCO results), and drawn where the pictures are there."""
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.media import VideoWriter
from saccade.engine.files import storage_errors
from saccade.errors import InputError
from saccade.report.detection_files import DetectedVideo, VideoSource
from saccade.report.drawing import draw, to_picture
from saccade.report.media_prediction import OutputNames
from saccade.report.mot_file import MotFile
from saccade.report.trails import Trails
from saccade.structures import Detections
from saccade.tracking.contract import Tracker


@dataclass(frozen=True)
class TrackedVideo:
    """What became of one video: its file of results, and counts. `score_range` is that of the detections."""

    name: str
    path: Path
    frames: int
    detections: int
    boxes: int
    tracks: int
    score_range: tuple[float, float]


def track_files(
    sources: list[VideoSource], tracker: Tracker, out: Path, *, video: bool = False, on_video: Callable[[TrackedVideo], None] | None = None
) -> list[TrackedVideo]:
    """Follow the objects of every video and write `NAME.txt` in MOTChallenge's format to `out`; for COCO results also `tracks.json`, with `track_id`.

    `video`: also draw `NAME.mp4`, for MOTChallenge sequences with their pictures. `on_video` is called after each. Raises DataError for files that
    can't be used, StorageError where `out` takes no files.
    """
    names, done, rows = OutputNames(out, []), [], list[dict[str, Any]]()
    for source in sources:
        found = source.read()
        with storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            path = names.new(f"{source.name}.txt", ".txt")
            tracked = _track(found, tracker, path)
            rows += _coco_rows(found, tracked)
            if video:
                _draw_video(found, tracked, path.with_suffix(".mp4"))
        scores = found.detections.scores
        limits = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 0.0)
        ids = {track for frame in tracked.values() if frame.track_ids is not None for track in frame.track_ids.tolist()}
        boxes = sum(len(frame) for frame in tracked.values())
        done.append(TrackedVideo(source.name, path, found.length, len(scores), boxes, len(ids), limits))
        if on_video is not None:
            on_video(done[-1])
    if rows:
        with storage_errors(out):
            (out / "tracks.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")
    return done


def _track(video: DetectedVideo, tracker: Tracker, path: Path) -> dict[int, Detections]:
    tracker.reset()
    tracked = {}
    with MotFile(path, len(video.classes)) as file:
        file.open()
        for frame, detections in video.by_frame():
            tracked[frame] = tracker.update(detections, frame)
            file.add(frame, tracked[frame])
    return tracked


def _coco_rows(video: DetectedVideo, tracked: dict[int, Detections]) -> list[dict[str, Any]]:
    if not video.image_ids:
        return []
    rows = []
    for frame, found in tracked.items():
        assert found.track_ids is not None
        values = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), found.track_ids.tolist(), strict=True)
        for (x1, y1, x2, y2), score, label, track in values:
            box = [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)]
            entry = {"image_id": video.image_ids[frame], "category_id": video.category_ids[label], "bbox": box, "score": score, "track_id": track}
            rows.append(entry)
    return rows


def _draw_video(video: DetectedVideo, tracked: dict[int, Detections], path: Path) -> None:
    from saccade.data.formats.mot import Mot

    if video.sequence is None or not (video.sequence / "img1").is_dir():
        raise InputError(f"--video needs the pictures of {video.name}: a MOTChallenge folder with det/det.txt and img1 beside it")
    pictures = Mot(root=video.sequence)
    rate = pictures.videos[0].frame_rate or 25.0
    trails = Trails()
    none = Detections.empty()
    none.track_ids = none.labels
    with VideoWriter(path, Fraction(rate).limit_denominator(1000)) as writer:
        for index in range(len(pictures)):
            found = tracked.get(pictures.mot_frame(index) - 1, none)
            picture = to_picture(pictures[index].image)
            trails.add(found)
            writer.write(trails.draw(draw(found, picture, video.classes), *picture.shape[:2]))


def scores_outside(videos: list[TrackedVideo]) -> tuple[float, float] | None:
    """The range of all scores where it is not within 0..1, which trackers' thresholds count on."""
    limits = np.array([v.score_range for v in videos if v.detections])
    if not len(limits) or (limits.min() >= 0 and limits.max() <= 1):
        return None
    return float(limits.min()), float(limits.max())
