"""From layers to pixels: each layer is cut out on its own small tile of part numbers, then pasted from the back to the front.

The picture is painted at a multiple of its size and averaged, so that edges are smooth; the map of layers is read at the centre of each pixel,
so that labels stay crisp. Colours come from tables by part number, which is where the domains act.
"""
from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saccade.data.town.scene import Layer

_FIRST_PART = 128  # part numbers are the upper half of a byte, so that Pillow's threshold at 128 tells inside from outside
_SHADOW_ASIDE, _SHADOW_DOWN = 0.42, 0.26  # where the shadow of a point 1 above the ground falls, right of and below its foot


@dataclass(frozen=True)
class Tile:
    """A layer cut out: `parts` (mode "L", 0 = nothing, else 128 + outline), its corner (left, top) and its ground line, in painted pixels."""

    layer: Layer
    parts: Image.Image
    left: int
    top: int
    ground: float

    @functools.cached_property
    def silhouette(self) -> Image.Image:
        """Mode "1": where the layer is."""
        return self.parts.convert("1", dither=Image.Dither.NONE)

    def coloured(self, palette: NDArray[np.uint8]) -> Image.Image:
        """RGB: the parts in the colours of `palette` (parts, 3)."""
        picture = self.parts.copy()
        picture.putpalette(bytes(3 * _FIRST_PART) + palette.tobytes())
        return picture.convert("RGB")


def cut_out(layer: Layer, size: tuple[int, int], factor: int) -> Tile | None:
    """The tile of `layer` in a picture of `size` (height, width) painted at `factor` times that; None where it lies outside the picture."""
    return _cut_fixed(layer, size, factor) if layer.fixed else _cut(layer, size, factor)


def _cut(layer: Layer, size: tuple[int, int], factor: int) -> Tile | None:
    height, width = size[0] * factor, size[1] * factor
    unit = layer.scale * height  # painted pixels a metre
    ground = layer.y * height
    points = layer.figure.points * (unit, -unit) + (layer.x * height, ground)
    (left, top), (right, bottom) = points.min(0), points.max(0)
    if right < 0 or bottom < 0 or left >= width or top >= height:
        return None
    # Corners on whole pixels of the final picture, so that every tile is read at the same place within a pixel.
    x0, y0 = int(left // factor) * factor, int(top // factor) * factor
    x1, y1 = (int(right // factor) + 1) * factor, (int(bottom // factor) + 1) * factor
    parts = Image.new("L", (x1 - x0, y1 - y0))
    draw = ImageDraw.Draw(parts)
    flat = (points - (x0, y0)).ravel().tolist()
    start = 0
    for number, length in enumerate(layer.figure.lengths, _FIRST_PART):
        draw.polygon(flat[start : start + 2 * length], fill=number)
        start += 2 * length
    return Tile(layer, parts, x0, y0, ground)


_cut_fixed = functools.lru_cache(maxsize=256)(_cut)


@dataclass(frozen=True)
class Arrangement:
    """Which layer is seen where.

    `tiles` are those in the picture, from the back to the front; `layer_map` (H, W) uint8 is 0 for the street, else 1 + index of the tile;
    `visible` and `full` (n,) count the pixels of each tile that are seen, and that there would be with nothing before it and no border.
    """

    tiles: tuple[Tile, ...]
    layer_map: NDArray[np.uint8]
    visible: NDArray[np.int64]
    full: NDArray[np.int64]


def arrange(layers: Sequence[Layer], size: tuple[int, int], factor: int) -> Arrangement:
    """Cut out and stack `layers`, given from the back to the front, in a picture of `size` (height, width)."""
    tiles = tuple(tile for layer in layers if (tile := cut_out(layer, size, factor)) is not None)[:255]
    canvas = Image.new("L", (size[1], size[0]))
    full = np.zeros(len(tiles), dtype=np.int64)
    for index, tile in enumerate(tiles):
        small = (tile.parts.width // factor, tile.parts.height // factor)
        mask = tile.silhouette.resize(small, Image.Resampling.NEAREST)
        full[index] = mask.histogram()[255]
        canvas.paste(index + 1, (tile.left // factor, tile.top // factor), mask)
    layer_map = np.asarray(canvas)
    visible = np.bincount(layer_map.reshape(-1), minlength=len(tiles) + 1)[1:]
    return Arrangement(tiles, layer_map, visible, full)


def paint(image: Image.Image, tiles: Sequence[Tile], palettes: Sequence[NDArray[np.uint8]]) -> None:
    """Paste `tiles` into the RGB `image` of painted size, each in the colours of its palette (parts, 3)."""
    for tile, palette in zip(tiles, palettes, strict=True):
        image.paste(tile.coloured(palette), (tile.left, tile.top), tile.silhouette)


def cast_shadows(image: Image.Image, shaded: Image.Image, tiles: Sequence[Tile]) -> None:
    """Put the shadows of `tiles` on the ground of `image`: there it becomes `shaded`, the same picture in shadow."""
    for tile in tiles:
        foot = round(tile.ground) - tile.top  # the row of the ground line within the tile
        if foot <= 0:
            continue
        width, height = tile.parts.width + int(_SHADOW_ASIDE * foot), max(1, int(_SHADOW_DOWN * foot))
        lean = -_SHADOW_ASIDE / _SHADOW_DOWN
        shadow = tile.silhouette.transform((width, height), Image.Transform.AFFINE, (1, lean, 0, 0, -1 / _SHADOW_DOWN, foot))
        _paste_at(image, shaded, shadow, (tile.left, round(tile.ground)))


def mirror_below(image: Image.Image, tiles: Sequence[Tile], palettes: Sequence[NDArray[np.uint8]], strength: float) -> None:
    """Put faint reflections of `tiles` on wet ground: each upside down below its ground line."""
    for tile, palette in zip(tiles, palettes, strict=True):
        foot = min(round(tile.ground) - tile.top, tile.parts.height)
        if foot <= 0:
            continue
        part, flip = (0, 0, tile.parts.width, foot), Image.Transpose.FLIP_TOP_BOTTOM
        mask = Image.new("L", (tile.parts.width, foot))
        mask.paste(round(255 * strength), mask=tile.silhouette.crop(part).transpose(flip))
        image.paste(tile.coloured(palette).crop(part).transpose(flip), (tile.left, round(tile.ground)), mask)


def _paste_at(image: Image.Image, source: Image.Image, mask: Image.Image, corner: tuple[int, int]) -> None:
    left, top = max(0, corner[0]), max(0, corner[1])
    right, bottom = min(image.width, corner[0] + mask.width), min(image.height, corner[1] + mask.height)
    if right <= left or bottom <= top:
        return
    part = mask.crop((left - corner[0], top - corner[1], right - corner[0], bottom - corner[1]))
    image.paste(source.crop((left, top, right, bottom)), (left, top), part)
