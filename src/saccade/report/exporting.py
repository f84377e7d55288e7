"""Predictions as files, written while they come, so that a long video needs no more memory than a short one.

COCO's result format for detections (a plain list; `category_id` is the label + 1, named in `images.json`), with the file's name and the frame added;
the best classes as JSON and CSV for classification; PNG label maps for semantic maps and COCO's panoptic layout for panoptic ones.
"""
from __future__ import annotations

import csv
import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from saccade.structures import Classification, Detections, Panoptic, Prediction, SegmentationMap

_TOP = 5
Format = Literal["coco", "csv"]


@dataclass(frozen=True)
class Source:
    """What a prediction is about: running number, file, size in pixels, the frame where the file is a video, and where it was drawn."""

    id: int
    file_name: str
    height: int
    width: int
    frame: int | None = None
    picture: str | None = None


class _Rows:
    """A JSON list that grows line by line beside its final name."""

    def __init__(self, path: Path) -> None:
        self._path, self._partial = path, path.with_name(f".{path.name}.partial")
        self._file: IO[str] = open(self._partial, "w", encoding="utf-8")  # noqa: SIM115  (closed by close)
        self._count = 0
        self._file.write("[")

    def add(self, row: dict[str, Any]) -> None:
        self._file.write((",\n " if self._count else "\n ") + json.dumps(row, ensure_ascii=False))
        self._count += 1

    def close(self) -> None:
        self._file.write("\n]\n")
        _finish(self._file, self._partial, self._path)


def _finish(file: IO[str], partial: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    os.replace(partial, path)


class PredictionFiles:
    """`add` predictions one by one; `close` (or leaving it as a context manager, even by an error) completes the files.

    `folder` gets `predictions.json`, `images.json`, and `predictions.csv` for classification or where `file_format` is "csv"; maps go to `maps/`.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str], file_format: Format = "coco") -> None:
        self.folder, self.classes, self.file_format = Path(folder), tuple(classes), file_format
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows = _Rows(self.folder / "predictions.json")
        self._images = _Rows(self.folder / "images.partial.json")
        self._csv_partial = self.folder / ".predictions.csv.partial"
        self._csv_file: IO[str] | None = None
        self._csv: Any = None
        self.count = 0

    def add(self, prediction: Prediction, source: Source) -> None:
        """Write what was predicted for one image or frame."""
        self.count += 1
        self._images.add({key: value for key, value in asdict(source).items() if value is not None})
        rows = list(_rows(prediction, source, self.classes, self.folder))
        for row in rows:
            self._rows.add(row)
        if self.file_format == "csv" or isinstance(prediction, Classification):
            for row in rows:
                self._add_csv(_flat(row, self.classes))

    def _add_csv(self, row: dict[str, Any]) -> None:
        if self._csv_file is None:
            self._csv_file = open(self._csv_partial, "w", encoding="utf-8", newline="")  # noqa: SIM115  (closed by close)
            self._csv = csv.DictWriter(self._csv_file, fieldnames=list(row))
            self._csv.writeheader()
        self._csv.writerow(row)

    def close(self) -> None:
        """Complete the files and give them their names."""
        self._rows.close()
        self._images.close()
        self._finish_images()
        if self._csv_file is not None:
            _finish(self._csv_file, self._csv_partial, self.folder / "predictions.csv")

    def _finish_images(self) -> None:
        # The list of images may be long; it is copied line by line into the mapping that COCO wants.
        listed, partial = self.folder / "images.partial.json", self.folder / ".images.json.partial"
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(self.classes)]
        with open(listed, encoding="utf-8") as source, open(partial, "w", encoding="utf-8") as target:
            target.write(f'{{"categories": {json.dumps(categories, ensure_ascii=False)},\n"images": ')
            for line in source:
                target.write(line)
            target.write("}\n")
            _finish(target, partial, self.folder / "images.json")
        listed.unlink()

    def __enter__(self) -> PredictionFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _head(source: Source) -> dict[str, Any]:
    frame = {} if source.frame is None else {"frame": source.frame}
    return {"image_id": source.id, "file_name": source.file_name, **frame}


@functools.singledispatch
def _rows(prediction: object, source: Source, classes: tuple[str, ...], folder: Path) -> Iterator[dict[str, Any]]:
    raise TypeError(f"nothing is known about writing a {type(prediction).__name__}")


@_rows.register
def _(prediction: Detections, source: Source, classes: tuple[str, ...], folder: Path) -> Iterator[dict[str, Any]]:
    found = prediction.to("cpu")
    corners = found.boxes.double()
    boxes = [[round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)] for x1, y1, x2, y2 in corners.tolist()]
    outlines = None if found.masks is None else _run_lengths(found.masks)
    for i, (box, label, score) in enumerate(zip(boxes, found.labels.tolist(), found.scores.tolist(), strict=True)):
        row = _head(source) | {"category_id": label + 1, "bbox": box, "score": round(score, 5)}
        if found.track_ids is not None:
            row["track_id"] = int(found.track_ids[i])
        if outlines is not None:
            row["segmentation"] = outlines[i]
        yield row


@_rows.register
def _(prediction: Classification, source: Source, classes: tuple[str, ...], folder: Path) -> Iterator[dict[str, Any]]:
    top = [{"class": classes[label], "score": round(score, 5)} for label, score in prediction.top(_TOP)]
    yield _head(source) | {"category_id": prediction.label + 1, "class": top[0]["class"], "score": top[0]["score"], "top": top}


@_rows.register
def _(prediction: SegmentationMap, source: Source, classes: tuple[str, ...], folder: Path) -> Iterator[dict[str, Any]]:
    labels = prediction.labels.cpu().numpy()
    depth = np.uint8 if len(classes) <= 255 else np.uint16
    yield _head(source) | {"segmentation_map": _save_map(Image.fromarray(labels.astype(depth)), source, folder)}


@_rows.register
def _(prediction: Panoptic, source: Source, classes: tuple[str, ...], folder: Path) -> Iterator[dict[str, Any]]:
    ids = prediction.segment_map.as_subclass(Tensor).cpu().numpy()
    coded = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)  # COCO's panoptic PNG: id = r + 256 g + 256^2 b
    segments = [
        {"id": s.id, "category_id": s.label + 1, "isthing": int(s.is_thing), "score": round(s.score, 5), "area": int((ids == s.id).sum())}
        for s in prediction.segments
    ]
    yield _head(source) | {"panoptic_map": _save_map(Image.fromarray(coded), source, folder), "segments_info": segments}


def _save_map(image: Image.Image, source: Source, folder: Path) -> str:
    name = f"maps/{source.id:08d}.png"
    (folder / "maps").mkdir(exist_ok=True)
    image.save(folder / name)
    return name


def _run_lengths(masks: Tensor) -> list[dict[str, Any]]:
    from faster_coco_eval.core.mask import encode

    if not len(masks):
        return []
    coded = encode(np.asfortranarray(masks.numpy().astype(np.uint8).transpose(1, 2, 0)))
    return [{"size": one["size"], "counts": one["counts"].decode()} for one in coded]


def _flat(row: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    """A JSON row as one line of a table."""
    flat = {"file_name": row["file_name"], "frame": row.get("frame", "")}
    if "top" in row:
        for place in range(_TOP):
            entry = row["top"][place] if place < len(row["top"]) else {"class": "", "score": ""}
            flat |= {f"class_{place + 1}": entry["class"], f"score_{place + 1}": entry["score"]}
        return flat
    if "bbox" in row:
        x, y, width, height = row["bbox"]
        corners = {"x1": x, "y1": y, "x2": round(x + width, 3), "y2": round(y + height, 3)}
        return flat | {"class": classes[row["category_id"] - 1], "score": row["score"], **corners, "track_id": row.get("track_id", "")}
    return flat | {"map": row.get("segmentation_map", row.get("panoptic_map", ""))}
