"""Images and label maps of a few pixels on disk, for the tests of segmentation data."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 16)  # height, width


def write_image(file: Path, size: tuple[int, int] = SIZE, grey: int = 90) -> None:
    """A grey picture."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), grey, dtype=np.uint8)).save(file)


def write_map(file: Path, values: Sequence[int], size: tuple[int, int] = SIZE) -> None:
    """A label map whose columns repeat `values`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    row = np.resize(np.asarray(values, dtype=np.uint8), size[1])
    Image.fromarray(np.broadcast_to(row, size).copy()).save(file)


def write_pairs(root: Path, names: Sequence[str] = ("a", "b", "c"), values: Sequence[int] = (0, 1)) -> Path:
    """`images/` and `labels/` below `root`; returns it."""
    for grey, name in enumerate(names):
        write_image(root / "images" / f"{name}.png", grey=grey)
        write_map(root / "labels" / f"{name}.png", values)
    return root


def write_cityscapes(root: Path, values: Sequence[int] = (7, 26, 31, 0)) -> Path:
    """Two training images and one for validation in the layout of Cityscapes; returns `root`."""
    for split, city, number in (("train", "aachen", "000000_000019"), ("train", "ulm", "000001_000019"), ("val", "lindau", "000002_000019")):
        write_image(root / "leftImg8bit" / split / city / f"{city}_{number}_leftImg8bit.png")
        for kind, own in (("labelIds", values), ("instanceIds", (200,)), ("color", (3,))):
            write_map(root / "gtFine" / split / city / f"{city}_{number}_gtFine_{kind}.png", own)
    return root
