"""The colours of classes, tracks and curves: fixed, so that a class has one colour in every picture, and chosen for colour-blind readers.

The first eight are Okabe and Ito's ("Color Universal Design", 2008) without black; further ones repeat them lighter and darker. Classes of a known
set of label maps (Cityscapes', CamVid's) have the set's own colours there, as everyone draws them.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from saccade.data.class_sets import CLASS_SETS

Colour = tuple[int, int, int]

_HUES: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (213, 94, 0), (204, 121, 167), (240, 228, 66), (0, 114, 178), (148, 103, 189),
)
_SHADES = (0.0, 0.45, -0.4)  # towards white, towards black
VOID: Colour = (128, 128, 128)  # pixels without a label
_HEAT = ("000004", "210c4a", "57106e", "8a226a", "bc3754", "e45a31", "f98e09", "f9cb35", "fcffa4")


def _shaded(colour: Colour, amount: float) -> Colour:
    goal = 255 if amount > 0 else 0
    red, green, blue = (round(c + (goal - c) * abs(amount)) for c in colour)
    return red, green, blue


PALETTE: tuple[Colour, ...] = tuple(_shaded(hue, amount) for amount in _SHADES for hue in _HUES)


def colour_of(index: int) -> Colour:
    """The (red, green, blue) 0..255 of class or track number `index` (any integer; the palette repeats)."""
    return PALETTE[index % len(PALETTE)]


def heat_colours(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(..., 3) uint8 for `values` in 0..1: black over red to pale yellow, steadily lighter (matplotlib's inferno), so that it can be read in grey."""
    places = np.linspace(0, 1, len(_HEAT))
    anchors = np.array([[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code in _HEAT], dtype=np.float64)
    return np.stack([np.interp(values, places, anchors[:, i]) for i in range(3)], -1).round().astype(np.uint8)


def text_colour_on(background: Colour) -> Colour:
    """Black or white, whichever is easier to read on `background` (relative luminance of WCAG 2)."""
    linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def class_colours(classes: Sequence[str], own: Sequence[Colour] | None = None) -> tuple[Colour, ...]:
    """The colours of `classes` in label maps: a data set's `own`, else those of the known class set of these names, else the palette's."""
    known = next((known.colours for known in CLASS_SETS.values() if known.classes == tuple(classes)), None)
    return tuple(own or known or (colour_of(index) for index in range(len(classes))))


def colour_table(num_classes: int, colours: Sequence[Colour] = ()) -> npt.NDArray[np.uint8]:
    """(256 or more, 3) uint8: the colour of each label of a map with `num_classes` classes, `colours` first; labels beyond are `VOID`."""
    table = np.full((max(256, num_classes), 3), VOID, dtype=np.uint8)
    for index in range(num_classes):
        table[index] = colours[index] if index < len(colours) else colour_of(index)
    return table


def hexadecimal(colour: Colour) -> str:
    """`#rrggbb`, for HTML and SVG."""
    return "#" + "".join(f"{c:02x}" for c in colour)
