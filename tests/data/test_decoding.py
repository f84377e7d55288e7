"""Whatever coding a photo has it becomes uint8 RGB, upright; label maps keep their numbers; the size from the header is that of the pixels."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data.decoding import image_size, read_image, read_label_map
from saccade.errors import DataError

HEIGHT, WIDTH = 24, 40


@pytest.fixture
def pixels() -> np.ndarray:
    """A smooth colour picture, so that lossy coding changes little."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 6, y * 10, 255 - x * 3 - y * 4], -1).astype(np.uint8)


def turned() -> Image.Exif:
    """EXIF that says: turn by 90 degrees clockwise to see it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


CODINGS: dict[str, Callable[[Image.Image, Path], None]] = {
    "rgb.png": lambda p, f: p.save(f),
    "rgb.bmp": lambda p, f: p.save(f),
    "rgb.tiff": lambda p, f: p.save(f),
    "lossless.webp": lambda p, f: p.save(f, lossless=True),
    "alpha.png": lambda p, f: p.convert("RGBA").save(f),
    "named_wrongly.jpg": lambda p, f: p.save(f, "PNG"),
    "sixteen_bits.png": lambda p, f: _ignore(cv2.imwrite(str(f), np.asarray(p)[..., ::-1].astype(np.uint16) * 257)),
    "sixteen_bits.tiff": lambda p, f: _ignore(cv2.imwrite(str(f), np.asarray(p)[..., ::-1].astype(np.uint16) * 257)),
}


def _ignore(_: object) -> None:
    """For calls whose result says nothing."""


@pytest.mark.parametrize("name", CODINGS)
def test_lossless_codings_give_exactly_the_pixels(tmp_path: Path, pixels: np.ndarray, name: str) -> None:
    CODINGS[name](Image.fromarray(pixels), tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == torch.uint8 and image.is_contiguous()
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)
    assert image_size(tmp_path / name) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_grey_of_sixteen_bits_keeps_its_high_byte(tmp_path: Path, suffix: str) -> None:
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 67
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}").numpy(), np.repeat(grey[None] >> 8, 3, 0))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_every_colour_mode_become_rgb(tmp_path: Path, pixels: np.ndarray, mode: str) -> None:
    source = Image.fromarray(pixels).convert(mode)
    source.save(tmp_path / "a.jpg", quality=100, subsampling=0)
    expected = np.asarray(source.convert("RGB")).astype(int)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (3, HEIGHT, WIDTH)
    assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() <= 12


def test_palette_photos_show_their_colours_and_label_maps_their_indices(tmp_path: Path) -> None:
    indices = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 3
    picture = Image.fromarray(indices)
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for extra in ({}, {"transparency": b"\x00\xff\xff"}):
        picture.save(tmp_path / "a.png", **extra)
        assert read_image(tmp_path / "a.png")[:, 0, :3].T.tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
        labels = read_label_map(tmp_path / "a.png")
        assert labels.dtype == torch.uint8 and np.array_equal(labels.numpy(), indices)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
def test_exif_rotation_is_applied_to_pixels_and_size(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=turned(), **options)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == (3, WIDTH, HEIGHT) and image_size(tmp_path / f"a.{suffix}") == (WIDTH, HEIGHT)
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - np.rot90(pixels, -1)).max() <= 12


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_label_maps_of_few_bits_are_not_stretched(tmp_path: Path, bits: int) -> None:
    values = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 2**bits).astype(np.uint8)
    _write_grey_png(tmp_path / "a.png", values, bits)
    assert np.array_equal(read_label_map(tmp_path / "a.png").numpy(), values)


def _write_grey_png(path: Path, values: np.ndarray, bits: int) -> None:
    """A grey PNG of `bits` a pixel, put together by hand, for Pillow writes 8 or 16 alone."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    planes = np.unpackbits(values[..., None], axis=-1)[..., 8 - bits:]
    rows = b"".join(b"\0" + np.packbits(row.reshape(-1)).tobytes() for row in planes)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def test_label_maps_keep_sixteen_bits(tmp_path: Path) -> None:
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 60
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(read_label_map(tmp_path / "a.png").numpy(), values)


def test_a_coloured_label_map_is_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png.*mode RGB"):
        read_label_map(tmp_path / "a.png")


@pytest.mark.parametrize("channels", [3, 4])
def test_a_channel_of_a_coloured_label_map_keeps_its_sixteen_bits(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, channels)).astype(np.uint16)
    values[:12, :, 0] //= 3000  # classes, as SYNTHIA has them, and numbers that use both bytes
    blue_first = values[..., [2, 1, 0, 3][:channels]] if channels == 4 else values[..., ::-1]
    cv2.imwrite(str(tmp_path / "a.png"), blue_first)
    for channel in range(3):
        found = read_label_map(tmp_path / "a.png", channel)
        assert found.dtype == torch.int64 and np.array_equal(found.numpy(), values[..., channel])
    with pytest.raises(DataError, match=r"a\.png.*mode RGB"):
        read_label_map(tmp_path / "a.png")


def test_a_channel_of_eight_bits_and_files_with_one_channel_are_read_alike(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[..., 1]).save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert np.array_equal(read_label_map(tmp_path / name, 1).numpy(), pixels[..., 1])
    cv2.imwrite(str(tmp_path / "a.tiff"), pixels.astype(np.uint16))
    with pytest.raises(DataError, match=r"a\.tiff.*mode RGB"):
        read_label_map(tmp_path / "a.tiff", 0)


def test_a_damaged_coloured_label_map_is_an_error_or_a_map(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 23, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    content, refused = (tmp_path / "a.png").read_bytes(), 0
    for place in range(0, len(content), 7):
        (tmp_path / "b.png").write_bytes(content[:place] + bytes([content[place] ^ 0xA5]) + content[place + 1 :])
        try:
            assert read_label_map(tmp_path / "b.png", 0).ndim == 2
        except DataError:
            refused += 1
    assert refused > len(content) // 7 * 0.8
    (tmp_path / "b.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"b\.png is broken"):
        read_label_map(tmp_path / "b.png", 0)


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="float"):
        read_image(tmp_path / "a.tiff")


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        Image.new("RGB", (1, 1), (9, 9, 9)).save(tmp_path / f"a.{suffix}")
        assert read_image(tmp_path / f"a.{suffix}").shape == (3, 1, 1)
