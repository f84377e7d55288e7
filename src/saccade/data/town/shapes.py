"""Outlines and figures: the flat shapes that everything in the town is cut from.

Coordinates are metres in the plane of the picture, x to the right and y up, with the origin where the figure touches the ground. Outlines are shared
between figures (many come from a cache), so they are never changed in place.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2)
Colour = tuple[float, float, float]  # RGB in 0..255

_HALF_TURN = np.linspace(-math.pi / 2, math.pi / 2, 7)


@dataclass(frozen=True)
class Figure:
    """Outlines to be painted one after the other.

    `points` (P, 2) holds the corners of all outlines, `lengths` how many each one has. One row an outline: `colours` (n, 3) in 0..255 and `glow` (n,)
    in 0..1, how much of the colour shines by itself at night.
    """

    points: Points
    lengths: tuple[int, ...]
    colours: NDArray[np.float64]
    glow: NDArray[np.float64]

    def mirrored(self) -> Figure:
        """The same, facing the other way."""
        return Figure(self.points * (-1.0, 1.0), self.lengths, self.colours, self.glow)


class Drawing:
    """Collects outlines and makes a `Figure` of them."""

    def __init__(self) -> None:
        self._outlines: list[Points] = []
        self._colours: list[Colour] = []
        self._glow: list[float] = []

    def add(self, outline: Points, colour: Colour, glow: float = 0.0) -> None:
        """Paint `outline` (n, 2) over what is there."""
        self._outlines.append(outline)
        self._colours.append(colour)
        self._glow.append(glow)

    def figure(self) -> Figure:
        """What has been added, in that order."""
        lengths = tuple(len(o) for o in self._outlines)
        return Figure(np.concatenate(self._outlines), lengths, np.array(self._colours, dtype=np.float64), np.array(self._glow))


def polygon(*corners: Sequence[float]) -> Points:
    """The outline through `corners`, each (x, y)."""
    return np.array(corners, dtype=np.float64)


def box(x1: float, y1: float, x2: float, y2: float) -> Points:
    """A rectangle."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)


def ellipse(x: float, y: float, rx: float, ry: float | None = None, corners: int = 16) -> Points:
    """An ellipse around (x, y); a circle where `ry` is not given."""
    return _circle(corners) * (rx, rx if ry is None else ry) + (x, y)


@functools.cache
def _circle(corners: int) -> Points:
    angles = np.arange(corners) * (2 * math.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


@functools.lru_cache(maxsize=4096)
def rounded_box(x1: float, y1: float, x2: float, y2: float, radius: float) -> Points:
    """A rectangle with round corners."""
    quarter = np.linspace(0, math.pi / 2, 4)
    corners = [(x2 - radius, y2 - radius, 0), (x1 + radius, y2 - radius, 1), (x1 + radius, y1 + radius, 2), (x2 - radius, y1 + radius, 3)]
    arcs = [np.stack([x + radius * np.cos(quarter + k * math.pi / 2), y + radius * np.sin(quarter + k * math.pi / 2)], 1) for x, y, k in corners]
    return np.concatenate(arcs)


@functools.lru_cache(maxsize=4096)
def ring(x: float, y: float, outer: float, inner: float, corners: int = 18) -> Points:
    """A ring with a real hole: out along one circle and back along the other."""
    outside, inside = ellipse(x, y, outer, corners=corners), ellipse(x, y, inner, corners=corners)
    return np.concatenate([outside, outside[:1], inside[:1], inside[::-1]])


def capsules(starts: Points, ends: Points, start_radii: NDArray[np.float64], end_radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tapered sticks with round ends, all at once: (n, 14, 2) from `starts` and `ends` (n, 2) and the radii (n,) there."""
    angle = np.arctan2(ends[:, 1] - starts[:, 1], ends[:, 0] - starts[:, 0])[:, None] + _HALF_TURN  # (n, 7)
    cos, sin = np.cos(angle), np.sin(angle)
    outlines = np.empty((len(starts), 2 * len(_HALF_TURN), 2))
    half = len(_HALF_TURN)
    outlines[:, :half, 0] = ends[:, :1] + end_radii[:, None] * cos
    outlines[:, :half, 1] = ends[:, 1:] + end_radii[:, None] * sin
    outlines[:, half:, 0] = starts[:, :1] - start_radii[:, None] * cos
    outlines[:, half:, 1] = starts[:, 1:] - start_radii[:, None] * sin
    return outlines


@functools.lru_cache(maxsize=4096)
def stick(x1: float, y1: float, x2: float, y2: float, radius: float, end_radius: float | None = None) -> Points:
    """One tapered stick with round ends."""
    ends = np.array([radius if end_radius is None else end_radius])
    return capsules(np.array([[x1, y1]]), np.array([[x2, y2]]), np.array([radius]), ends)[0]


@functools.lru_cache(maxsize=4096)
def darker(colour: Colour, factor: float) -> Colour:
    """`colour` times `factor`, kept within 0..255."""
    r, g, b = (min(255.0, c * factor) for c in colour)
    return r, g, b
