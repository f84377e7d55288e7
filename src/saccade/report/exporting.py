"""Predictions as files, written while they come, so that a long video needs no more memory than a short one.

COCO's result format for detections (a plain list; `category_id` is the label + 1, named in `images.json`), with the file's name and the frame added;
the best classes as JSON and CSV for classification; PNGs of labels, colours and confidence for semantic maps, COCO's layout for panoptic ones.
"""
from __future__ import annotations

import csv
import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from saccade.data.formats.label_files import COLOURS, CONFIDENCE, colour_file, confidence_file, label_file
from saccade.data.segments import categories, colour_coded, segment_entries
from saccade.engine.files import atomic_write
from saccade.report.palette import class_colours
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

    `folder` gets `predictions.json`, `images.json`, and `predictions.csv` for classification or where `file_format` is "csv"; maps go to `maps/`, of
    semantic ones also `colours/` and `confidence/` (see `data.formats.label_files`).
    Panoptic maps also get `panoptic.json` in COCO's layout, which panopticapi and `CocoPanoptic(root=folder, annotations="panoptic.json",
    maps="maps", images=...)` read. Whether a class is a thing is taken from the segments; one that was never predicted is written as stuff.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str], file_format: Format = "coco") -> None:
        self.folder, self.classes, self.file_format = Path(folder), tuple(classes), file_format
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows = _Rows(self.folder / "predictions.json")
        self._images = _Rows(self.folder / "images.partial.json")
        self._csv_partial = self.folder / ".predictions.csv.partial"
        self._csv_file: IO[str] | None = None
        self._csv: Any = None
        self._panoptic: _Rows | None = None
        self._things: set[int] = set()
        self.count = 0

    def add(self, prediction: Prediction, source: Source) -> None:
        """Write what was predicted for one image or frame."""
        self.count += 1
        self._images.add({key: value for key, value in asdict(source).items() if value is not None})
        rows = list(_rows(prediction, source, self.classes, self.folder))
        for row in rows:
            self._rows.add(row)
        if isinstance(prediction, Panoptic):
            self._add_panoptic(prediction, rows[0])
        if self.file_format == "csv" or isinstance(prediction, Classification):
            for row in rows:
                self._add_csv(_flat(row, self.classes))

    def _add_csv(self, row: dict[str, Any]) -> None:
        if self._csv_file is None:
            self._csv_file = open(self._csv_partial, "w", encoding="utf-8", newline="")  # noqa: SIM115  (closed by close)
            self._csv = csv.DictWriter(self._csv_file, fieldnames=list(row))
            self._csv.writeheader()
        self._csv.writerow(row)

    def _add_panoptic(self, prediction: Panoptic, row: dict[str, Any]) -> None:
        if self._panoptic is None:
            self._panoptic = _Rows(self.folder / "panoptic.partial.json")
        self._things |= {segment.label for segment in prediction.segments if segment.is_thing}
        self._panoptic.add({"image_id": row["image_id"], "file_name": Path(row["panoptic_map"]).name, "segments_info": row["segments_info"]})

    def close(self) -> None:
        """Complete the files and give them their names."""
        self._rows.close()
        self._images.close()
        if self._panoptic is not None:
            self._panoptic.close()
            flags = [label in self._things for label in range(len(self.classes))]
            known = categories(self.classes, range(1, len(self.classes) + 1), flags)
            self._join("panoptic.json", known, {"images": "images.partial.json", "annotations": "panoptic.partial.json"})
            (self.folder / "panoptic.partial.json").unlink()
        names = [{"id": i + 1, "name": name} for i, name in enumerate(self.classes)]
        self._join("images.json", names, {"images": "images.partial.json"})
        (self.folder / "images.partial.json").unlink()
        if self._csv_file is not None:
            _finish(self._csv_file, self._csv_partial, self.folder / "predictions.csv")

    def _join(self, name: str, known: list[dict[str, Any]], lists: dict[str, str]) -> None:
        """Write the file `name`, a mapping with the categories `known` and the `lists` that lie in files of their own."""
        # These lists may be long; they are copied line by line into the mapping that COCO wants.
        partial = self.folder / f".{name}.partial"
        with open(partial, "w", encoding="utf-8") as target:
            target.write(f'{{"categories": {json.dumps(known, ensure_ascii=False)}')
            for key, file in lists.items():
                target.write(f',\n"{key}": ')
                with open(self.folder / file, encoding="utf-8") as source:
                    target.writelines(source)
            target.write("}\n")
            _finish(target, partial, self.folder / name)

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
    row = _head(source) | {"segmentation_map": _save(label_file(prediction.labels), "maps", source, folder)}
    row["colour_map"] = _save(colour_file(prediction.labels, class_colours(classes)), COLOURS, source, folder)
    if prediction.scores is not None and prediction.scores.ndim == 2:
        row["confidence_map"] = _save(confidence_file(prediction.scores), CONFIDENCE, source, folder)
    yield row


@_rows.register
def _(prediction: Panoptic, source: Source, classes: tuple[str, ...], folder: Path) -> Iterator[dict[str, Any]]:
    segments = segment_entries(prediction, range(1, len(classes) + 1), truth=False)
    coded = BytesIO()
    Image.fromarray(colour_coded(prediction.segment_map)).save(coded, "PNG")
    yield _head(source) | {"panoptic_map": _save(coded.getvalue(), "maps", source, folder), "segments_info": segments}


def _save(png: bytes, kind: str, source: Source, folder: Path) -> str:
    name = f"{kind}/{source.id:08d}.png"
    (folder / kind).mkdir(exist_ok=True)
    atomic_write(folder / name, png)
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
