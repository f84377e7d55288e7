"""One frame of the town: geometry at a time, arranged, annotated, and seen in a domain. Pure functions, with a memory for what frames share."""
from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.data.town.domains import DOMAINS, Domain, Light, View
from saccade.data.town.raster import Arrangement, arrange, cast_shadows, mirror_below, paint
from saccade.data.town.scene import Layer, Scene
from saccade.data.town.street import Backdrop, Street, paint_street
from saccade.data.town.vocabulary import DomainName

Size = tuple[int, int]  # (height, width)


def supersampling(size: Size) -> int:
    """How many painted pixels a side stand behind one pixel: small pictures can afford, and need, more."""
    return 3 if size[0] * size[1] <= 10_000 else 2


@functools.lru_cache(maxsize=64)
def scene_of(key: str, width: float, density: float) -> Scene:
    """The scene of one video."""
    return Scene(key, width, density)


@functools.lru_cache(maxsize=32)
def backdrop_of(scene: Scene, size: Size) -> tuple[Backdrop, NDArray[np.uint8]]:
    """The painted street of a scene, and its semantic map (H, W)."""
    factor = supersampling(size)
    backdrop = paint_street(scene.street, (size[0] * factor, size[1] * factor), scene.key + "/street")
    small = backdrop.materials.resize((size[1], size[0]), Image.Resampling.NEAREST)
    return backdrop, backdrop.semantics[np.asarray(small)]


@functools.lru_cache(maxsize=32)
def _lit_street(scene: Scene, size: Size, domain: DomainName) -> tuple[Image.Image, Image.Image]:
    """The street in the colours of a domain, in the sun and in shadow, at painted size."""
    backdrop, _ = backdrop_of(scene, size)
    look = DOMAINS[domain]
    colours = look.table(backdrop.colours, backdrop.distances, backdrop.glow)
    shaded = (colours * (1 - look.shadow * np.array([1.0, 0.96, 0.86]))).astype(np.uint8)
    pictures = []
    for table in (colours, shaded):
        picture = backdrop.materials.copy()
        picture.putpalette(table.tobytes())
        pictures.append(picture.convert("RGB"))
    return pictures[0], pictures[1]


def _tables(look: Domain, layers: list[Layer], street: Street) -> list[NDArray[np.uint8]]:
    """The colours of the parts of each layer, as `look` shows them; one call for all, since the tables are tiny."""
    if not layers:
        return []
    lengths = [len(layer.figure.lengths) for layer in layers]
    distances = np.repeat([street.distance(layer.y) for layer in layers], lengths)
    colours, glow = (np.concatenate(parts) for parts in zip(*[(layer.figure.colours, layer.figure.glow) for layer in layers], strict=True))
    return np.split(look.table(colours, distances, glow), np.cumsum(lengths)[:-1])


@dataclass(frozen=True)
class Frame:
    """The geometry of one frame: its scene, size, layers as arranged, and the semantic map (H, W) of the street behind them."""

    scene: Scene
    size: Size
    arrangement: Arrangement
    street_map: NDArray[np.uint8]

    def picture(self, domain: DomainName, chance: str) -> NDArray[np.uint8]:
        """The frame (H, W, 3) as `domain` shows it; noise is drawn from `chance`."""
        look, street = DOMAINS[domain], self.scene.street
        tiles = self.arrangement.tiles
        tables = _tables(look, [t.layer for t in tiles], street)
        lit, shaded = _lit_street(self.scene, self.size, domain)
        image = lit.copy()
        if look.shadow:
            cast_shadows(image, shaded, tiles)
        if look.reflection:
            mirror_below(image, tiles, tables, look.reflection)
        paint(image, tiles, tables)
        rng = np.random.Generator(np.random.PCG64(zlib.crc32(chance.encode())))
        return look.picture(View(image, self.size, self._lights(), rng))

    def _lights(self) -> list[Light]:
        """The lamps that nothing hides."""
        (height, width), found = self.size, []
        for number, tile in enumerate(self.arrangement.tiles, 1):
            layer = tile.layer
            if layer.light is None:
                continue
            x, up, radius = (v * layer.scale * height for v in layer.light)
            x, y = layer.x * height + x, layer.y * height - up
            inside = 0 <= x < width and 0 <= y < height
            if not inside or self.arrangement.layer_map[int(y), int(x)] == number:
                found.append(Light(x, y, radius, layer.y * height))
        return found


def frame_of(scene: Scene, time: float, size: Size) -> Frame:
    """The frame of `scene` at `time` seconds."""
    return frame_with(scene, scene.layers(time), size)


def frame_with(scene: Scene, layers: list[Layer], size: Size) -> Frame:
    """A frame of the street of `scene` with `layers` on it, given from the back to the front."""
    return Frame(scene, size, arrange(layers, size, supersampling(size)), backdrop_of(scene, size)[1])
