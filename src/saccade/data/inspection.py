"""A data set looked through in one pass: counts, class histogram, sizes, and every problem with file and id.

Readers list what is wrong in the annotation files (`problems`); this adds what needs the whole or the images: missing, unreadable, repeated or
wrongly sized images, images without objects, boxes across the border, repeated boxes, classes that never occur. Nothing is changed and nothing raises
on a bad item.
"""
from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.data.combination import present_classes
from saccade.data.contract import Dataset, Problem
from saccade.data.decoding import image_size, read_image
from saccade.errors import DataError
from saccade.structures import Annotations, first_frame

_SMALL, _MEDIUM = 32.0**2, 96.0**2  # COCO's limits of object areas in pixels


@dataclass
class Inspection:
    """What was found.

    `class_counts`: objects of each class, or images where the data set has one class (or several) an image, or a class a pixel; `pixel_counts` are
    the pixels of each class then, 255 those without. `image_sizes`: (height, width) with the number of images of that size. `object_sizes`: small,
    medium and large by COCO's areas. `objects_per_image`: number of objects -> number of images.
    """

    name: str
    description: dict[str, Any]
    classes: tuple[str, ...]
    num_images: int = 0
    num_objects: int = 0
    num_crowd: int = 0
    num_difficult: int = 0
    class_counts: Counter[int] = field(default_factory=Counter)
    pixel_counts: Counter[int] = field(default_factory=Counter)
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    object_sizes: Counter[str] = field(default_factory=Counter)
    objects_per_image: Counter[int] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)


def inspect(dataset: Dataset, *, verify_images: bool = False, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> Inspection:
    """Look through `dataset`. `verify_images` also decodes every image and compares the files' bytes; `progress` may wrap the numbers of the images.

    Without it images are only looked up and their headers read (about 0.1 ms each).
    """
    found = Inspection(dataset.name, dataset.describe(), tuple(dataset.classes), problems=list(getattr(dataset, "problems", [])))
    seen, labelled = _Seen(), False
    for index in progress(range(len(dataset))):
        found.num_images += 1
        where, path = dataset.item_id(index), _path(dataset, index)
        size = _inspect_image(found, dataset, index, where, path, seen, verify_images)
        try:
            contradictions: list[Problem] = getattr(dataset, "examine", lambda _: [])(index)
            found.problems += contradictions
            if contradictions:
                continue
            annotations = dataset.annotations(index)
        except DataError as error:
            if size is not None or path is None:
                found.problems.append(Problem(str(path or dataset.name), where, str(error), "can't be used"))
            continue
        labelled = labelled or _says_something(annotations)
        _inspect_annotations(found, annotations, where, str(path or dataset.name), size)
    never = [] if not labelled else [name for label, name in enumerate(found.classes) if not found.class_counts[label]]
    if never:
        names = ", ".join(never[:20]) + (", ..." if len(never) > 20 else "")
        what = f"{len(never)} of {len(found.classes)} never occur: {names}"
        found.problems.append(Problem(str(getattr(dataset, "root", dataset.name)), "classes", what, "kept"))
    return found


@dataclass
class _Seen:
    """Images met so far, by path and by the digest of their bytes."""

    paths: dict[str, str] = field(default_factory=dict)
    digests: dict[bytes, str] = field(default_factory=dict)


def _path(dataset: Dataset, index: int) -> Path | None:
    """The image's file, None for data sets whose images are not files."""
    find = getattr(dataset, "image_path", None)
    return find(index) if find is not None else None


def _inspect_image(
    found: Inspection, dataset: Dataset, index: int, where: str, path: Path | None, seen: _Seen, verify: bool
) -> tuple[int, int] | None:
    """Adds what is wrong with the image and returns its (height, width), None where it can't be read."""
    if path is None:
        image = first_frame(dataset[index]).size if verify or index == 0 else None
        found.image_sizes.update([image] if image is not None else [])
        return image
    problems, file = found.problems, str(path)
    if file in seen.paths:
        problems.append(Problem(file, where, f"the same image also is {seen.paths[file]}", "kept"))
    seen.paths.setdefault(file, where)
    try:
        size = image_size(path)
        if verify:
            height, width = read_image(path).shape[-2:]
            size = (height, width)
    except DataError as error:
        problems.append(Problem(file, where, str(error), "can't be used"))
        return None
    found.image_sizes[size] += 1
    recorded = getattr(dataset, "recorded_size", lambda _: None)(index)
    if recorded is not None and recorded != size:
        turned = " (EXIF rotation is applied)" if recorded == size[::-1] else ""
        problems.append(Problem(file, where, f"it is {size[1]} x {size[0]}, its annotations say {recorded[1]} x {recorded[0]}{turned}", "kept"))
    if verify:
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest in seen.digests and file != seen.digests[digest]:
            problems.append(Problem(file, where, f"its bytes are those of {Path(seen.digests[digest]).name}", "kept"))
        seen.digests.setdefault(digest, file)
    return size


def _inspect_annotations(found: Inspection, annotations: Annotations, where: str, file: str, size: tuple[int, int] | None) -> None:
    if annotations.boxes is None or annotations.labels is None:
        found.class_counts.update(present_classes(annotations))
        if annotations.segmentation is not None:
            pixels = np.bincount(annotations.segmentation.as_subclass(torch.Tensor).numpy().reshape(-1))
            found.pixel_counts.update({int(label): int(pixels[label]) for label in pixels.nonzero()[0]})
        return
    boxes, labels = annotations.boxes.as_subclass(torch.Tensor).numpy(), annotations.labels.numpy()
    found.num_objects += len(boxes)
    found.objects_per_image[len(boxes)] += 1
    found.class_counts.update(labels.tolist())
    found.num_crowd += int(annotations.crowd.sum()) if annotations.crowd is not None else 0
    found.num_difficult += int(annotations.difficult.sum()) if annotations.difficult is not None else 0
    problems = found.problems
    if len(boxes) == 0:
        problems.append(Problem(file, where, "it has no objects", "kept"))
        return
    areas = annotations.areas.numpy() if annotations.areas is not None else (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    found.object_sizes.update(np.select([areas < _SMALL, areas < _MEDIUM], ["small", "medium"], "large").tolist())
    rows, counts = np.unique(np.column_stack([labels, boxes]), axis=0, return_counts=True)
    for row in rows[counts > 1]:
        problems.append(Problem(file, where, f"its box {_text(row[1:])} of class {found.classes[int(row[0])]} is there more than once", "kept"))
    if size is not None:
        # A hundredth of a pixel, for boxes that were stored as decimals or relative to the image.
        across = (boxes[:, :2] < -0.01).any(1) | (boxes[:, 2] > size[1] + 0.01) | (boxes[:, 3] > size[0] + 0.01)
        for box in boxes[across]:
            problems.append(Problem(file, where, f"its box {_text(box)} reaches beyond the image of {size[1]} x {size[0]}", "kept"))


def _says_something(annotations: Annotations) -> bool:
    return any(value is not None for value in (annotations.boxes, annotations.labels, annotations.label, annotations.segmentation))


def _text(box: np.ndarray) -> str:
    return " ".join(f"{value:.6g}" for value in box)
