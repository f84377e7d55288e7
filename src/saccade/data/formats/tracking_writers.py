"""Videos with tracks into files: MOTChallenge's folders and COCO's json with videos; this package's readers give the same frames again.

As the writers of still images, they take samples one by one, here frame by frame and video by video, and put a whole folder in place at the end.
"""
from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from torch import Tensor

from saccade.data.formats.new_folder import Pictures, new_folder, save_picture
from saccade.data.formats.still_images import file_name
from saccade.data.formats.writers import Source, Written, checked_category_ids, class_names, flag, iterate, object_boxes, split_sources
from saccade.errors import InputError
from saccade.metrics.mot.challenge import CLASSES
from saccade.structures import Sample

# What other data sets call MOTChallenge's classes.
_MOT_NAMES = {"person": "pedestrian", "motorcycle": "motorbike", "bike": "bicycle"}
_DISTRACTOR, _CROWD = CLASSES.index("distractor") + 1, CLASSES.index("crowd") + 1


def write_mot(
    samples: Source | Mapping[str, Source], folder: str | Path, *, classes: Sequence[str] | None = None, split: str = "train",
    pictures: Pictures = "png", frame_rates: Mapping[str, float] | None = None,
) -> Written:
    """MOTChallenge's layout, `<split>/<video>/{img1/000001.jpg, gt/gt.txt, seqinfo.ini}`; read it with `Mot(root=folder, split=split)`.

    Persons are pedestrians, classes that MOTChallenge lacks are left out and counted; difficult objects become distractors, crowd regions its class
    crowd. `frame_rates` (25 where unknown) by video.
    """
    splits, names = split_sources(samples, split), class_names(samples, classes)
    numbers = [_mot_class(name) for name in names]
    written = Written()
    with new_folder(folder) as place:
        for split_name, source in splits.items():
            for video, frames in _videos(source):
                sequence = place / split_name / file_name(video)
                (sequence / "gt").mkdir(parents=True)
                (sequence / "img1").mkdir()
                rows: list[tuple[int, int, str]] = []
                length, size, suffix = 0, (0, 0), ".png"
                for number, sample in frames:
                    length, size = max(length, number + 1), sample.size
                    suffix = _write_picture(sample, sequence / "img1" / f"{number + 1:06d}", pictures)
                    rows += _mot_rows(sample, number + 1, numbers, written)
                    written.images += 1
                (sequence / "gt/gt.txt").write_text("".join(text for _, _, text in sorted(rows, key=lambda row: row[:2])), encoding="utf-8")
                rate = (frame_rates or {}).get(video, 25.0)
                (sequence / "seqinfo.ini").write_text(
                    f"[Sequence]\nname={file_name(video)}\nimDir=img1\nframeRate={rate:g}\nseqLength={length}\nimWidth={size[1]}\nimHeight={size[0]}\n"
                    f"imExt={suffix}\n", encoding="utf-8",
                )
    return written


def _mot_class(name: str) -> int:
    """MOTChallenge's number of a class, 0 where it has none."""
    known = _MOT_NAMES.get(name, name)
    return CLASSES.index(known) + 1 if known in CLASSES else 0


def _mot_rows(sample: Sample, frame: int, numbers: Sequence[int], written: Written) -> Iterator[tuple[int, int, str]]:
    """(id, frame, line) of every object that the format has a class for."""
    boxes, labels = object_boxes(sample)
    for row, (box, label, track) in enumerate(zip(boxes.tolist(), labels.tolist(), _track_ids(sample), strict=True)):
        crowd, difficult = flag(sample.crowd, row), flag(sample.difficult, row)
        number = _CROWD if crowd else _DISTRACTOR if difficult else numbers[label]
        if number == 0:
            written.left_out += 1
            continue
        x1, y1, x2, y2 = box
        considered = int(number == 1)
        yield track, frame, f"{frame},{track},{x1:.6g},{y1:.6g},{x2 - x1:.6g},{y2 - y1:.6g},{considered},{number},1\n"
        written.objects += 1


def write_coco_video(
    samples: Source | Mapping[str, Source], folder: str | Path, *, classes: Sequence[str] | None = None, split: str = "train",
    pictures: Pictures = "png", category_ids: Sequence[int] | None = None, frame_rates: Mapping[str, float] | None = None,
) -> Written:
    """COCO's json with videos, `annotations/instances_<split>.json` with pictures in `<split>/<video>/`; read it with `CocoVideo(root, split=split)`.

    Every track of every video has an `instance_id` of its own, from 1 on. `frame_id` starts at 0.
    """
    splits, names = split_sources(samples, split), class_names(samples, classes)
    ids = checked_category_ids(names, category_ids)
    written = Written()
    with new_folder(folder) as place:
        (place / "annotations").mkdir()
        for split_name, source in splits.items():
            content: dict[str, list[dict[str, object]]] = {
                "categories": [{"id": number, "name": name} for number, name in zip(ids, names, strict=True)], "videos": [], "images": [],
                "annotations": [],
            }
            instances: dict[tuple[str, int], int] = {}
            for video, frames in _videos(source):
                _add_video(content, video, frames, place / split_name, pictures, ids, instances, (frame_rates or {}).get(video))
            (place / "annotations" / f"instances_{split_name}.json").write_text(json.dumps(content), encoding="utf-8")
            written.images += len(content["images"])
            written.objects += len(content["annotations"])
    return written


def _add_video(
    content: dict[str, list[dict[str, object]]], video: str, frames: Iterator[tuple[int, Sample]], place: Path, pictures: Pictures,
    category_ids: Sequence[int], instances: dict[tuple[str, int], int], rate: float | None,
) -> None:
    """Writes the pictures of one video and adds its entries to `content`."""
    images, annotations = content["images"], content["annotations"]
    number = len(content["videos"]) + 1
    (place / file_name(video)).mkdir(parents=True)
    for frame, sample in frames:
        suffix = _write_picture(sample, place / file_name(video) / f"{frame + 1:06d}", pictures)
        height, width = sample.size
        if not frame or len(content["videos"]) < number:
            content["videos"].append({"id": number, "name": video, "height": height, "width": width, **({"fps": rate} if rate else {})})
        images.append({"id": len(images) + 1, "video_id": number, "frame_id": frame, "file_name": f"{file_name(video)}/{frame + 1:06d}{suffix}",
                       "height": height, "width": width})
        boxes, labels = object_boxes(sample)
        for row, (box, label, track) in enumerate(zip(boxes.tolist(), labels.tolist(), _track_ids(sample), strict=True)):
            x1, y1, x2, y2 = box
            area = float(sample.areas[row]) if sample.areas is not None else (x2 - x1) * (y2 - y1)
            annotations.append({
                "id": len(annotations) + 1, "image_id": len(images), "category_id": category_ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": area, "iscrowd": int(flag(sample.crowd, row)), "instance_id": instances.setdefault((video, track), len(instances) + 1),
                **({"difficult": 1} if flag(sample.difficult, row) else {}),
            })


def _videos(source: Source) -> Iterator[tuple[str, Iterator[tuple[int, Sample]]]]:
    """(name, frames with their numbers) of each video; raises `InputError` for a still image, and for a video whose frames are not together."""
    seen: set[str] = set()

    def name(sample: Sample) -> str:
        if sample.meta.video is None or sample.meta.frame is None:
            raise InputError(f"sample {sample.meta.id} belongs to no video, so it fits no format of videos; write still images as coco")
        return sample.meta.video

    for video, frames in groupby(iterate(source), key=name):
        if video in seen:
            raise InputError(f"the frames of the video {video} do not come one after another; write the videos in order")
        seen.add(video)
        yield video, ((sample.meta.frame or 0, sample) for sample in frames)


def _track_ids(sample: Sample) -> list[int]:
    if sample.track_ids is None:
        if sample.labels is not None and len(sample.labels) == 0:
            return []
        raise InputError(f"the objects of sample {sample.meta.id} have no track ids, so they fit no tracking format; write them as coco")
    ids: list[int] = sample.track_ids.as_subclass(Tensor).tolist()
    return ids


def _write_picture(sample: Sample, stem: Path, pictures: Pictures) -> str:
    """Writes the picture as `stem` with a suffix, and returns that."""
    path = sample.meta.path
    if pictures == "copy" and path is not None and Path(path).is_file():
        suffix = Path(path).suffix
        shutil.copyfile(path, stem.with_name(stem.name + suffix))
        return suffix
    suffix = ".jpg" if pictures == "jpeg" else ".png"
    save_picture(sample.image, stem.with_name(stem.name + suffix))
    return suffix


TRACKING_WRITERS = {"mot": write_mot, "coco_video": write_coco_video}
