"""The street itself: sky, houses, sidewalks, road; its proportions and its picture, painted as an image of material numbers.

Lengths are in picture heights ("units"), y grows downwards. A material number says colour, semantic class, distance and glow, so that a domain is
a change of the table, not of the picture.
"""
from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saccade.data.town.people import HEIGHT
from saccade.data.town.shapes import Colour, darker
from saccade.data.town.vocabulary import BUILDING, ROAD, SIDEWALK, SKY, VEGETATION

_FACADES: tuple[Colour, ...] = (
    (214, 140, 110), (232, 206, 160), (178, 196, 172), (160, 182, 204), (226, 178, 96), (196, 120, 112), (210, 196, 188), (150, 160, 176),
    (236, 200, 190),
)  # fmt: skip
_ROOFS: tuple[Colour, ...] = ((150, 76, 62), (96, 92, 100), (120, 84, 70), (84, 104, 116))
_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((104, 172, 228), (206, 232, 244)), ((120, 180, 226), (246, 226, 200)), ((84, 150, 214), (190, 222, 240)), ((140, 190, 222), (226, 236, 236)),
)  # fmt: skip
_PAVEMENTS: tuple[Colour, ...] = ((206, 200, 190), (196, 192, 196), (214, 198, 172))
_AWNINGS: tuple[Colour, ...] = ((206, 66, 60), (44, 126, 110), (56, 94, 160), (232, 160, 50))


@dataclass(frozen=True)
class Street:
    """Proportions of one street: y of the foot of the houses and of both kerbs, `width` of the picture, `zoom` of all that stands on the ground."""

    base: float
    far_kerb: float
    near_kerb: float
    width: float
    zoom: float
    grass: bool

    def scale(self, y: float) -> float:
        """Units a metre at the ground line `y`: things nearer to the viewer are larger."""
        return self.zoom * (0.22 + 0.42 * (y - 0.5)) / HEIGHT

    def distance(self, y: float) -> float:
        """How far off the ground at `y` is: 0 at the lower edge of the picture, 1 at the foot of the houses."""
        return (1.0 - y) / (1.0 - self.base)


def random_street(rng: random.Random, width: float) -> Street:
    """Some street for a picture `width` units wide."""
    base = rng.uniform(0.42, 0.47)
    far_kerb = base + rng.uniform(0.075, 0.095)
    return Street(base, far_kerb, far_kerb + rng.uniform(0.265, 0.295), width, rng.uniform(0.95, 1.1), rng.random() < 0.4)


@dataclass(frozen=True)
class Backdrop:
    """The painted street: `materials` (mode "L", the supersampled size), and by material `colours` (m, 3), `semantics`, `distances`, `glow` (m,)."""

    materials: Image.Image
    colours: NDArray[np.float64]
    semantics: NDArray[np.uint8]
    distances: NDArray[np.float64]
    glow: NDArray[np.float64]


class _Board:
    """Paints shapes given in units and remembers the material of each."""

    def __init__(self, size: tuple[int, int]) -> None:
        height, width = size
        self.unit, self.width = float(height), width / height
        self.image = Image.new("L", (width, height))
        self._draw = ImageDraw.Draw(self.image)
        self._numbers: dict[tuple[Colour, int, float, float], int] = {}

    def _material(self, colour: Colour, semantic: int, distance: float, glow: float) -> int:
        return self._numbers.setdefault((colour, semantic, distance, glow), len(self._numbers))

    def box(self, x1: float, y1: float, x2: float, y2: float, colour: Colour, semantic: int, distance: float, glow: float = 0.0) -> None:
        corners = tuple(round(v * self.unit) for v in (x1, y1, x2, y2))
        if corners[2] > corners[0] and corners[3] > corners[1]:
            self._draw.rectangle((*corners[:2], corners[2] - 1, corners[3] - 1), fill=self._material(colour, semantic, distance, glow))

    def polygon(self, corners: list[float], colour: Colour, semantic: int, distance: float) -> None:
        self._draw.polygon([v * self.unit for v in corners], fill=self._material(colour, semantic, distance, 0.0))

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, semantic: int, distance: float, glow: float = 0.0) -> None:
        corners = [v * self.unit for v in (x - rx, y - ry, x + rx, y + ry)]
        self._draw.ellipse(corners, fill=self._material(colour, semantic, distance, glow))

    def finish(self) -> Backdrop:
        colours, semantics, distances, glow = zip(*self._numbers, strict=True)
        table = np.array(colours, dtype=np.float64)
        return Backdrop(self.image, table, np.array(semantics, dtype=np.uint8), np.array(distances), np.array(glow, dtype=np.float64))


def _between(first: Colour, second: Colour, weight: float) -> Colour:
    r, g, b = (a + (z - a) * weight for a, z in zip(first, second, strict=True))
    return r, g, b


def paint_street(street: Street, size: tuple[int, int], key: str) -> Backdrop:
    """The picture of `street` at `size` (height, width) in painted, that is supersampled pixels; details come from `key`."""
    rng = random.Random(key)
    board = _Board(size)
    _paint_sky(board, street, rng)
    _paint_skyline(board, street, rng)
    _paint_houses(board, street, rng)
    _paint_ground(board, street, rng)
    return board.finish()


def _paint_sky(board: _Board, street: Street, rng: random.Random) -> None:
    top, low = rng.choice(_SKIES)
    bands = 20
    for k in range(bands):
        board.box(0, street.base * k / bands, street.width, street.base * (k + 1) / bands + 0.01, _between(top, low, k / (bands - 1)), SKY, 2.4)
    if rng.random() < 0.5:
        board.ellipse(rng.uniform(0.1, street.width - 0.1), rng.uniform(0.06, 0.16), 0.045, 0.045, (255, 244, 196), SKY, 2.4, 0.45)
    for _ in range(rng.randint(1, 3)):
        x, y, size = rng.uniform(0, street.width), rng.uniform(0.04, 0.2), rng.uniform(0.03, 0.055)
        for dx, dy, r in ((-1.4, 0.2, 0.7), (0, 0, 1), (1.2, 0.15, 0.8), (2.1, 0.35, 0.5)):
            board.ellipse(x + dx * size, y + dy * size, r * size * 1.25, r * size * 0.75, (250, 252, 254), SKY, 2.3)


def _paint_skyline(board: _Board, street: Street, rng: random.Random) -> None:
    x = rng.uniform(-0.1, 0.0)
    while x < street.width:
        width, height = rng.uniform(0.07, 0.16), rng.uniform(0.14, 0.33)
        board.box(x, street.base - height, x + width, street.base, rng.choice(((168, 188, 206), (180, 198, 212))), BUILDING, 1.7)
        x += width * rng.uniform(0.8, 1.3)


def _paint_houses(board: _Board, street: Street, rng: random.Random) -> None:
    x = rng.uniform(-0.15, 0.0)
    facade = None
    while x < street.width:
        width = rng.uniform(0.2, 0.36)
        facade = rng.choice([f for f in _FACADES if f != facade])
        if rng.random() < 0.13:  # a gap with greenery
            for k in range(3):
                green = darker((92, 150, 84), 0.85 + 0.12 * k)
                board.ellipse(x + width * (0.2 + 0.3 * k), street.base - 0.05, 0.1, 0.1 + 0.02 * k, green, VEGETATION, 1.1)
        else:
            _paint_house(board, street, rng, (x, width, rng.uniform(0.2, 0.36)), facade)
        x += width
    board.box(0, street.base - 0.012, street.width, street.base + 0.01, (150, 142, 136), BUILDING, 1.02)


def _paint_house(board: _Board, street: Street, rng: random.Random, place: tuple[float, float, float], facade: Colour) -> None:
    x, width, height = place
    top, roof = street.base - height, rng.choice(_ROOFS)
    board.box(x, top, x + width, street.base, facade, BUILDING, 1.05)
    board.box(x + width * 0.93, top, x + width, street.base, darker(facade, 0.88), BUILDING, 1.05)
    if rng.random() < 0.45:
        board.polygon([x - 0.012, top, x + width / 2, top - rng.uniform(0.06, 0.1), x + width + 0.012, top], roof, BUILDING, 1.05)
    else:
        board.box(x - 0.006, top - 0.014, x + width + 0.006, top + 0.008, darker(roof, 1.1), BUILDING, 1.05)
    shop = rng.random() < 0.5
    floors, columns = max(1, int((height - 0.1) / 0.085)), max(2, int(width / 0.085))
    gap, glass = width / columns, rng.choice(((96, 128, 150), (112, 140, 156), (86, 110, 134)))
    for floor in range(floors):
        y = top + 0.03 + floor * 0.085
        for column in range(columns):
            left = x + gap * (column + 0.24)
            glow = 1.0 if rng.random() < 0.35 else 0.0
            board.box(left - 0.005, y - 0.005, left + gap * 0.52 + 0.005, y + 0.05, darker(facade, 1.16), BUILDING, 1.05)
            board.box(left, y, left + gap * 0.52, y + 0.044, glass, BUILDING, 1.05, glow)
            board.box(left, y + 0.02, left + gap * 0.52, y + 0.024, darker(facade, 1.16), BUILDING, 1.05)
    if shop:
        cloth = rng.choice(_AWNINGS)
        board.box(x + width * 0.08, street.base - 0.075, x + width * 0.92, street.base - 0.005, glass, BUILDING, 1.05, 0.5)
        stripes = 8
        for k in range(stripes):
            left = x + width * (0.05 + 0.9 * k / stripes)
            board.box(left, street.base - 0.1, left + 0.9 * width / stripes, street.base - 0.07, cloth if k % 2 else (246, 244, 238), BUILDING, 1.03)
    door = x + width * rng.uniform(0.2, 0.7)
    board.box(door, street.base - 0.078, door + 0.04, street.base, darker(roof, 0.9), BUILDING, 1.05)
    board.box(door + 0.006, street.base - 0.07, door + 0.034, street.base - 0.045, glass, BUILDING, 1.05, 0.6)


def _paint_ground(board: _Board, street: Street, rng: random.Random) -> None:
    pavement, width = rng.choice(_PAVEMENTS), street.width
    board.box(0, street.base, width, street.far_kerb, pavement, SIDEWALK, 1.0)
    for k in range(int(width / 0.12) + 2):
        board.polygon(_slanted(k * 0.12, street.base, street.far_kerb, width, 0.004), darker(pavement, 0.9), SIDEWALK, 1.0)
    board.box(0, street.far_kerb - 0.012, width, street.far_kerb, darker(pavement, 1.12), SIDEWALK, 0.95)
    bands, asphalt = 8, rng.choice(((92, 94, 102), (104, 102, 104), (84, 88, 96)))
    step = (street.near_kerb - street.far_kerb) / bands
    for k in range(bands):
        y = street.far_kerb + k * step
        board.box(0, y, width, y + step + 0.005, darker(asphalt, 1.12 - 0.02 * k), ROAD, street.distance(y + step / 2))
    middle = (street.far_kerb + street.near_kerb) / 2 - 0.01
    start, dash = rng.uniform(-0.2, 0.0), 0.14
    while start < width:
        corners = [start, middle, start + dash, middle, start + dash - 0.012, middle + 0.014, start - 0.014, middle + 0.014]
        board.polygon(corners, (238, 234, 220), ROAD, 0.6)
        start += 2 * dash
    if rng.random() < 0.45:
        _paint_crossing(board, street, rng.uniform(0.1, max(0.2, width - 0.4)))
    if rng.random() < 0.5:
        board.ellipse(rng.uniform(0, width), middle + 0.07, 0.035, 0.011, darker(asphalt, 0.72), ROAD, 0.5)
    near = (124, 172, 92) if street.grass else pavement
    semantic = VEGETATION if street.grass else SIDEWALK
    board.box(0, street.near_kerb, width, 1.0, near, semantic, 0.2)
    if street.grass:
        for _ in range(int(26 * width)):
            x, y = rng.uniform(0, width), rng.uniform(street.near_kerb + 0.05, 1.0)
            board.polygon([x, y, x + 0.006, y - 0.022, x + 0.012, y], darker(near, rng.choice((0.86, 1.12))), VEGETATION, 0.2)
    else:
        for k in range(int(width / 0.16) + 2):
            board.polygon(_slanted(k * 0.16, street.near_kerb, 1.0, width, 0.006), darker(pavement, 0.9), SIDEWALK, 0.2)
        board.box(0, street.near_kerb + 0.09, width, street.near_kerb + 0.096, darker(pavement, 0.9), SIDEWALK, 0.2)
    board.box(0, street.near_kerb, width, street.near_kerb + 0.014, darker(pavement, 1.12), SIDEWALK, 0.3)
    board.box(0, street.near_kerb + 0.014, width, street.near_kerb + 0.026, darker(pavement, 0.78), SIDEWALK, 0.3)


def _slanted(x: float, y1: float, y2: float, width: float, thick: float) -> list[float]:
    """A joint of the pavement that runs towards the middle of the picture's top."""
    shift = (x - width / 2) * 0.35 * (y2 - y1)
    return [x, y1, x + thick, y1, x + thick + shift, y2, x + shift, y2]


def _paint_crossing(board: _Board, street: Street, x: float) -> None:
    stripes = 6
    step = (street.near_kerb - street.far_kerb - 0.02) / stripes
    for k in range(stripes):
        y = street.far_kerb + 0.015 + k * step
        grow = 0.02 * k
        corners = [x - grow, y, x + 0.16 + grow, y, x + 0.165 + grow, y + step * 0.5, x - 0.005 - grow, y + step * 0.5]
        board.polygon(corners, (232, 230, 222), ROAD, 0.6)
