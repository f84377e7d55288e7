"""What all readers of still images share: the sample put together from an image file and its annotations, and the list of what is wrong in the data.

A reader (a subclass) holds its index in a few arrays, so that forked loader workers share it, and says where an image lies and what is known about
it.
"""
from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.contract import Problem, Video
from saccade.data.decoding import read_image
from saccade.errors import DataError
from saccade.structures import Annotations, Sample, make_sample


class StillImages(ABC):
    """A data set (see `data.contract.Dataset`) of separate image files.

    `problems` lists what the reader met while it built its index, and whether it left the item out; `saccade data show` adds what only a look at the
    images can tell. An image that can't be decoded raises `DataError` when it is asked for; the loader's policy decides what follows.
    """

    def __init__(self, name: str, root: Path, classes: Sequence[str]) -> None:
        self.name = name
        self.root = root
        self.classes = tuple(classes)
        self.videos: Sequence[Video] = ()
        self.problems: list[Problem] = []

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def annotations(self, index: int) -> Annotations:
        """What is known about image `index`, without decoding it."""

    @abstractmethod
    def item_id(self, index: int) -> str:
        """The id or relative file name of image `index`, for messages."""

    @abstractmethod
    def image_path(self, index: int) -> Path:
        """Where image `index` lies."""

    def recorded_size(self, index: int) -> tuple[int, int] | None:
        """(height, width) as the annotation file states it, None where it does not; the image itself may differ."""
        return None

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        path = self.image_path(index)
        image = read_image(path)
        annotations = self.annotations(index)
        if annotations.masks is not None and annotations.masks.shape[-2:] != image.shape[-2:]:
            raise DataError(
                f"{path} is {image.shape[-2]} x {image.shape[-1]} (height x width, upright), but its masks in {self.root} are for "
                f"{annotations.masks.shape[-2]} x {annotations.masks.shape[-1]}; correct the size in the annotations or remove the EXIF rotation"
            )
        return make_sample(image, annotations, dataset=self.name, id=self.sample_id(index), path=str(path))

    def sample_id(self, index: int) -> str | int:
        """What `Meta.id` is: unique in the data set."""
        return self.item_id(index)

    def describe(self) -> dict[str, Any]:
        """Name, format, root, number of images and classes, and how many items the reader left out."""
        left_out = sum(problem.consequence == "left out" for problem in self.problems)
        return {
            "name": self.name, "format": type(self).__name__, "root": str(self.root), "images": len(self), "classes": len(self.classes),
            "left out": left_out,
        }


def pack_names(names: Sequence[str]) -> np.ndarray:
    """Many strings as one array of bytes: a tenth of the memory, and loader workers do not copy it as they count references."""
    return np.array([name.encode("utf-8", "surrogateescape") for name in names], dtype=np.bytes_)


def unpack_name(names: np.ndarray, index: int) -> str:
    """String `index` of `pack_names`."""
    return bytes(names[index]).decode("utf-8", "surrogateescape")


def existing_folder(path: str | Path, what: str) -> Path:
    """`path` as a folder that exists; `DataError` with `what` it was to be otherwise."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{what} {folder} {state}; check the path (relative ones start at {Path.cwd()})")
    return folder


def file_name(text: str) -> str:
    """`text` as a name for a file or folder: slashes, characters that some file systems refuse, and leading dots become "_"."""
    return re.sub(r'^\.+|[/\\:*?"<>|\x00-\x1f]', "_", text).strip() or "_"


def read_text(path: Path, what: str) -> str:
    """The UTF-8 text of `path` (a byte order mark is dropped); `DataError` with `what` it was to be where it can't be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{what} {path} can't be read: {error}; check that it exists and is UTF-8 text") from error
