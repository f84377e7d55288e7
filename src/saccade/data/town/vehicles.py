"""Cars, buses, trucks and bicycles, seen from the side, facing right; their wheels turn with the distance."""
from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from saccade.data.town.poses import Pose, riding
from saccade.data.town.shapes import Colour, Drawing, Figure, box, darker, ellipse, polygon, ring, rounded_box, stick
from saccade.data.town.vocabulary import BICYCLE, BUS, CAR, TRUCK

_PAINT: tuple[Colour, ...] = (
    (214, 64, 54), (38, 110, 190), (245, 200, 66), (238, 238, 232), (62, 70, 84), (52, 152, 120), (240, 130, 60), (130, 196, 220), (150, 80, 150),
)  # fmt: skip
_BUS_PAINT: tuple[Colour, ...] = ((226, 78, 60), (246, 178, 50), (40, 130, 120), (58, 96, 172), (120, 180, 80))
_CARGO: tuple[Colour, ...] = ((240, 240, 236), (214, 196, 160), (90, 150, 200), (210, 90, 70), (110, 160, 90))
_GLASS, _GLASS_LIGHT, _TYRE, _HUB = (84, 124, 148), (150, 190, 208), (36, 36, 40), (190, 194, 200)
_LAMP, _TAIL, _TRIM = (255, 240, 170), (214, 40, 36), (54, 58, 64)


@dataclass(frozen=True)
class Vehicle:
    """One vehicle: class, variant (0, 1, 2), two colours; `length` in metres."""

    label: int
    variant: int
    paint: Colour
    second: Colour
    length: float


_LENGTHS = {CAR: 2.7, BUS: 4.0, TRUCK: 3.5, BICYCLE: 1.5}


def random_vehicle(rng: random.Random, label: int) -> Vehicle:
    """Some vehicle of class `label`."""
    paint = rng.choice(_BUS_PAINT if label == BUS else _PAINT)
    return Vehicle(label, rng.randrange(3), paint, rng.choice(_CARGO), _LENGTHS[label])


def vehicle(which: Vehicle, distance: float) -> Figure:
    """The figure of a vehicle that has gone `distance` metres."""
    radius = WHEEL if which.label == BICYCLE else _CAR_WHEEL
    return _at_step(which, round(distance / radius / (2 * math.pi) * _WHEEL_STEPS) % _WHEEL_STEPS)


@functools.lru_cache(maxsize=512)
def _at_step(which: Vehicle, step: int) -> Figure:
    drawing = Drawing()
    _DRAWERS[which.label](drawing, which, -step * 2 * math.pi / _WHEEL_STEPS)
    return drawing.figure()


_WHEEL_STEPS, _CAR_WHEEL = 60, 0.3  # positions of a wheel in one turn; radius in metres


def _wheel(drawing: Drawing, x: float, radius: float, angle: float) -> None:
    drawing.add(ellipse(x, radius, radius), _TYRE)
    drawing.add(ellipse(x, radius, radius * 0.58, corners=12), _HUB)
    for k in range(2):
        dx, dy = radius * 0.5 * math.cos(angle + k * math.pi / 2), radius * 0.5 * math.sin(angle + k * math.pi / 2)
        drawing.add(stick(x - dx, radius - dy, x + dx, radius + dy, 0.035), (120, 124, 132))


def _car(drawing: Drawing, which: Vehicle, angle: float) -> None:
    paint, dark = which.paint, darker(which.paint, 0.8)
    if which.variant == 0:  # saloon
        cabin = polygon((-0.98, 0.74), (-0.66, 1.22), (-0.5, 1.28), (0.3, 1.28), (0.44, 1.22), (0.86, 0.74))
        windows = [((-0.82, 0.76), (-0.58, 1.16), (-0.1, 1.16), (-0.1, 0.76)), ((-0.02, 0.76), (-0.02, 1.16), (0.34, 1.16), (0.68, 0.76))]
    elif which.variant == 1:  # hatchback
        cabin = polygon((-1.22, 0.74), (-1.16, 1.2), (-1.0, 1.32), (0.22, 1.32), (0.4, 1.26), (0.84, 0.74))
        windows = [((-1.08, 0.78), (-1.02, 1.18), (-0.4, 1.2), (-0.4, 0.78)), ((-0.32, 0.78), (-0.32, 1.2), (0.26, 1.2), (0.64, 0.78))]
    else:  # a small van
        cabin = polygon((-1.3, 0.74), (-1.3, 1.36), (-1.2, 1.46), (0.36, 1.46), (0.56, 1.38), (0.98, 0.74))
        windows = [((-1.16, 0.86), (-1.16, 1.32), (-0.44, 1.32), (-0.44, 0.86)), ((-0.34, 0.86), (-0.34, 1.32), (0.42, 1.32), (0.74, 0.86))]
    drawing.add(cabin, darker(paint, 1.08))
    drawing.add(rounded_box(-1.34, 0.24, 1.34, 0.8, 0.17), paint)
    drawing.add(box(-1.3, 0.24, 1.3, 0.36), dark)
    for window in windows:
        drawing.add(polygon(*window), _GLASS)
        (x1, y1), (x2, y2), *_ = window
        drawing.add(polygon((x1 + 0.1, y1), (x2 + 0.1, y2), (x2 + 0.24, y2), (x1 + 0.24, y1)), _GLASS_LIGHT)
    drawing.add(box(-0.08, 0.4, -0.05, 0.74), dark)
    drawing.add(box(0.02, 0.62, 0.16, 0.66), dark)
    drawing.add(ellipse(1.24, 0.6, 0.085, 0.075, 10), _LAMP, 1.0)
    drawing.add(ellipse(-1.27, 0.62, 0.06, 0.075, 10), _TAIL, 0.9)
    for x in (-0.8, 0.82):
        drawing.add(ellipse(x, 0.3, 0.35), _TRIM)
        _wheel(drawing, x, 0.28, angle)
    if which.variant == 0 and which.paint == _PAINT[2]:  # yellow saloons are taxis
        drawing.add(rounded_box(-0.3, 1.26, 0.1, 1.4, 0.04), (250, 250, 240), 0.8)
        for k in range(-5, 6):
            drawing.add(box(0.22 * k - 0.05, 0.5 + 0.06 * (k % 2), 0.22 * k + 0.06, 0.56 + 0.06 * (k % 2)), _TRIM)


def _bus(drawing: Drawing, which: Vehicle, angle: float) -> None:
    paint = which.paint
    drawing.add(rounded_box(-2.0, 0.26, 2.0, 2.06, 0.2), paint)
    drawing.add(rounded_box(-1.92, 1.9, 1.92, 2.06, 0.08), darker(paint, 0.82))
    drawing.add(box(-2.0, 0.62, 2.0, 0.8), (244, 240, 228))
    drawing.add(box(-1.98, 0.26, 1.98, 0.38), darker(paint, 0.75))
    drawing.add(rounded_box(-1.86, 1.06, 1.28, 1.72, 0.06), _TRIM)
    for k in range(4):
        left = -1.82 + 0.78 * k
        drawing.add(box(left, 1.1, left + 0.7, 1.68), _GLASS, 0.55)
        drawing.add(polygon((left + 0.1, 1.1), (left + 0.34, 1.68), (left + 0.52, 1.68), (left + 0.28, 1.1)), _GLASS_LIGHT, 0.55)
    drawing.add(polygon((1.42, 0.98), (1.42, 1.74), (1.92, 1.74), (2.0, 1.6), (2.0, 0.98)), _GLASS)
    drawing.add(polygon((1.55, 0.98), (1.7, 1.74), (1.82, 1.74), (1.67, 0.98)), _GLASS_LIGHT)
    drawing.add(box(0.64, 0.42, 1.2, 1.04), darker(paint, 0.88))
    drawing.add(box(0.7, 0.46, 0.9, 1.0), _GLASS)
    drawing.add(box(0.94, 0.46, 1.14, 1.0), _GLASS)
    drawing.add(rounded_box(1.3, 1.8, 1.96, 1.96, 0.04), (50, 50, 40))
    drawing.add(box(1.38, 1.84, 1.88, 1.92), (255, 200, 80), 1.0)
    drawing.add(ellipse(1.9, 0.54, 0.09, 0.08, 10), _LAMP, 1.0)
    drawing.add(box(-2.0, 0.5, -1.9, 0.66), _TAIL, 0.9)
    for x in (-1.2, 1.3):
        drawing.add(ellipse(x, 0.34, 0.38), _TRIM)
        _wheel(drawing, x, 0.31, angle)


def _truck(drawing: Drawing, which: Vehicle, angle: float) -> None:
    paint = which.paint
    drawing.add(box(-1.7, 0.3, 1.7, 0.46), _TRIM)
    drawing.add(polygon((0.78, 0.36), (0.78, 1.5), (0.9, 1.6), (1.36, 1.6), (1.5, 1.5), (1.7, 0.96), (1.74, 0.36)), paint)
    drawing.add(polygon((1.0, 0.98), (1.0, 1.46), (1.34, 1.46), (1.54, 0.98)), _GLASS)
    drawing.add(polygon((1.08, 0.98), (1.2, 1.46), (1.3, 1.46), (1.18, 0.98)), _GLASS_LIGHT)
    drawing.add(box(0.78, 0.36, 1.74, 0.5), darker(paint, 0.78))
    if which.variant == 0:  # box
        drawing.add(rounded_box(-1.74, 0.46, 0.7, 1.9, 0.06), which.second)
        drawing.add(box(-1.74, 1.06, 0.7, 1.3), darker(paint, 1.05))
        drawing.add(box(-1.74, 0.46, 0.7, 0.56), darker(which.second, 0.8))
    elif which.variant == 1:  # tank
        drawing.add(rounded_box(-1.76, 0.52, 0.7, 1.54, 0.42), which.second)
        drawing.add(rounded_box(-1.66, 1.24, 0.6, 1.44, 0.1), darker(which.second, 1.15))
        for x in (-1.15, -0.45, 0.2):
            drawing.add(box(x, 0.54, x + 0.07, 1.53), darker(which.second, 0.75))
    else:  # tipper with a load of sand
        drawing.add(ellipse(-0.5, 1.14, 1.0, 0.36), (206, 172, 110))
        drawing.add(polygon((-1.74, 1.24), (0.7, 1.24), (0.58, 0.46), (-1.56, 0.46)), darker(paint, 0.92))
        for x in (-1.3, -0.8, -0.3, 0.2):
            drawing.add(box(x, 0.5, x + 0.08, 1.24), darker(paint, 0.74))
    drawing.add(ellipse(1.66, 0.62, 0.08, 0.08, 10), _LAMP, 1.0)
    drawing.add(box(-1.76, 0.42, -1.66, 0.56), _TAIL, 0.9)
    for x in (-1.24, -0.56, 1.2):
        _wheel(drawing, x, 0.31, angle)


WHEEL, _CRANK, _SADDLE, _BAR, _PEDALS = 0.34, (-0.05, 0.3), (-0.2, 0.92), (0.36, 1.0), 0.16


def _bicycle(drawing: Drawing, which: Vehicle, angle: float) -> None:
    paint = which.paint
    for x in (-0.52, 0.52):
        drawing.add(ring(x, WHEEL, WHEEL, WHEEL - 0.075), _TYRE)
        for k in range(3):
            dx, dy = WHEEL * 0.9 * math.cos(angle + k * math.pi / 3), WHEEL * 0.9 * math.sin(angle + k * math.pi / 3)
            drawing.add(stick(x - dx, WHEEL - dy, x + dx, WHEEL + dy, 0.012), (150, 154, 160))
        drawing.add(ellipse(x, WHEEL, 0.06, corners=8), _HUB)
    seat, head = (-0.2, 0.8), (0.34, 0.84)
    for start, end in (((-0.52, WHEEL), _CRANK), ((-0.52, WHEEL), seat), (_CRANK, seat), (_CRANK, head), (seat, head), (head, (0.52, WHEEL))):
        drawing.add(stick(*start, *end, 0.045), paint)
    drawing.add(stick(*head, 0.3, 1.0, 0.035), _TRIM)
    drawing.add(stick(0.26, 1.02, 0.42, 1.0, 0.035), _TRIM)
    drawing.add(stick(-0.32, 0.86, -0.08, 0.85, 0.05), _TRIM)
    drawing.add(ellipse(0.42, 0.9, 0.05, corners=8), _LAMP, 1.0)
    drawing.add(ellipse(*_CRANK, 0.08, corners=10), _HUB)


def rider_pose(distance: float) -> tuple[Pose, tuple[float, float]]:
    """Pose and hips (x, y in metres) of whoever rides a bicycle that has gone `distance` metres."""
    pedal = -distance / WHEEL * 0.55  # geared down
    return riding(_SADDLE, _CRANK, _BAR, pedal, _PEDALS), _SADDLE


_DRAWERS: dict[int, Callable[[Drawing, Vehicle, float], None]] = {CAR: _car, BUS: _bus, TRUCK: _truck, BICYCLE: _bicycle}
