"""Dogs: they trot, stand and wag, seen from the side, facing right."""
from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

from saccade.data.town.shapes import Colour, Drawing, Figure, capsules, darker, ellipse, polygon

_COATS: tuple[Colour, ...] = ((176, 118, 66), (92, 62, 44), (232, 214, 180), (58, 54, 56), (206, 148, 84), (240, 240, 236))
_STRIDE = 0.62  # metres for one round of all legs


@dataclass(frozen=True)
class Breed:
    """Coat, collar and size of one dog; at `scale` 1 it is 0.75 m high."""

    coat: Colour
    collar: Colour
    spotted: bool
    scale: float


def random_breed(rng: random.Random) -> Breed:
    """Some dog."""
    return Breed(rng.choice(_COATS), rng.choice(((220, 50, 50), (40, 110, 200), (250, 190, 40))), rng.random() < 0.35, rng.uniform(0.74, 0.98))


def dog(breed: Breed, distance: float, time: float, moving: bool) -> Figure:
    """The figure of a dog that has gone `distance` metres, at `time` seconds (for the tail)."""
    coat, dark = breed.coat, darker(breed.coat, 0.74)
    phase = 2 * math.pi * distance / _STRIDE
    swing = 0.6 if moving else 0.0
    bob = 0.015 * math.sin(2 * phase) if moving else 0.0
    wag = 0.35 * math.sin(2 * math.pi * 2.2 * time)
    sticks: list[tuple[float, float, float, float, float, float, Colour]] = []
    for x, offset, colour in ((-0.3, math.pi, dark), (0.27, 0.0, dark), (-0.34, 0.0, coat), (0.31, math.pi, coat)):
        angle = swing * math.sin(phase + offset)
        lifted = 0.07 * max(0.0, math.cos(phase + offset)) if moving else 0.0
        knee, foot = (x + 0.2 * math.sin(angle), 0.24), (x + 0.2 * math.sin(angle) + 0.12 * math.sin(angle * 1.2), 0.05 + lifted)
        sticks += [(x, 0.44 + bob, *knee, 0.075, 0.055, colour), (*knee, *foot, 0.05, 0.045, colour)]
    sticks += [
        (-0.42, 0.58 + bob, -0.62, 0.78 + 0.1 * wag, 0.05, 0.035, coat),  # tail
        (-0.34, 0.5 + bob, 0.3, 0.53 + bob, 0.15, 0.165, coat),  # trunk
        (0.34, 0.58 + bob, 0.47, 0.78 + bob, 0.12, 0.1, coat),  # neck
        (0.5, 0.84 + bob, 0.7, 0.79 + bob, 0.135, 0.075, coat),  # head and muzzle
    ]
    table = np.array([s[:6] for s in sticks])
    outlines = capsules(table[:, :2], table[:, 2:4], table[:, 4], table[:, 5])
    drawing = Drawing()
    for outline, stick in zip(outlines, sticks, strict=True):
        drawing.add(outline, stick[6])
    if breed.spotted:
        drawing.add(ellipse(-0.12, 0.58 + bob, 0.16, 0.1), dark)
    drawing.add(polygon((0.33, 0.7 + bob), (0.38, 0.63 + bob), (0.52, 0.71 + bob), (0.47, 0.77 + bob)), breed.collar)
    drawing.add(ellipse(0.43, 0.8 + bob, 0.07, 0.14, 10), dark)  # ear
    drawing.add(ellipse(0.76, 0.81 + bob, 0.04, corners=8), (30, 26, 28))  # nose
    drawing.add(ellipse(0.58, 0.88 + bob, 0.026, corners=8), (30, 26, 28))
    figure = drawing.figure()
    return Figure(figure.points * breed.scale, figure.lengths, figure.colours, figure.glow)
