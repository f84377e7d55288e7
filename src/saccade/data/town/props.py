"""What stands along the street and hides what is behind it: trees, bushes, lamp posts, benches, litter bins."""
from __future__ import annotations

import random

from saccade.data.town.shapes import Colour, Drawing, Figure, box, darker, ellipse, polygon, rounded_box, stick

_LEAVES: tuple[Colour, ...] = ((86, 146, 70), (66, 126, 76), (112, 160, 66), (58, 110, 66), (150, 160, 60), (206, 140, 60))
_BARK: Colour = (104, 78, 58)
LAMP_HEIGHT = 3.1  # metres


def tree(rng: random.Random) -> Figure:
    """A leafy tree of about 3 m."""
    leaves, height = rng.choice(_LEAVES), rng.uniform(0.85, 1.15)
    drawing = Drawing()
    drawing.add(polygon((-0.13, 0.0), (0.13, 0.0), (0.08, 1.5 * height), (-0.08, 1.5 * height)), _BARK)
    drawing.add(stick(0.0, 0.95 * height, 0.35, 1.5 * height, 0.05), _BARK)
    blobs = [(rng.uniform(-0.55, 0.55), rng.uniform(1.6, 2.6) * height, rng.uniform(0.42, 0.62)) for _ in range(5)]
    for shade, dx, dy, shrink in ((0.82, 0.06, -0.1, 1.0), (1.0, 0.0, 0.0, 0.94), (1.14, -0.12, 0.14, 0.55)):
        for x, y, radius in [(0.0, 2.1 * height, 0.75), *blobs]:
            drawing.add(ellipse(x + dx, y + dy, radius * shrink), darker(leaves, shade))
    return drawing.figure()


def fir(rng: random.Random) -> Figure:
    """A conifer of about 2.6 m."""
    leaves, height = rng.choice(_LEAVES[:4]), rng.uniform(0.9, 1.2)
    drawing = Drawing()
    drawing.add(box(-0.09, 0.0, 0.09, 0.5), _BARK)
    for k in range(4):
        low, half = (0.35 + 0.5 * k) * height, 0.78 - 0.16 * k
        drawing.add(polygon((-half, low), (half, low), (0.0, low + 0.95 * height)), darker(leaves, 0.78 + 0.07 * k))
        drawing.add(polygon((-half, low), (-0.1, low), (0.0, low + 0.95 * height)), darker(leaves, 0.9 + 0.07 * k))
    return drawing.figure()


def bush(rng: random.Random) -> Figure:
    """A round bush of about 0.6 m, sometimes in flower."""
    leaves = rng.choice(_LEAVES[:5])
    drawing = Drawing()
    blobs = [(-0.4, 0.26, 0.28), (0.38, 0.26, 0.28), (0.0, 0.36, 0.36), (-0.18, 0.24, 0.3)]
    for shade, lift, shrink in ((0.84, -0.03, 1.0), (1.05, 0.04, 0.82)):
        for x, y, radius in blobs:
            drawing.add(ellipse(x, y + lift, radius * shrink), darker(leaves, shade))
    if rng.random() < 0.5:
        flower = rng.choice(((240, 110, 130), (250, 220, 110), (240, 240, 250)))
        for _ in range(6):
            drawing.add(ellipse(rng.uniform(-0.5, 0.5), rng.uniform(0.15, 0.6), 0.055, corners=8), flower)
    return drawing.figure()


def lamp_post(_: random.Random) -> Figure:
    """A street lamp; its head is at `LAMP_HEIGHT`."""
    drawing = Drawing()
    iron = (70, 78, 88)
    drawing.add(rounded_box(-0.13, 0.0, 0.13, 0.3, 0.04), darker(iron, 0.85))
    drawing.add(stick(0.0, 0.2, 0.0, LAMP_HEIGHT - 0.2, 0.055, 0.04), iron)
    drawing.add(polygon((-0.22, LAMP_HEIGHT + 0.16), (0.22, LAMP_HEIGHT + 0.16), (0.0, LAMP_HEIGHT + 0.34)), darker(iron, 0.85))
    low, high = LAMP_HEIGHT - 0.2, LAMP_HEIGHT + 0.16
    drawing.add(polygon((-0.12, low), (0.12, low), (0.2, high), (-0.2, high)), (255, 238, 190), 1.0)
    return drawing.figure()


def bench(_: random.Random) -> Figure:
    """A bench, 1.5 m wide, with a seat at 0.45 m."""
    drawing = Drawing()
    wood, iron = (168, 112, 66), (64, 66, 72)
    for x in (-0.62, 0.62):
        drawing.add(stick(x, 0.04, x, 0.95, 0.045), iron)
    for y in (0.62, 0.8, 0.98):
        drawing.add(rounded_box(-0.76, y - 0.065, 0.76, y + 0.065, 0.03), darker(wood, 0.82 + 0.2 * (y - 0.6)))
    drawing.add(rounded_box(-0.78, 0.38, 0.78, 0.5, 0.04), darker(wood, 1.1))
    return drawing.figure()


def litter_bin(rng: random.Random) -> Figure:
    """A litter bin of 0.9 m."""
    paint = rng.choice(((70, 120, 90), (80, 90, 110), (150, 90, 70)))
    drawing = Drawing()
    drawing.add(polygon((-0.22, 0.0), (0.22, 0.0), (0.27, 0.75), (-0.27, 0.75)), paint)
    for k in range(3):
        drawing.add(box(-0.16 + 0.13 * k, 0.08, -0.11 + 0.13 * k, 0.66), darker(paint, 0.78))
    drawing.add(rounded_box(-0.31, 0.74, 0.31, 0.86, 0.05), darker(paint, 0.8))
    return drawing.figure()


def hydrant(_: random.Random) -> Figure:
    """A fire hydrant of 0.75 m."""
    paint = (206, 60, 50)
    drawing = Drawing()
    drawing.add(rounded_box(-0.16, 0.0, 0.16, 0.58, 0.04), paint)
    drawing.add(ellipse(0.0, 0.58, 0.16, 0.15), darker(paint, 1.15))
    drawing.add(rounded_box(-0.26, 0.34, 0.26, 0.46, 0.04), darker(paint, 0.8))
    drawing.add(ellipse(0.0, 0.74, 0.05), darker(paint, 0.8))
    return drawing.figure()
