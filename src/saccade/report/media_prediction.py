"""A model on images and videos as people have them: read, predict, draw, write, one after the other, whatever their number and length."""
from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from saccade.data.decoding import read_image
from saccade.data.media import Medium, VideoReader, VideoWriter
from saccade.engine.files import storage_errors
from saccade.errors import DataError, NumericError
from saccade.models.contract import Model
from saccade.report.drawing import draw, to_picture
from saccade.report.exporting import Format, PredictionFiles, Source
from saccade.report.prediction import predict_stream
from saccade.structures import Detections, Prediction

_LONGEST_NAME = 120


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
    model: Model, media: Sequence[Medium], out: Path, *, score_threshold: float = 0.5, batch_size: int = 8, pictures: bool = True,
    file_format: Format = "coco", on_item: Callable[[Medium], None] | None = None,
) -> Summary:
    """Predict for all `media` and write drawn pictures, drawn videos and `predictions.json` to the folder `out`.

    Detections with a score below `score_threshold` are neither drawn nor written. `on_item` is called after each image and each frame. What can't be
    read is noted in the summary and passed over. Raises NumericError where a prediction is not finite, StorageError where `out` takes no files.
    """
    summary, names = Summary(), OutputNames(out, [m.path for m in media])
    report = on_item if on_item is not None else _ignore
    # What goes wrong with an input is dealt with where it is read, so what is left here is about writing; the files make the folder.
    with storage_errors(out), PredictionFiles(out, model.classes, file_format) as files:
        drawer = _Drawer(model.classes, score_threshold, pictures, names, files)
        images = [m for m in media if m.kind == "image"]
        for medium, image, prediction in predict_stream(model, _readable(images, summary, report), batch_size=batch_size):
            drawer.image(medium, image, prediction)
            summary.images += 1
            report(medium)
        for medium in media:
            if medium.kind == "video":
                _predict_video(model, medium, drawer, batch_size, summary, report)
    return summary


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


def _predict_video(model: Model, medium: Medium, drawer: _Drawer, batch_size: int, summary: Summary, report: Callable[[Medium], None]) -> None:
    try:
        reader = VideoReader(medium.path)
    except DataError as error:
        summary.failed.append((medium.name, str(error)))
        return
    frames = ((i, torch.from_numpy(frame).permute(2, 0, 1)) for i, frame in enumerate(reader))
    predicted = predict_stream(model, frames, batch_size=batch_size, video=medium.name)
    with drawer.video(medium, reader) as writer:
        for index, image, prediction in predicted:
            drawer.frame(medium, index, image, prediction, writer)
            summary.frames += 1
            report(medium)
    if reader.broken is not None:
        summary.broken_off.append((medium.name, reader.broken))


class _Drawer:
    """Draws and writes what was predicted."""

    def __init__(self, classes: Sequence[str], score_threshold: float, pictures: bool, names: OutputNames, files: PredictionFiles) -> None:
        self.classes, self.score_threshold, self.pictures, self.names, self.files = classes, score_threshold, pictures, names, files

    def image(self, medium: Medium, image: Tensor, prediction: Prediction) -> None:
        path = self.names.new(medium.name, ".jpg") if self.pictures else None
        prediction = self._write(medium, image, prediction, None, path)
        if path is not None:
            Image.fromarray(draw(prediction, to_picture(image), self.classes)).save(path, quality=92)

    def video(self, medium: Medium, reader: VideoReader) -> VideoWriter:
        return VideoWriter(self.names.new(medium.name, ".mp4"), reader.frame_rate)

    def frame(self, medium: Medium, index: int, image: Tensor, prediction: Prediction, writer: VideoWriter) -> None:
        prediction = self._write(medium, image, prediction, index, writer.path if self.pictures else None)
        if self.pictures:
            writer.write(draw(prediction, to_picture(image), self.classes))

    def _write(self, medium: Medium, image: Tensor, prediction: Prediction, frame: int | None, path: Path | None) -> Prediction:
        if isinstance(prediction, Detections):
            if not (torch.isfinite(prediction.boxes).all() and torch.isfinite(prediction.scores).all()):
                where = medium.name if frame is None else f"frame {frame} of {medium.name}"
                raise NumericError(f"The prediction for {where} has boxes or scores that are not finite; look at the checkpoint's weights.")
            prediction = prediction.above(self.score_threshold)
        source = Source(
            self.files.count + 1, medium.name, int(image.shape[-2]), int(image.shape[-1]), frame, None if path is None else path.name
        )
        self.files.add(prediction, source)
        return prediction
