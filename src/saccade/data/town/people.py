"""People: a jointed body in three dimensions, turned about its upright axis and projected to flat, overlapping limbs."""
from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

from saccade.data.town.poses import FOREARM, SHIN, THIGH, TRUNK, UPPER_ARM, Pose
from saccade.data.town.shapes import Colour, Drawing, Figure, capsules, darker, ellipse

HEIGHT = 1.75  # metres, of a person at scale 1

_SKIN: tuple[Colour, ...] = ((255, 219, 190), (241, 194, 150), (214, 158, 112), (160, 106, 70), (112, 72, 48))
_HAIR: tuple[Colour, ...] = ((42, 32, 30), (86, 56, 36), (150, 98, 48), (226, 186, 104), (176, 74, 40), (196, 196, 200), (60, 60, 84))
_TOPS: tuple[Colour, ...] = (
    (231, 76, 60), (243, 156, 18), (241, 196, 15), (26, 160, 133), (39, 130, 200), (142, 68, 173), (236, 112, 150), (245, 245, 240),
    (44, 62, 90), (120, 190, 90), (255, 140, 105),
)  # fmt: skip
_BOTTOMS: tuple[Colour, ...] = ((46, 64, 104), (60, 60, 66), (120, 92, 70), (196, 176, 140), (84, 100, 70), (90, 40, 60), (74, 110, 160))
_SHOES: tuple[Colour, ...] = ((40, 36, 40), (240, 240, 240), (190, 60, 50), (90, 60, 40))


@dataclass(frozen=True)
class Appearance:
    """Colours, clothes and size of one person; `scale` 1 is an adult of 1.75 m."""

    skin: Colour
    hair: Colour
    top: Colour
    bottom: Colour
    shoes: Colour
    sleeves: bool
    dress: bool
    cap: bool
    long_hair: bool
    scale: float


def random_appearance(rng: random.Random) -> Appearance:
    """Somebody."""
    child = rng.random() < 0.12
    dress = rng.random() < 0.25
    return Appearance(
        skin=rng.choice(_SKIN), hair=rng.choice(_HAIR), top=rng.choice(_TOPS), bottom=rng.choice(_BOTTOMS), shoes=rng.choice(_SHOES),
        sleeves=rng.random() < 0.55, dress=dress, cap=rng.random() < 0.18, long_hair=dress or rng.random() < 0.25,
        scale=rng.uniform(0.74, 0.82) if child else rng.uniform(0.93, 1.06),
    )  # fmt: skip


_Point = tuple[float, float, float]


def _limb(root: _Point, length: float, swing: float, aside: float, side: float) -> _Point:
    """The end of a limb that hangs from `root`: swung forward, then raised to its `side` (+1 left, -1 right)."""
    flat = math.cos(aside)
    return root[0] + length * math.sin(swing) * flat, root[1] - length * math.cos(swing) * flat, root[2] + side * length * math.sin(aside)


class _Body:
    """Joints of one pose in metres: x forward, y up, z to the left, the lower sole at `lift`."""

    def __init__(self, pose: Pose, seat: tuple[float, float] | None) -> None:
        hips = ((0.0, 0.0, 0.09), (0.0, 0.0, -0.09))
        chest = (TRUNK * math.sin(pose.lean), TRUNK * math.cos(pose.lean), 0.0)
        self.legs, self.arms = [], []
        for hip, side, swing, knee_bend in zip(hips, (1, -1), (pose.hip_left, pose.hip_right), (pose.knee_left, pose.knee_right), strict=True):
            knee = _limb(hip, THIGH, swing, pose.spread, side)
            self.legs.append((hip, knee, _limb(knee, SHIN, swing - knee_bend, pose.spread, side)))
        left = pose.arm_left, pose.raise_left, pose.elbow_left, pose.out_left
        right = pose.arm_right, pose.raise_right, pose.elbow_right, pose.out_right
        for side, (swing, aside, bend, out) in zip((1, -1), (left, right), strict=True):
            shoulder = (chest[0], chest[1] - 0.02, side * 0.19)
            elbow = _limb(shoulder, UPPER_ARM, swing, aside, side)
            self.arms.append((shoulder, elbow, _limb(elbow, FOREARM, swing + bend, aside + out, side)))
        self.chest = chest
        self.head = (chest[0] + 0.30 * math.sin(pose.lean * 0.6), chest[1] + 0.30 * math.cos(pose.lean * 0.6), 0.0)
        lowest = min(leg[2][1] for leg in self.legs) - 0.07
        self.root = (0.0, pose.lift - lowest) if seat is None else seat


def person(pose: Pose, look: Appearance, seat: tuple[float, float] | None = None) -> Figure:
    """The figure of somebody in `pose`. `seat` (x, y in metres) fixes the hips (on a saddle); otherwise the lower foot stands on the ground."""
    body = _Body(pose, seat)
    cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
    drawing = Drawing()
    limbs = _limbs(body, look, cos, sin)
    starts, ends, widths, colours = zip(*[stick for _, sticks in limbs for stick in sticks], strict=True)
    radii = np.array(widths)
    root = np.array(body.root)
    outlines = capsules(np.array(starts) + root, np.array(ends) + root, radii[:, 0], radii[:, 1])
    used, waiting = 0, [(_HEAD_DEPTH, _add_head)]
    if look.long_hair:  # it falls on the back: hidden by the trunk from the front, over it from behind
        waiting.append((_HEAD_DEPTH if sin < -0.3 else _TORSO_DEPTH - 1e-3, _add_long_hair))
    waiting.sort(key=lambda part: part[0])
    for depth, sticks in limbs:
        while waiting and depth > waiting[0][0]:
            waiting.pop(0)[1](drawing, body, look, cos, sin)
        for _ in sticks:
            drawing.add(outlines[used], colours[used])
            used += 1
    for _, add in waiting:
        add(drawing, body, look, cos, sin)
    figure = drawing.figure()
    return Figure(figure.points * look.scale, figure.lengths, figure.colours, figure.glow)


_TORSO_DEPTH, _HEAD_DEPTH = 0.0, 0.01  # legs come before, arms on the viewer's side after

_Stick = tuple[tuple[float, float], tuple[float, float], tuple[float, float], Colour]


def _limbs(body: _Body, look: Appearance, cos: float, sin: float) -> list[tuple[float, list[_Stick]]]:
    """Groups of sticks (start, end, radii, colour) in metres, sorted from the back to the front."""

    def flat(point: _Point) -> tuple[float, float]:
        return point[0] * cos + point[2] * sin, point[1]

    def toward(*points: _Point) -> float:
        return sum(p[0] * sin - p[2] * cos for p in points) / len(points)

    groups: list[tuple[float, list[_Stick]]] = []
    legs = sorted(body.legs, key=lambda leg: toward(*leg))
    for rank, (hip, knee, ankle) in enumerate(legs):
        shade = 0.8 if rank == 0 else 1.0
        lower = look.skin if look.dress else look.bottom
        toe = (ankle[0] + 0.13, ankle[1] - 0.01, ankle[2])
        groups.append((-2.0 + rank, [
            (flat(ankle), flat(toe), (0.07, 0.06), darker(look.shoes, shade)),
            (flat(knee), flat(ankle), (0.075, 0.06), darker(lower, shade)),
            (flat(hip), flat(knee), (0.1, 0.08), darker(lower, shade)),
        ]))  # fmt: skip
    width = abs(sin)
    trunk: list[_Stick] = []
    if look.dress:
        middle = tuple((a + b) / 2 for a, b in zip(body.legs[0][1], body.legs[1][1], strict=True))
        hem = flat((middle[0] * 0.8, middle[1] * 0.8, middle[2]))
        trunk.append(((0.0, 0.0), hem, (0.13, 0.2), darker(look.top, 0.93)))
    else:
        trunk.append(((0.0, -0.02), (0.0, 0.06), (0.12 + 0.04 * width, 0.12 + 0.03 * width), look.bottom))
    chest = flat(body.chest)
    trunk.append(((chest[0] * 0.15, 0.08), (chest[0], chest[1] - 0.08), (0.125 + 0.03 * width, 0.14 + 0.05 * width), look.top))
    trunk.append((chest, (chest[0], chest[1] + 0.1), (0.06, 0.06), darker(look.skin, 0.88)))
    groups.append((_TORSO_DEPTH, trunk))
    for shoulder, elbow, hand in body.arms:
        depth = toward(elbow, hand)
        behind = depth < -0.06
        shade = 0.78 if behind else 0.93
        sleeve = look.top if look.sleeves else look.skin
        groups.append((-0.5 + depth if behind else 1.0 + depth, [
            (flat(elbow), flat(hand), (0.055, 0.05), darker(sleeve, shade)),
            (flat(shoulder), flat(elbow), (0.07, 0.058), darker(look.top, shade)),
            (flat(hand), flat(hand), (0.065, 0.065), darker(look.skin, shade)),
        ]))  # fmt: skip
    return sorted(groups, key=lambda group: group[0])


def _add_long_hair(drawing: Drawing, body: _Body, look: Appearance, cos: float, sin: float) -> None:
    x, y = body.root[0] + (body.head[0] - 0.09) * cos, body.root[1] + body.head[1]
    drawing.add(ellipse(x, y - 0.13, 0.12 + 0.05 * abs(sin), 0.21), darker(look.hair, 0.88))


def _add_head(drawing: Drawing, body: _Body, look: Appearance, cos: float, sin: float) -> None:
    x, y = body.root[0] + body.head[0] * cos, body.root[1] + body.head[1]
    hair = ellipse(x - 0.045 * cos, y + 0.035, 0.168, 0.172)
    face = ellipse(x + 0.035 * cos, y - 0.02, 0.14, 0.15)
    if sin > -0.3:
        drawing.add(hair, look.hair)
        drawing.add(face, look.skin)
        for side in (0.055, -0.055):
            if 0.12 * sin - side * cos > 0.0:
                drawing.add(ellipse(x + 0.13 * cos + side * sin, y + 0.0, 0.02, 0.028, corners=8), (40, 30, 40))
    else:
        drawing.add(face, look.skin)
        drawing.add(hair, look.hair)
    if look.cap:
        crown = ellipse(x - 0.02 * cos, y + 0.05, 0.172, 0.155)
        drawing.add(crown[crown[:, 1] > y + 0.02], look.bottom)
        peak = ellipse(x + 0.15 * cos, y + 0.05, 0.02 + 0.11 * max(abs(cos), 0.9 * max(sin, 0.0)), 0.03)
        drawing.add(peak, darker(look.bottom, 0.8))
