"""Data sets into files: COCO, COCO panoptic, VOC, YOLO, image folders; this package's reader of the format gives the same samples again.

All writers take the samples one by one (a data set, any iterable, or a mapping from split names to these) and put a whole folder in place at the end.
What a format can't hold is left out and counted: crowd regions have no place in VOC and YOLO, difficult objects none in YOLO, masks only in COCO.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

from saccade.data.contract import Dataset
from saccade.data.formats.new_folder import Pictures, PictureWriter, new_folder
from saccade.data.formats.still_images import file_name
from saccade.data.segments import categories, colour_coded, segment_entries
from saccade.errors import DataError, InputError
from saccade.structures import Annotations, Panoptic, Sample, make_sample

Source = Dataset | Iterable[Sample]


@dataclass
class Written:
    """What a writer put on disk, and how many objects the format had no place for."""

    images: int = 0
    objects: int = 0
    left_out: int = 0


def write_coco(
    samples: Source | Mapping[str, Source], folder: str | Path, *, classes: Sequence[str] | None = None, split: str = "train",
    pictures: Pictures = "png", category_ids: Sequence[int] | None = None,
) -> Written:
    """COCO's layout: `annotations/instances_<split>.json`, pictures in `<split>/`; read it with `Coco(root=folder, split=split)`.

    `category_ids`: the id of each class (1..K by default). Image ids that are whole numbers are kept, others become 1, 2, ...; masks are written as
    compressed run lengths. `difficult` is written as an extra key that other tools ignore.
    """
    splits, names = split_sources(samples, split), class_names(samples, classes)
    ids = checked_category_ids(names, category_ids)
    written = Written()
    with new_folder(folder) as place:
        (place / "annotations").mkdir()
        for split_name, source in splits.items():
            with open(place / "annotations" / f"instances_{split_name}.json", "w", encoding="utf-8") as file:
                categories = [{"id": number, "name": name} for number, name in zip(ids, names, strict=True)]
                file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
                images = _write_coco_objects(file.write, iterate(source), PictureWriter(place / split_name, pictures), ids, written)
                file.write("\n],\n\"images\": [\n" + ",\n".join(images) + "\n]}\n")
    return written


def _write_coco_objects(
    write: Callable[[str], Any], samples: Iterator[Sample], picture_writer: PictureWriter, category_ids: Sequence[int], written: Written
) -> list[str]:
    """Streams annotations through `write`; returns the image entries, which come after them in the file."""
    images: list[str] = []
    used: set[int] = set()
    before = written.objects
    for sample in samples:
        image_id = _image_id(sample, used)
        height, width = sample.size
        images.append(json.dumps({"id": image_id, "file_name": picture_writer.write(sample), "height": height, "width": width}))
        for entry in _coco_entries(sample, category_ids):
            write((",\n" if written.objects > before else "\n") + json.dumps({"id": written.objects + 1, "image_id": image_id, **entry}))
            written.objects += 1
        written.images += 1
    return images


def _image_id(sample: Sample, used: set[int]) -> int:
    """The sample's own id where that is a whole number that no other has, else a new one; it is added to `used`."""
    wanted = sample.meta.id
    image_id = wanted if isinstance(wanted, int) and wanted not in used else next(i for i in count(len(used) + 1) if i not in used)
    used.add(image_id)
    return image_id


def _coco_entries(sample: Sample, category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    boxes, labels = object_boxes(sample)
    runs = encode_masks(sample.masks) if sample.masks is not None else None
    for row, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        x1, y1, x2, y2 = box
        area = float(sample.areas[row]) if sample.areas is not None else float(sample.masks[row].sum()) if sample.masks is not None \
            else (x2 - x1) * (y2 - y1)
        entry = {"category_id": category_ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": int(flag(sample.crowd, row))}
        if runs is not None:
            entry["segmentation"] = runs[row]
        if flag(sample.difficult, row):
            entry["difficult"] = 1
        yield entry


def write_coco_panoptic(
    samples: Source | Mapping[str, Source], folder: str | Path, *, classes: Sequence[str] | None = None, things: Sequence[bool] | None = None,
    split: str = "train", pictures: Pictures = "png", category_ids: Sequence[int] | None = None,
) -> Written:
    """COCO's panoptic layout: `annotations/panoptic_<split>.json`, pngs in `panoptic_<split>/`, pictures in `<split>/`; read it with
    `CocoPanoptic(root=folder, split=split)`.

    `things`: whether each class is a thing; the data set's own by default. Segments without pixels, as crops leave them, are left out and counted.
    """
    splits, names = split_sources(samples, split), class_names(samples, classes)
    ids = checked_category_ids(names, category_ids)
    things = _things(samples, things, names)
    written = Written()
    with new_folder(folder) as place:
        (place / "annotations").mkdir()
        for split_name, source in splits.items():
            maps = place / f"panoptic_{split_name}"
            maps.mkdir()
            with open(place / "annotations" / f"panoptic_{split_name}.json", "w", encoding="utf-8") as file:
                file.write(f'{{"categories": {json.dumps(categories(names, ids, things))},\n"annotations": [')
                images = _write_coco_segments(file.write, iterate(source), PictureWriter(place / split_name, pictures), maps, ids, written)
                file.write("\n],\n\"images\": [\n" + ",\n".join(images) + "\n]}\n")
    return written


def _write_coco_segments(
    write: Callable[[str], Any], samples: Iterator[Sample], picture_writer: PictureWriter, maps: Path, category_ids: Sequence[int], written: Written
) -> list[str]:
    """Streams annotations through `write` and pngs into `maps`; returns the image entries, which come after the annotations in the file."""
    images: list[str] = []
    used: set[int] = set()
    for sample in samples:
        if sample.panoptic is None:
            raise InputError(f"sample {sample.meta.id} has no panoptic map, so it fits no panoptic format; write its objects as coco instead")
        image_id, picture = _image_id(sample, used), picture_writer.write(sample)
        height, width = sample.size
        png, entries = f"{Path(picture).stem}.png", segment_entries(sample.panoptic, category_ids, truth=True)
        save_colours(sample.panoptic, maps / png)
        write((",\n" if images else "\n") + json.dumps({"image_id": image_id, "file_name": png, "segments_info": entries}))
        images.append(json.dumps({"id": image_id, "file_name": picture, "height": height, "width": width}))
        written.images += 1
        written.objects += len(entries)
        written.left_out += len(sample.panoptic.segments) - len(entries)
    return images


def save_colours(panoptic: Panoptic, file: Path | BytesIO) -> None:
    """Writes a panoptic map as a png of COCO's colours."""
    Image.fromarray(colour_coded(panoptic.segment_map)).save(file, format="png", compress_level=2)


def checked_category_ids(names: Sequence[str], given: Sequence[int] | None) -> list[int]:
    """The ids that are given for the classes, or 1..K; raises `InputError` where they don't fit."""
    ids = list(given) if given is not None else list(range(1, len(names) + 1))
    if len(ids) != len(names) or len(set(ids)) != len(ids):
        raise InputError(f"{len(names)} classes need as many different category ids; {len(ids)} were given: {ids[:10]}")
    return ids


def _things(samples: Source | Mapping[str, Source], things: Sequence[bool] | None, names: Sequence[str]) -> tuple[bool, ...]:
    sources = list(samples.values()) if isinstance(samples, Mapping) else [samples]
    known = things if things is not None else next((source.things for source in sources if hasattr(source, "things")), None)
    if known is None or len(known) != len(names):
        what = "is not known from the samples" if known is None else f"is given for {len(known)}"
        raise InputError(f"which of the {len(names)} classes are things and which stuff {what}; give `things`, a truth value for each class")
    return tuple(known)


def write_voc(
    samples: Source | Mapping[str, Source], folder: str | Path, *, classes: Sequence[str] | None = None, split: str = "train",
    pictures: Pictures = "png",
) -> Written:
    """VOC's layout; read it with `Voc(root=folder, split=split)`. Corners are 1-based and inside the object: (x1 + 1, y1 + 1, x2, y2) of our boxes.

    `classes.txt` keeps the order of the classes. Whole pixels are written as whole numbers, others with their decimals, which some tools refuse.
    """
    splits, names = split_sources(samples, split), class_names(samples, classes)
    written = Written()
    with new_folder(folder) as place:
        (place / "Annotations").mkdir()
        (place / "ImageSets" / "Main").mkdir(parents=True)
        (place / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        picture_writer = PictureWriter(place / "JPEGImages", pictures)
        for split_name, source in splits.items():
            with open(place / "ImageSets" / "Main" / f"{split_name}.txt", "w", encoding="utf-8") as listing:
                for sample in iterate(source):
                    picture = picture_writer.write(sample)
                    (place / "Annotations" / f"{Path(picture).stem}.xml").write_text(_voc_xml(sample, picture, names, written), encoding="utf-8")
                    listing.write(f"{Path(picture).stem}\n")
                    written.images += 1
    return written


def _voc_xml(sample: Sample, picture: str, names: Sequence[str], written: Written) -> str:
    height, width = sample.size
    lines = [
        "<annotation>", "  <folder>JPEGImages</folder>", f"  <filename>{escape(picture)}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>", "  <segmented>0</segmented>",
    ]
    boxes, labels = object_boxes(sample)
    for row, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        if flag(sample.crowd, row):
            written.left_out += 1
            continue
        corners = zip(("xmin", "ymin", "xmax", "ymax"), (box[0] + 1, box[1] + 1, box[2], box[3]), strict=True)
        numbers = "".join(f"<{key}>{int(value) if value == int(value) else value!r}</{key}>" for key, value in corners)
        lines += [
            "  <object>", f"    <name>{escape(names[label])}</name>", "    <pose>Unspecified</pose>", "    <truncated>0</truncated>",
            f"    <difficult>{int(flag(sample.difficult, row))}</difficult>", f"    <bndbox>{numbers}</bndbox>", "  </object>",
        ]
        written.objects += 1
    return "\n".join([*lines, "</annotation>", ""])


def write_yolo(
    samples: Source | Mapping[str, Source], folder: str | Path, *, classes: Sequence[str] | None = None, split: str = "train",
    pictures: Pictures = "png",
) -> Written:
    """YOLO's layout: `data.yaml`, `images/<split>/`, `labels/<split>/`; read it with `Yolo(root=folder, split=split)`.

    Boxes are relative to the image, so they come back within a ten-thousandth of a pixel. Crowd regions are left out, the difficult flag is lost.
    """
    splits, names = split_sources(samples, split), class_names(samples, classes)
    written = Written()
    with new_folder(folder) as place:
        settings = {**{name: f"images/{name}" for name in splits}, "names": dict(enumerate(names))}
        (place / "data.yaml").write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
        for split_name, source in splits.items():
            picture_writer = PictureWriter(place / "images" / split_name, pictures)
            (place / "labels" / split_name).mkdir(parents=True)
            for sample in iterate(source):
                picture = picture_writer.write(sample)
                (place / "labels" / split_name / f"{Path(picture).stem}.txt").write_text(_yolo_lines(sample, written), encoding="utf-8")
                written.images += 1
    return written


def _yolo_lines(sample: Sample, written: Written) -> str:
    height, width = sample.size
    boxes, labels = object_boxes(sample)
    lines = []
    for row, ((x1, y1, x2, y2), label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        if flag(sample.crowd, row):
            written.left_out += 1
            continue
        lines.append(f"{label} {(x1 + x2) / 2 / width:.9g} {(y1 + y2) / 2 / height:.9g} {(x2 - x1) / width:.9g} {(y2 - y1) / height:.9g}\n")
        written.objects += 1
    return "".join(lines)


def write_image_folder(
    samples: Source | Mapping[str, Source], folder: str | Path, *, classes: Sequence[str] | None = None, split: str = "train",
    pictures: Pictures = "png",
) -> Written:
    """`<split>/<class>/<picture>`, with `classes.txt` for the order of the classes; read it with `ImageFolder(root=folder, split=split)`.

    Samples need one class as their `label`; of detection data write `object_crops` of it.
    """
    splits, names = split_sources(samples, split), class_names(samples, classes)
    written = Written()
    with new_folder(folder) as place:
        (place / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        for split_name, source in splits.items():
            writers = [PictureWriter(place / split_name / file_name(name), pictures) for name in names]
            for sample in iterate(source):
                if not isinstance(sample.label, int):
                    raise InputError(f"sample {sample.meta.id} has no single class as its label, so it fits no image folder; of detection data "
                                     "write the objects (object_crops)")
                writers[sample.label].write(sample)
                written.images += 1
    return written


def object_crops(samples: Source, smallest: int = 8) -> Iterator[Sample]:
    """Every object of detection samples as a picture of its own with its class as `label`; no crowd regions, no side below `smallest` pixels."""
    for sample in iterate(samples):
        boxes, labels = object_boxes(sample)
        height, width = sample.size
        limits = torch.tensor([width, height, width, height])
        for row, box in enumerate(torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], 1).long().clamp(min=0).minimum(limits).tolist()):
            x1, y1, x2, y2 = box
            if min(x2 - x1, y2 - y1) >= smallest and not flag(sample.crowd, row):
                crop = sample.image.as_subclass(Tensor)[:, y1:y2, x1:x2].contiguous()
                name = f"{sample.meta.id:012d}" if isinstance(sample.meta.id, int) else sample.meta.id
                yield make_sample(crop, Annotations(label=int(labels[row])), dataset=sample.meta.dataset, id=f"{name}_{row}")


WRITERS: dict[str, Callable[..., Written]] = {
    "coco": write_coco, "coco_panoptic": write_coco_panoptic, "voc": write_voc, "yolo": write_yolo, "imagefolder": write_image_folder,
}


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Masks (n, H, W) bool as COCO's compressed run lengths, each {"size": [H, W], "counts": text}."""
    from faster_coco_eval.core import mask as coco_mask

    if len(masks) == 0:
        return []
    columns = np.asfortranarray(masks.as_subclass(Tensor).cpu().numpy().astype(np.uint8).transpose(1, 2, 0))  # (H, W, n)
    return [{"size": list(masks.shape[-2:]), "counts": runs["counts"].decode("ascii")} for runs in coco_mask.encode(columns)]


def object_boxes(sample: Sample) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4) float64 and labels (n,); raises `InputError` for a sample without boxes."""
    if sample.boxes is None or sample.labels is None:
        raise InputError(f"sample {sample.meta.id} has no boxes (not even none at all), so it fits no detection format; write an image folder of it")
    return sample.boxes.as_subclass(Tensor).double().reshape(-1, 4), sample.labels.as_subclass(Tensor)


def flag(flags: Tensor | None, row: int) -> bool:
    """One flag of a column that may be absent."""
    return flags is not None and bool(flags[row])


def split_sources(samples: Source | Mapping[str, Source], split: str) -> dict[str, Source]:
    """The samples of each split by its name."""
    splits = dict(samples) if isinstance(samples, Mapping) else {split: samples}
    wrong = [name for name in splits if file_name(name) != name]
    if wrong or not splits:
        raise InputError(f"splits need names that can be file names; {wrong} can't" if wrong else "there is no split to write")
    return splits


def class_names(samples: Source | Mapping[str, Source], classes: Sequence[str] | None) -> tuple[str, ...]:
    """The classes that are given, or those of the samples' data sets."""
    if classes is None:
        sources = list(samples.values()) if isinstance(samples, Mapping) else [samples]
        known = {tuple(getattr(source, "classes", ())) for source in sources}
        if len(known) != 1 or known == {()}:
            raise InputError("the names of the classes are not known from the samples (or differ between the splits); give `classes`")
        classes = known.pop()
    if any("\n" in name or not name.strip() for name in classes):
        raise DataError(f"class names must not be empty or contain line breaks; they are {list(classes)}")
    return tuple(classes)


def iterate(source: Source) -> Iterator[Sample]:
    """The samples one by one."""
    if isinstance(source, Dataset):
        return (source[index] for index in range(len(source)))
    return iter(source)
