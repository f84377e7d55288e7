"""Which format lies in a folder: found from names and a look into small files, without reading the data set.

`candidates` lists every reading that fits, best first (a folder may hold VOC and COCO annotations of the same pictures, or several splits),
`recognise` gives the first, `open_dataset` opens it. The readings are exact ones: VOC corners become half-open boxes also for the named years (see
`Voc`).
"""
from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from saccade.data.contract import Dataset
from saccade.data.decoding import IMAGE_SUFFIXES
from saccade.data.formats.coco import Coco, is_coco
from saccade.data.formats.coco_panoptic import CocoPanoptic, is_panoptic
from saccade.data.formats.coco_video import CocoVideo
from saccade.data.formats.crowdhuman import CrowdHuman
from saccade.data.formats.driving_scenes import CamVid, Cityscapes, Gta5, Synthia
from saccade.data.formats.folders import ImageFolder, ImageList
from saccade.data.formats.frames import Frames
from saccade.data.formats.mot import Mot, sequence_folders
from saccade.data.formats.packed_images import Cifar, Mnist
from saccade.data.formats.scalabel import Scalabel, is_scalabel
from saccade.data.formats.segmentation import SegmentationFolders
from saccade.data.formats.segmentation_layouts import driving_scenes, first_picture, segmentation_folders
from saccade.data.formats.video_frames import picture_files
from saccade.data.formats.voc import Voc
from saccade.data.formats.yolo import Yolo, read_settings
from saccade.data.media import VIDEO_SUFFIXES
from saccade.errors import DataError, InputError

# Names for the command line and `open_dataset`.
FORMATS: dict[str, Callable[..., Dataset]] = {
    "coco": Coco, "coco_panoptic": CocoPanoptic, "voc": Voc, "yolo": Yolo, "imagefolder": ImageFolder, "imagelist": ImageList, "cifar": Cifar,
    "mnist": Mnist, "mot": Mot, "coco_video": CocoVideo, "crowdhuman": CrowdHuman, "scalabel": Scalabel, "frames": Frames,
    "segmentation": SegmentationFolders, "cityscapes": Cityscapes, "gta5": Gta5, "synthia": Synthia, "camvid": CamVid,
}
_COCO_KINDS = ("coco", "coco_panoptic", "coco_video")
SEGMENTATION = ("segmentation", "cityscapes", "gta5", "synthia", "camvid")
_SPLITS = ("train", "training", "trainval", "val", "valid", "validation", "test", "testing")
_LOOKED_FOR = (
    "COCO (a json with images, annotations and categories, beside the pictures or in annotations/; panoptic with a folder of pngs "
    "named after it), VOC (Annotations/*.xml and JPEGImages/, or VOC2007/ and VOC2012/), YOLO (data.yaml or classes.txt, with images/ and "
    "labels/), CIFAR (data_batch_1, train, or .bin), MNIST (*-idx3-ubyte, also .gz), "
    "MOTChallenge (folders with seqinfo.ini, img1/ and gt/, also below train/ and test/), COCO with videos, CrowdHuman (annotation_train.odgt), "
    "Scalabel (a json of frames, or a folder of these, also in labels/), Cityscapes (leftImg8bit/ and gtFine/), GTA5, SYNTHIA (RGB/ and GT/LABELS/), "
    "CamVid, semantic segmentation (images/ and labels/, masks/ or annotations/ with pictures of the same names), "
    "an image list (a text file of lines 'picture label'), image folders (one folder a class, also below train/ and val/), "
    "frames without labels (a folder of pictures, or videos)"
)
Reading = tuple[str, dict[str, Any]]


def candidates(path: str | Path) -> list[Reading]:
    """Every (format name, constructor arguments) that fits `path`, a folder or an annotation file; best first, at most one reading for each split."""
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError(f"{place} does not exist; check the path (relative ones start at {Path.cwd()})")
    if place.is_file():
        return list(_file_readings(place))
    readings: list[Reading] = []
    guesses = (_segmentation, _image_list, _image_folder, _frames)  # from pictures and texts, which the other formats have, too
    for look in (_mot, _crowdhuman, _voc, _coco, _coco_panoptic, _scalabel, _driving_scenes, _yolo, _packed, *guesses):
        if look in guesses and readings:
            continue
        readings += look(place)
    return readings


def recognise(path: str | Path) -> Reading:
    """The best (format name, constructor arguments) for `path`. Raises `DataError` that lists what was looked for where nothing fits."""
    found = candidates(path)
    if not found:
        place = Path(path).expanduser()
        if place.is_dir() and not any(files for _, _, files in os.walk(place)):
            raise DataError(f"{path} is empty: there is no file in it or below it; check the path, and that the copy was complete")
        raise DataError(f"{path} holds no data set of a known format. Looked for: {_LOOKED_FOR}. Name the format if the layout is another")
    return found[0]


def open_dataset(path: str | Path, format: str | None = None, **settings: Any) -> Dataset:  # noqa: A002  (the word of the command line)
    """The data set at `path`, recognised unless `format` (a key of `FORMATS`) says what it is; `settings` are arguments of its reader and come first.

    A `split` among the settings also chooses among the recognised readings. Raises `DataError` or `InputError`.
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"no format is called {format!r}; known are {', '.join(FORMATS)}")
    found = [(name, known) for name, known in candidates(path) if format in (None, name)]
    split = settings.get("split")
    if split is not None:
        of_split = [[reading for reading in found if _split_of(*reading) == wanted] for wanted in (split, None)]
        found = next((readings for readings in of_split if readings), found)
    if not found and format is None:
        recognise(path)
    name, known = found[0] if found else (str(format), {"root": str(path)})
    if split is not None and name in (*_COCO_KINDS, "imagelist", "segmentation") and "split" not in known and _split_of(name, known) == split:
        settings = {key: value for key, value in settings.items() if key != "split"}
    accepted = inspect.signature(FORMATS[name]).parameters
    unknown = [key for key in settings if key not in accepted]
    if unknown:
        raise InputError(f"the reader {FORMATS[name].__name__} takes no {unknown[0]!r}; it takes {', '.join(accepted)}")
    return FORMATS[name](**{**known, **settings})


def open_splits(path: str | Path, format: str | None = None, **settings: Any) -> dict[str, Dataset]:  # noqa: A002  (as in `open_dataset`)
    """Every split of the data set at `path` by its name; "all" alone where there are none. VOC's years are told apart as "2007_train"."""
    found = [(name, known) for name, known in candidates(path) if format in (None, name)]
    splits: dict[str, Dataset] = {}
    for name, known in found:
        split = _split_of(name, known)
        if name == found[0][0] and split is not None:
            splits[f"{known['year']}_{split}" if "year" in known else split] = FORMATS[name](**{**known, **settings})
    return splits or {"all": open_dataset(path, format, **settings)}


def _split_of(name: str, known: dict[str, Any]) -> str | None:
    """The split that a reading stands for, None where it does not say."""
    if "split" in known:
        return str(known["split"])
    if name in _COCO_KINDS and "annotations" in known:
        stem = Path(known["annotations"]).stem
        parent = Path(known["annotations"]).parent.name
        return parent if stem.startswith("_annotations") else stem.removeprefix("instances_").removeprefix("panoptic_")
    if name in ("imagelist", "segmentation") and "list_file" in known:
        return Path(known["list_file"]).stem
    if name == "segmentation" and known.get("images") in _SPLITS:
        return str(known["images"])
    if name == "scalabel":
        return next((part for part in reversed(Path(known["annotations"]).with_suffix("").parts) if part in _SPLITS), None)
    return None


def _file_readings(file: Path) -> Iterator[Reading]:
    folder = file.parent
    if file.suffix == ".json" and _is_panoptic_file(file):
        yield _panoptic_reading(folder.parent if folder.name == "annotations" else folder, file)
    elif file.suffix == ".json" and _is_coco_file(file):
        yield from _coco_readings(folder.parent if folder.name == "annotations" else folder, file)
    elif file.suffix in (".yaml", ".yml") and read_settings(folder) is not None:
        yield "yolo", {"root": str(folder)}
    elif file.suffix == ".txt" and _is_image_list(file):
        yield from _image_lists(folder, [file])
    elif file.suffix == ".odgt":
        yield "crowdhuman", {"root": str(folder), "split": file.stem.removeprefix("annotation_")}
    elif file.suffix == ".json" and _is_scalabel_file(file):
        yield "scalabel", _scalabel_settings(folder, file)
    elif file.suffix.lower() in VIDEO_SUFFIXES:
        yield "frames", {"root": str(file)}


def _mot(root: Path) -> Iterator[Reading]:
    """With distractors, which the benchmark's evaluation forgives."""
    if sequence_folders(root):
        yield "mot", {"root": str(root), "distractors": True}
    for split in _SPLITS:
        if (root / split).is_dir() and sequence_folders(root / split):
            yield "mot", {"root": str(root), "split": split, "distractors": True}


def _crowdhuman(root: Path) -> Iterator[Reading]:
    for split in ("train", "val"):
        if (root / f"annotation_{split}.odgt").is_file():
            yield "crowdhuman", {"root": str(root), "split": split}


def _scalabel(root: Path) -> Iterator[Reading]:
    """Json files in the folder, its `labels` and three levels below that; a folder of several is one reading."""
    for folder in (root, *(Path(place) for place, _, _ in islice(os.walk(root / "labels"), 50))):
        files = sorted(folder.glob("*.json"))
        if files and _is_scalabel_file(files[0]):
            several = len(files) > 1 and not any(f.stem in _SPLITS or f.stem.endswith(_SPLITS) for f in files)
            for chosen in [folder] if several else files:
                yield "scalabel", _scalabel_settings(root, chosen)


def _scalabel_settings(root: Path, chosen: Path) -> dict[str, Any]:
    """Where the annotations are, and the folder that holds the first frame's picture."""
    file = next(chosen.glob("*.json")) if chosen.is_dir() else chosen
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    first = {key: m.group(1) if (m := re.search(rf'"{key}"\s*:\s*"([^"]*)"', text)) else "" for key in ("name", "videoName")}
    relative = chosen.relative_to(root)
    split = next((part for part in reversed(relative.with_suffix("").parts) if part in _SPLITS), "")
    folders = ["", "images", "img", *(f"{place}/{split}" for place in ("images", "images/track", "images/100k", "images/10k") if split)]
    names = (f"{first['videoName']}/{first['name']}", first["name"])
    images = next((f for f in folders if first["name"] and any((root / f / name).is_file() for name in names)), "")
    known = {"root": str(root), "annotations": relative.as_posix()}
    return {**known, "images": images} if images else known


def _is_scalabel_file(file: Path) -> bool:
    with open(file, encoding="utf-8-sig", errors="replace") as text:
        return is_scalabel(text.read(100_000))


def _frames(root: Path) -> Iterator[Reading]:
    """Pictures in the folder itself or in `images` alone, or videos anywhere below; other folders of pictures are taken for classes."""
    if _has_pictures_alone(root):
        yield "frames", {"root": str(root / "images")}
    elif picture_files(root) or any(Path(name).suffix.lower() in VIDEO_SUFFIXES for _, _, files in islice(os.walk(root), 50) for name in files):
        yield "frames", {"root": str(root)}


def _voc(root: Path) -> Iterator[Reading]:
    for place in (root, root / "VOCdevkit"):
        years = [year for year in (2007, 2012) if (place / f"VOC{year}" / "Annotations").is_dir()]
        if years:
            for year in years:
                for split in _lists(place / f"VOC{year}"):
                    yield "voc", {"root": str(place), "year": year, "split": split, "half_open": True}
            return
    if (root / "Annotations").is_dir() and next((root / "Annotations").glob("*.xml"), None) is not None and (root / "JPEGImages").is_dir():
        yield "voc", {"root": str(root), "half_open": True}
        for split in _lists(root):
            yield "voc", {"root": str(root), "split": split, "half_open": True}


def _lists(folder: Path) -> list[str]:
    """The splits of a VOC folder, training first; lists of one class ("cat_train") are none."""
    return sorted((f.stem for f in (folder / "ImageSets" / "Main").glob("*.txt") if f.stem in _SPLITS), key=_SPLITS.index)


def _coco(root: Path) -> Iterator[Reading]:
    files = [f for f in _json_files(root) if not _is_panoptic_file(f)]
    # COCO itself puts captions and key points beside the instances, with the same pictures.
    files = [f for f in files if f.name.startswith("instances_")] or files
    for file in sorted(files, key=lambda f: "train" not in str(f.relative_to(root))):
        if _is_coco_file(file):
            yield from _coco_readings(root, file)


def _coco_panoptic(root: Path) -> Iterator[Reading]:
    for file in sorted(_json_files(root), key=lambda f: "train" not in str(f.relative_to(root))):
        if _is_panoptic_file(file):
            yield _panoptic_reading(root, file)


def _json_files(root: Path) -> list[Path]:
    return [f for folder in (root / "annotations", root, *(root / s for s in _SPLITS)) for f in sorted(folder.glob("*.json"))]


def _panoptic_reading(root: Path, file: Path) -> Reading:
    places = (root / file.stem, file.parent / file.stem, root / "maps")
    maps = next((place for place in places if place.is_dir()), None)
    known = {} if maps is None else {"maps": maps.relative_to(root).as_posix()}
    return "coco_panoptic", {**_coco_reading(root, file)[1], **known}


def _is_panoptic_file(file: Path) -> bool:
    if file.name.startswith(("instances_", "panoptic_")):
        return file.name.startswith("panoptic_")
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    return is_panoptic(text) and _is_coco_file(file)


def _coco_reading(root: Path, file: Path) -> Reading:
    """Where the pictures of a COCO file lie: the folder that holds the first one, else one that is named after the split."""
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    named = re.search(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', text)
    named_video = re.search(r'"videos"\s*:\s*\[', text) and '"video_id"' in text
    first = json.loads(named.group(1)) if named else ""
    split = file.stem.removeprefix("instances_").removeprefix("panoptic_")
    recut = {"minival2014": "val2014", "valminusminival2014": "val2014"}.get(split, split)
    folders = [recut, "images", f"images/{recut}", "JPEGImages", file.parent.relative_to(root).as_posix(), "", "data", "imgs"]
    fitting = next((f for f in folders if (root / f / first).is_file()), None) if first else None
    known = fitting if fitting is not None else next((f for f in folders if f and (root / f).is_dir() and f != "annotations"), "")
    kind = "coco_video" if named_video else "coco"
    return kind, {"root": str(root), "annotations": file.relative_to(root).as_posix(), "images": known}


def _coco_readings(root: Path, file: Path) -> Iterator[Reading]:
    """A file with videos can be read as still images, too."""
    kind, known = _coco_reading(root, file)
    yield kind, known
    if kind != "coco":
        yield "coco", known


def _is_coco_file(file: Path) -> bool:
    """Whether a json file is, or was meant to be, COCO's: `instances_*` by its name, a broken one by its start (the reader says what is wrong)."""
    if file.name.startswith("instances_"):
        return True
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    try:
        return text[:64].lstrip().startswith("{") and is_coco(json.loads(text))
    except (json.JSONDecodeError, RecursionError):
        return re.search(r'"(images|annotations|categories)"\s*:\s*\[', text[:100_000]) is not None


def _driving_scenes(root: Path) -> Iterator[Reading]:
    return driving_scenes(root, _SPLITS)


def _segmentation(root: Path) -> Iterator[Reading]:
    return segmentation_folders(root, _SPLITS)


def _yolo(root: Path) -> Iterator[Reading]:
    if first_picture(root / "labels") is not None:
        return  # YOLO's labels are texts
    settings = read_settings(root)
    if settings is None and not ((root / "classes.txt").is_file() and (root / "labels").is_dir() and (root / "images").is_dir()):
        return
    splits = [s for s in ("train", "val", "test") if (settings.get(s) if settings is not None else (root / "images" / s).is_dir())]
    yield "yolo", {"root": str(root)}
    for split in splits:
        yield "yolo", {"root": str(root), "split": split}


def _packed(root: Path) -> Iterator[Reading]:
    folders = {10: ("cifar-10-batches-py", "cifar-10-batches-bin", "."), 100: ("cifar-100-python", "cifar-100-binary", ".")}
    for variant, files in ((10, ("data_batch_1", "test_batch")), (100, ("train", "test"))):
        for split, file in zip(("train", "test"), files, strict=True):
            if any((root / f / f"{file}{end}").is_file() for f in folders[variant] for end in ("", ".bin")):
                yield "cifar", {"root": str(root), "split": split, "variant": variant}
    for split, stem in (("train", "train"), ("test", "t10k")):
        places = (root, root / "raw", root / "MNIST" / "raw", root / "FashionMNIST" / "raw")
        if any(next(place.glob(f"{stem}-images?idx3-ubyte*"), None) for place in places):
            yield "mnist", {"root": str(root), "split": split, "variant": "fashion" if "fashion" in str(root).lower() else "digits"}


def _image_list(root: Path) -> Iterator[Reading]:
    yield from _image_lists(root, [f for folder in (root, root / "meta") for f in sorted(folder.glob("*.txt")) if _is_image_list(f)])


def _image_lists(root: Path, files: list[Path]) -> Iterator[Reading]:
    names = next((f.name for pattern in ("classes*.txt", "synsets*.txt", "class_names*.txt") for f in sorted(root.glob(pattern))), None)
    for file in files:
        with open(file, encoding="utf-8", errors="replace") as lines:
            first = next((line.strip().rpartition(" ")[0] for line in lines if line.strip()), "")
        images = next((f for f in ("", "images", file.stem, "data") if (root / f / first).is_file()), None)
        if images is not None:
            yield "imagelist", {"root": str(root), "list_file": file.relative_to(root).as_posix(), "images": images, "classes": names}


def _is_image_list(file: Path) -> bool:
    """Whether the first lines of a text are pictures with a label."""
    with open(file, encoding="utf-8", errors="replace") as lines:
        entries = [line.split() for line in islice(lines, 20) if line.strip()]
    return bool(entries) and all(
        len(words) > 1 and words[-1].isdigit() and os.path.splitext(" ".join(words[:-1]))[1].lower() in IMAGE_SUFFIXES for words in entries
    )


def _image_folder(root: Path) -> Iterator[Reading]:
    if _has_pictures_alone(root):
        return
    folders = _folders(root)
    splits = [f for f in sorted(folders, key=lambda f: _SPLITS.index(f) if f in _SPLITS else 99) if f in _SPLITS]
    if splits:
        for split in splits:
            if _has_class_folders(root / split):
                yield "imagefolder", {"root": str(root), "split": split}
    elif folders and all(any((root / f / split).is_dir() for split in _SPLITS) for f in folders):
        for domain in folders:  # the same classes in several domains, each with its splits
            yield from _image_folder(root / domain)
    elif _has_class_folders(root):
        yield "imagefolder", {"root": str(root)}


def _folders(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted, without hidden ones."""
    return sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))


def _has_pictures_alone(root: Path) -> bool:
    """Whether `images` is the only folder in `root` and holds pictures: those are of no class."""
    return _folders(root) == ["images"] and bool(picture_files(root / "images"))


def _has_class_folders(root: Path) -> bool:
    """Whether one of the first folders below `root` has a picture somewhere."""
    names = (name for folder in _folders(root)[:20] for _, _, files in islice(os.walk(root / folder), 50) for name in files)
    return any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in names)
