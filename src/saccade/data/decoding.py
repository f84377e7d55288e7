"""From an image file to pixels: one function for photos, one for label maps, one for the size alone.

Photos come back as uint8 RGB in upright orientation whatever the file holds: grey, palette, alpha, CMYK, 16 bits, EXIF-rotated; JPEG, PNG, BMP, TIFF,
WebP, GIF (first frame) and whatever else Pillow reads. JPEG goes through torchvision.io, which is the faster one. PNG does not: torchvision 0.29's
PNG decoder ends the process with a segmentation fault on corrupt data (found by flipping bytes), and a data loader's worker must survive a broken
file. Every failure is a `DataError` that names the file. Alpha is dropped; float pixels are refused, for they have no agreed range.
"""
from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, read_file

from saccade.errors import DataError

# What pictures end with; readers use it to tell them from other files in a folder.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".gif"})

_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap width and height
# What Pillow raises on broken files; each was met with cut or altered files of some format.
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, OverflowError, Image.DecompressionBombError
)


def read_image(path: str | Path) -> Tensor:
    """The picture in `path` as uint8 RGB (3, H, W), turned upright by its EXIF orientation.

    Raises `DataError` where the file is missing, empty, cut short, or no picture.
    """
    _check_file(path)
    encoded = read_file(str(path))
    if encoded[:2].tolist() == [0xFF, 0xD8]:
        try:
            return decode_jpeg(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
        except RuntimeError:
            pass  # rare codings (arithmetic, lossless) are for Pillow; a broken file fails there again, with the better message
    try:
        with _open(path) as picture:
            return _to_rgb(picture, path)
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def read_label_map(path: str | Path, channel: int | None = None) -> Tensor:
    """The label map in `path` as stored: (H, W) uint8, or int64 where the file has 16 bits or more.

    Palette images give their indices, not their colours; grey ones of 1, 2 or 4 bits the stored numbers, not numbers stretched to 0..255. `channel`:
    which of several channels holds the numbers, in PNGs that have several (0 of SYNTHIA's, which have three of 16 bits).
    Raises `DataError` for broken files, and without `channel` for pictures of several channels.
    """
    _check_file(path)
    try:
        with _open(path) as picture:
            if picture.mode in ("RGB", "RGBA") and channel is not None and picture.format == "PNG":
                values = _colour_channel(picture, path, channel)
            elif picture.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
                raise DataError(f"{path} has pixels of mode {picture.mode}; a label map needs one number a pixel (palette or grey, 8 or 16 bits), "
                                "so convert the colours to class indices first")
            else:
                stretch = _grey_stretch(path) if picture.format == "PNG" and picture.mode == "L" else 1
                values = np.array(picture)
                values = values.astype(np.uint8) // stretch if values.dtype in (np.uint8, np.bool_) else values
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    return torch.from_numpy(values if values.dtype == np.uint8 else values.astype(np.int64))


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) that `read_image(path)` has, from the file's header alone (about 0.1 ms). Raises `DataError` like `read_image`."""
    _check_file(path)
    try:
        with _open(path) as picture:
            width, height = picture.size
            if isinstance(picture, TiffImageFile):  # whether `size` is upright before loading depends on Pillow's version; the tags do not
                width, height = int(picture.tag_v2[256]), int(picture.tag_v2[257])
            # `getexif` would decode a whole PNG in search of a late chunk and look into XMP, neither of which reading the pixels does.
            exif = Image.Exif()
            if picture.format in ("JPEG", "PNG"):
                exif.load(picture.info.get("exif", b""))
            else:
                exif = picture.getexif()
            return (width, height) if exif.get(_ORIENTATION) in _TURNED else (height, width)
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def _check_file(path: str | Path) -> None:
    """Refuses what is no ordinary file (opening a named pipe would wait for ever) or is empty."""
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "is not a regular file" if file.exists() else "does not exist"
        raise DataError(f"the image {path} {what}; check the data set's root and whether the download or copy was complete")
    if file.stat().st_size == 0:
        raise DataError(f"the image {path} is empty (0 bytes); fetch it again or take it out of the data set")


def _open(path: str | Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large pictures are legal; twice that size still is an error
        return Image.open(path)


def _to_rgb(picture: Image.Image, path: str | Path) -> Tensor:
    if picture.mode == "F":
        raise DataError(f"{path} has float pixels, whose range is not agreed on; convert it to 8 or 16 bits first")
    if picture.mode.startswith("I"):
        picture = _sixteen_to_eight(picture, path)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # by way of RGBA, else Pillow warns about transparency in bytes
    if picture.format in ("JPEG", "PNG") or picture.getexif().get(_ORIENTATION):
        picture = ImageOps.exif_transpose(picture)
    pixels = np.array(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _sixteen_to_eight(picture: Image.Image, path: str | Path) -> Image.Image:
    """The high byte of 16-bit pixels, as PNG's own rule for dropping precision has it; Pillow's conversion would cut values off at 255."""
    values = np.array(picture).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise DataError(f"{path} has pixels from {values.min()} to {values.max()}, more than 16 bits; convert it to 8 or 16 bits first")
    eight = Image.fromarray((values >> 8).astype(np.uint8))
    if orientation := picture.getexif().get(_ORIENTATION):
        eight.getexif()[_ORIENTATION] = orientation
    return eight


def _colour_channel(picture: Image.Image, path: str | Path, channel: int) -> np.ndarray:
    """Channel `channel` of a colour PNG (H, W): uint8, or int64 where it has 16 bits. Of these Pillow keeps the high byte, unless it is made to take
    the pixels for little-endian ones: then the low byte."""
    high = np.array(picture)[..., channel]
    with open(path, "rb") as file:
        header = file.read(26)
    if header[24] != 16:
        return high
    with _open(path) as again:
        again.tile = [(codec, box, offset, f"{again.mode};16L") for codec, box, offset, _ in again.tile]  # type: ignore[misc, list-item, attr-defined]
        low = np.array(again)[..., channel]
    return high.astype(np.int64) * 256 + low


def _grey_stretch(path: str | Path) -> int:
    """What Pillow multiplies a grey PNG's numbers by: 85 for 2 bits, 17 for 4 bits, else 1."""
    with open(path, "rb") as file:
        header = file.read(26)
    return {2: 85, 4: 17}.get(header[24], 1) if header[25] == 0 else 1


def _unreadable(path: str | Path, error: BaseException) -> DataError:
    if isinstance(error, UnidentifiedImageError):
        with open(path, "rb") as file:
            start = file.read(16)
        return DataError(f"{path} is no picture that can be read (it starts with {start!r}); fetch it again or take it out of the data set")
    reason = str(error) or type(error).__name__
    return DataError(f"the image {path} is broken: {reason.rstrip('.')}; fetch it again or take it out of the data set")
