"""A model on images and videos as people have them: read, predict, track, draw, write, one after the other, whatever their number and length."""
from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from saccade.data.decoding import read_image
from saccade.data.formats.video_frames import natural_order
from saccade.data.media import Medium, VideoReader, VideoWriter
from saccade.engine.files import storage_errors
from saccade.errors import DataError, InputError, NumericError
from saccade.models.contract import Model
from saccade.report.drawing import Picture, draw, to_picture
from saccade.report.exporting import Format, PredictionFiles, Source
from saccade.report.mot_file import MotFile
from saccade.report.prediction import predict_stream
from saccade.report.trails import Trails
from saccade.structures import Detections, Prediction
from saccade.tracking.contract import Tracker

_LONGEST_NAME = 120
_SCORE = 0.5


@dataclass
class Summary:
    """What became of the inputs: how many images and frames were looked at, which inputs failed and why, which videos broke off."""

    images: int = 0
    frames: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    broken_off: list[tuple[str, str]] = field(default_factory=list)


class OutputNames:
    """File names in one folder that are neither given twice (whatever their case) nor those of an input."""

    def __init__(self, folder: Path, inputs: Sequence[Path]) -> None:
        self.folder = folder
        self._taken = {str(path.resolve()).casefold() for path in inputs}

    def new(self, name: str, suffix: str) -> Path:
        """A free path for the input `name` (which may have folders in front): its stem, else with the folder before it, else with a number."""
        parts = Path(name).parts
        stem = _harmless(Path(name).stem)
        for candidate in self._candidates(stem, _harmless(parts[-2]) if len(parts) > 1 else None):
            path = self.folder / f"{candidate}{suffix}"
            key = str(path.resolve()).casefold()
            if key not in self._taken:
                self._taken.add(key)
                return path
        raise AssertionError("numbers do not end")

    @staticmethod
    def _candidates(stem: str, parent: str | None) -> Iterator[str]:
        yield stem
        if parent is not None:
            yield f"{parent}-{stem}"
        number = 2
        while True:
            yield f"{stem}-{number}"
            number += 1


def _harmless(name: str) -> str:
    """The name without control characters and separators, not hidden and not an option, and short enough for any file system."""
    kept = "".join("_" if unicodedata.category(c).startswith("C") or c in '/\\:*?"<>|' else c for c in name).strip(" ")
    kept = kept.lstrip(".-") or "unnamed"
    return kept.encode()[:_LONGEST_NAME].decode(errors="ignore")


def predict_media(
    model: Model, media: Sequence[Medium], out: Path, *, score_threshold: float | None = None, batch_size: int = 8, pictures: bool = True,
    file_format: Format = "coco", tracker: Tracker | None = None, frames: bool = False, on_item: Callable[[Medium], None] | None = None,
) -> Summary:
    """Predict for all `media` and write drawn pictures, drawn videos and `predictions.json` to the folder `out`.

    Detections with a score below `score_threshold` are neither drawn nor written; None is 0.5, and what the tracker keeps where objects are tracked.
    A `tracker` is given those above, and what it returns is drawn, with tails, and written, also as MOT text, one file a video; models that track by
    themselves need none for that. `frames`: the images of a folder are the frames of one video, as they always are for a tracker. `on_item` is called
    after each image and each frame. What can't be read is noted in the summary and passed over. Raises NumericError where a prediction is not finite,
    InputError where a tracker meets a model that finds no objects, StorageError where `out` takes no files.
    """
    summary, names = Summary(), OutputNames(out, [m.path for m in media])
    report = on_item if on_item is not None else _ignore
    # What goes wrong with an input is dealt with where it is read, so what is left here is about writing; the files make the folder.
    with storage_errors(out), PredictionFiles(out, model.classes, file_format) as files:
        drawer = _Drawer(model.classes, score_threshold, pictures, names, files)
        images = [m for m in media if m.kind == "image"]
        for name, members in _image_videos(images) if frames or tracker is not None else [(None, images)]:
            place = {medium.path: index for index, medium in enumerate(members)}
            with drawer.following(name, tracker):
                # A tracker takes the place of the memory that a model may have.
                predicted = predict_stream(model, _readable(members, summary, report), batch_size=batch_size, video=None if tracker else name)
                for medium, image, prediction in predicted:
                    drawer.image(medium, place[medium.path], image, prediction)
                    summary.images += 1
                    report(medium)
        for medium in media:
            if medium.kind == "video":
                with drawer.following(medium.name, tracker):
                    _predict_video(model, medium, drawer, batch_size, tracker is None, summary, report)
    return summary


def _image_videos(images: Iterable[Medium]) -> list[tuple[str, list[Medium]]]:
    """The images folder by folder, in the order of the numbers in their names; MOTChallenge's `img1` goes by the folder that it lies in."""
    folders: dict[Path, list[Medium]] = {}
    for medium in images:
        folders.setdefault(medium.path.resolve().parent, []).append(medium)
    names = {folder: folder.parent.name if folder.name == "img1" else folder.name for folder in folders}
    return [(f"{names[folder]}.txt", sorted(members, key=lambda m: natural_order(m.path.name))) for folder, members in folders.items()]


def count_items(media: Sequence[Medium]) -> int | None:
    """How many images and frames there are to look at, by what the videos' headers say; None where one says nothing."""
    total = 0
    for medium in media:
        if medium.kind == "image":
            total += 1
            continue
        try:
            length = VideoReader(medium.path).length
        except DataError:
            continue
        if length is None:
            return None
        total += length
    return total


def _ignore(medium: Medium) -> None:
    return None


def _readable(images: Sequence[Medium], summary: Summary, report: Callable[[Medium], None]) -> Iterator[tuple[Medium, Tensor]]:
    for medium in images:
        try:
            image = read_image(medium.path)
        except DataError as error:
            summary.failed.append((medium.name, str(error)))
            report(medium)
            continue
        yield medium, image


def _predict_video(
    model: Model, medium: Medium, drawer: _Drawer, batch_size: int, remember: bool, summary: Summary, report: Callable[[Medium], None]
) -> None:
    try:
        reader = VideoReader(medium.path)
    except DataError as error:
        summary.failed.append((medium.name, str(error)))
        return
    frames = ((i, torch.from_numpy(frame).permute(2, 0, 1)) for i, frame in enumerate(reader))
    predicted = predict_stream(model, frames, batch_size=batch_size, video=medium.name if remember else None)
    with drawer.video(medium, reader) as writer:
        for index, image, prediction in predicted:
            drawer.frame(medium, index, image, prediction, writer)
            summary.frames += 1
            report(medium)
    if reader.broken is not None:
        summary.broken_off.append((medium.name, reader.broken))


@dataclass
class _Tracks:
    """What is kept of one video while it goes on."""

    tracker: Tracker | None
    file: MotFile
    trails: Trails = field(default_factory=Trails)

    def follow(self, found: Detections, index: int) -> Detections:
        if self.tracker is not None:
            found = self.tracker.update(found, index)
        if found.track_ids is not None:
            self.trails.add(found)
            self.file.add(index, found)
        return found


class _Drawer:
    """Draws and writes what was predicted."""

    def __init__(self, classes: Sequence[str], score_threshold: float | None, pictures: bool, names: OutputNames, files: PredictionFiles) -> None:
        self.classes, self.score_threshold, self.pictures, self.names, self.files = classes, score_threshold, pictures, names, files
        self._tracks: _Tracks | None = None

    @contextmanager
    def following(self, name: str | None, tracker: Tracker | None) -> Iterator[None]:
        """What is drawn meanwhile are the frames of one video; or single images, where it has no name."""
        if name is None:
            yield
            return
        if tracker is not None:
            tracker.reset()
        with MotFile(self.names.new(name, ".txt"), len(self.classes)) as file:
            self._tracks = _Tracks(tracker, file)
            yield
        self._tracks = None

    def image(self, medium: Medium, index: int, image: Tensor, prediction: Prediction) -> None:
        path = self.names.new(medium.name, ".jpg") if self.pictures else None
        prediction = self._write(medium, index, image, prediction, None, path)
        if path is not None:
            Image.fromarray(self._draw(prediction, image)).save(path, quality=92)

    def video(self, medium: Medium, reader: VideoReader) -> VideoWriter:
        return VideoWriter(self.names.new(medium.name, ".mp4"), reader.frame_rate)

    def frame(self, medium: Medium, index: int, image: Tensor, prediction: Prediction, writer: VideoWriter) -> None:
        prediction = self._write(medium, index, image, prediction, index, writer.path if self.pictures else None)
        if self.pictures:
            writer.write(self._draw(prediction, image))

    def _draw(self, prediction: Prediction, image: Tensor) -> Picture:
        drawn = draw(prediction, to_picture(image), self.classes)
        return drawn if self._tracks is None else self._tracks.trails.draw(drawn, int(image.shape[-2]), int(image.shape[-1]))

    def _write(self, medium: Medium, index: int, image: Tensor, prediction: Prediction, frame: int | None, path: Path | None) -> Prediction:
        tracker = None if self._tracks is None else self._tracks.tracker
        if tracker is not None and not isinstance(prediction, Detections):
            raise InputError(f"--tracker follows objects from frame to frame, and this model finds none: it gives a {type(prediction).__name__}")
        if isinstance(prediction, Detections):
            if not (torch.isfinite(prediction.boxes).all() and torch.isfinite(prediction.scores).all()):
                where = medium.name if frame is None else f"frame {frame} of {medium.name}"
                raise NumericError(f"The prediction for {where} has boxes or scores that are not finite; look at the checkpoint's weights.")
            if self.score_threshold is not None:
                prediction = prediction.above(self.score_threshold)
            elif tracker is None and prediction.track_ids is None:
                prediction = prediction.above(_SCORE)
            if self._tracks is not None:
                prediction = self._tracks.follow(prediction, index)
        source = Source(
            self.files.count + 1, medium.name, int(image.shape[-2]), int(image.shape[-1]), frame, None if path is None else path.name
        )
        self.files.add(prediction, source)
        return prediction
