"""How the folders of semantic segmentation are recognised: readings (format name, constructor arguments) from names and a look at a few files."""
from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from saccade.data.decoding import IMAGE_SUFFIXES, image_size

Reading = tuple[str, dict[str, Any]]

_GTA5_SIZE = (1052, 1914)  # of most of its frames
_CAMVID_DRIVES = ("0001TP_", "0006R0_", "0016E5_", "Seq05VD_")


def driving_scenes(root: Path, splits: Sequence[str]) -> Iterator[Reading]:
    """Those that name their folders, or their files, in a way of their own."""
    for split in splits:
        if (root / "leftImg8bit" / split).is_dir():
            unlabelled = {} if (root / "gtFine" / split).is_dir() else {"labelled": False}
            yield "cityscapes", {"root": str(root), "split": split, **unlabelled}
    if (root / "RGB").is_dir() and (root / "GT" / "LABELS").is_dir():
        yield "synthia", {"root": str(root)}
    first = first_picture(root / "images")
    if first is None or first_picture(root / "labels") is None:
        return
    if re.fullmatch(r"\d{5}\.png", first.name) and ((root / "split.mat").is_file() or image_size(first) == _GTA5_SIZE):
        yield "gta5", {"root": str(root)}
    if first.stem.startswith(_CAMVID_DRIVES):
        yield "camvid", {"root": str(root)}
        for file in sorted((root / "splits").glob("*.txt")):
            yield "camvid", {"root": str(root), "split": file.stem}


def segmentation_folders(root: Path, splits: Sequence[str]) -> Iterator[Reading]:
    """Two folders of pictures with the same names, with splits as folders below both or as lists in splits/; SegNet's CamVid has trainannot beside
    train."""
    for split in splits:
        if (root / split).is_dir() and (root / f"{split}annot").is_dir():
            yield "segmentation", {"root": str(root), "images": split, "labels": f"{split}annot", "classes": "camvid11", "ids": "camvid"}
    labels = next((name for name in ("labels", "masks", "annotations") if first_picture(root / name) is not None), None)
    if labels is None or first_picture(root / "images") is None:
        return
    known = {"root": str(root), **({} if labels == "labels" else {"labels": labels})}
    folders = [split for split in splits if (root / "images" / split).is_dir() and (root / labels / split).is_dir()]
    lists = sorted((root / "splits").glob("*.txt"))
    yield from (("segmentation", {**known, "split": split}) for split in folders)
    if not folders:
        yield "segmentation", known
    yield from (("segmentation", {**known, "list_file": f"splits/{file.name}"}) for file in lists)


def first_picture(folder: Path) -> Path | None:
    """One of the pictures in `folder` or in one of its first folders; None where there is none."""
    names = (Path(place, name) for place, _, files in islice(os.walk(folder), 50) for name in sorted(files))
    return next((name for name in names if name.suffix.lower() in IMAGE_SUFFIXES), None)
