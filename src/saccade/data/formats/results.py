"""Predictions as the files that the original evaluation tools read: COCO's results json and panoptic pngs, VOC's one text file a class."""
from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from saccade.data.formats.new_folder import new_folder
from saccade.data.formats.still_images import file_name
from saccade.data.formats.writers import encode_masks, save_colours
from saccade.data.segments import categories, segment_entries
from saccade.errors import InputError
from saccade.structures import Detections, Panoptic


def coco_results(detections: Detections, image_id: int | str, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """One image's detections as entries of a COCO results file: image_id, category_id (`category_ids[label]`), bbox as x, y, width, height, score,
    and the mask as run lengths where there is one."""
    boxes, scores, labels = detections.boxes.detach().double().cpu().tolist(), detections.scores.detach().cpu().tolist(), detections.labels.tolist()
    runs = encode_masks(detections.masks) if detections.masks is not None else None
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score,
         **({} if runs is None else {"segmentation": runs[row]})}
        for row, ((x1, y1, x2, y2), score, label) in enumerate(zip(boxes, scores, labels, strict=True))
    ]


def coco_results_text(results: Iterable[tuple[int | str, Detections]], category_ids: Sequence[int]) -> str:
    """The text of a results json for pairs of image id and detections, one entry a line."""
    entries = (entry for image_id, found in results for entry in coco_results(found, image_id, category_ids))
    return "[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n"


@dataclass(frozen=True)
class PanopticResult:
    """One image's predicted map, small enough to keep for a whole data set: its png, COCO's `segments_info`, and the labels that are things."""

    image_id: int | str
    png: bytes
    segments: list[dict[str, Any]]
    things: frozenset[int]


def panoptic_result(found: Panoptic, image_id: int | str, category_ids: Sequence[int]) -> PanopticResult:
    """`found` for the image `image_id`; `category_ids[label]` are the ids of its classes."""
    png = BytesIO()
    save_colours(found, png)
    things = frozenset(segment.label for segment in found.segments if segment.is_thing)
    return PanopticResult(image_id, png.getvalue(), segment_entries(found, category_ids, truth=False), things)


def panoptic_results(results: Iterable[PanopticResult], classes: Sequence[str], category_ids: Sequence[int]) -> tuple[str, dict[str, bytes]]:
    """The text of a panoptic results json, and the pngs by file name; panopticapi looks for these in the folder named after the json.

    Whether a class is a thing is taken from the segments; one that was never predicted is written as stuff.
    """
    entries, pngs, things = [], {}, set[int]()
    for result in results:
        stem = f"{result.image_id:012d}" if isinstance(result.image_id, int) else file_name(result.image_id)
        number, name = 2, f"{stem}.png"
        while name in pngs:  # data sets put together may use an id twice
            number, name = number + 1, f"{stem}_{number}.png"
        pngs[name] = result.png
        entries.append(json.dumps({"image_id": result.image_id, "file_name": name, "segments_info": result.segments}))
        things |= result.things
    flags = [label in things for label in range(len(classes))]
    text = f'{{"categories": {json.dumps(categories(classes, category_ids, flags))},\n"annotations": [\n' + ",\n".join(entries) + "\n]}\n"
    return text, pngs


def write_voc_results(
    folder: str | Path, results: Iterable[tuple[str, Detections]], classes: Sequence[str], *, split: str = "test", competition: str = "comp4",
    half_open: bool = True,
) -> list[Path]:
    """VOC's result files `<competition>_det_<split>_<class>.txt`, lines "image score xmin ymin xmax ymax"; every class has one, also without
    detections.

    `half_open` must be what the model was trained on (see `Voc`): true writes (x1 + 1, y1 + 1, x2, y2), false adds 1 to all four.
    Raises `InputError` where `folder` already holds something.
    """
    far = 0.0 if half_open else 1.0
    lines: list[list[str]] = [[] for _ in classes]
    for image, found in results:
        if any(c.isspace() for c in image):
            raise InputError(f"VOC's result files separate by blanks, so the image name {image!r} can't stand in them; rename the image")
        boxes, scores = found.boxes.detach().double().cpu().tolist(), found.scores.detach().cpu().tolist()
        for (x1, y1, x2, y2), score, label in zip(boxes, scores, found.labels.tolist(), strict=True):
            lines[label].append(f"{image} {score:.6f} {x1 + 1:.6f} {y1 + 1:.6f} {x2 + far:.6f} {y2 + far:.6f}\n")
    names = [f"{competition}_det_{split}_{file_name(name)}.txt" for name in classes]
    with new_folder(folder) as place:
        for name, own in zip(names, lines, strict=True):
            (place / name).write_text("".join(own), encoding="utf-8")
    return [Path(folder) / name for name in names]
