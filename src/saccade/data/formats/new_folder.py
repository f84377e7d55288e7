"""Writing a folder that is either there as a whole or not at all, with pictures under names of their own."""
from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from saccade.data.formats.still_images import file_name
from saccade.errors import InputError, StorageError
from saccade.structures import Sample

# How pictures are written: the source file as it is (png where there is none), or the sample's pixels without or with loss.
Pictures = Literal["copy", "png", "jpeg"]


@contextmanager
def new_folder(target: str | Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well, and is removed when it does not.

    Raises `InputError` where `target` already holds something, `StorageError` where the disk fails.
    """
    folder = Path(target).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already and is not an empty folder; nothing is overwritten, so remove it or choose another place")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise StorageError(f"{folder} can't be created: {error}") from error
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes folders that only their owner may read
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as error:
        raise StorageError(f"writing {folder} failed: {error}; nothing was left there") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class PictureWriter:
    """Writes the samples' pictures below one folder and gives each a name that no other has, also where upper and lower case are one."""

    def __init__(self, folder: Path, pictures: Pictures) -> None:
        self._folder, self._pictures = folder, pictures
        self._taken: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, sample: Sample) -> str:
        """The picture's file name, after the source file's name or the sample's id."""
        stem, path = picture_stem(sample), sample.meta.path
        copied = self._pictures == "copy" and path is not None and Path(path).is_file()
        name = self._free(stem) + (Path(path).suffix if copied and path is not None else ".jpg" if self._pictures == "jpeg" else ".png")
        if copied and path is not None:
            shutil.copyfile(path, self._folder / name)
        else:
            save_picture(sample.image, self._folder / name)
        return name

    def _free(self, stem: str) -> str:
        name, number = stem, 2
        while name.lower() in self._taken:
            name, number = f"{stem}_{number}", number + 1
        self._taken.add(name.lower())
        return name


def picture_stem(sample: Sample) -> str:
    """A file name without suffix for the sample: its source file's, or its id's (numbers with twelve digits, as COCO does)."""
    if sample.meta.path is not None:
        return file_name(Path(sample.meta.path).stem)
    return f"{sample.meta.id:012d}" if isinstance(sample.meta.id, int) else file_name(sample.meta.id)


def save_picture(image: Tensor, path: Path) -> None:
    """Writes uint8 RGB (3, H, W) in the format of the path's suffix; jpeg with quality 95. A fast, loss-free level of compression is used for png."""
    pixels = image.as_subclass(Tensor)
    if pixels.dtype != torch.uint8:
        raise InputError(f"pictures are written from uint8 pixels; the sample for {path.name} has {pixels.dtype}, so write it before normalising")
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
    if path.suffix == ".jpg":
        picture.save(path, quality=95, subsampling=0)
    else:
        picture.save(path, compress_level=2)
