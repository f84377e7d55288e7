"""How people hold themselves: a pose is a handful of joint angles, a closed-form function of the action and the time.

Angles are radians. Swings are in the plane of walking (forward is positive), raises and spreads away from it, to the side.
"""
from __future__ import annotations

import math
from typing import NamedTuple

from saccade.data.town.vocabulary import JUMP, RUN, SIT, STAND, TURN, WALK, WAVE

WALK_STRIDE, RUN_STRIDE = 1.35, 2.3  # metres for two steps
THIGH, SHIN, UPPER_ARM, FOREARM, TRUNK = 0.42, 0.42, 0.29, 0.27, 0.50


class Pose(NamedTuple):
    """Joint angles; `yaw` 0 faces right, pi/2 the viewer, pi left; `lift` is the height of the lower foot above the ground in metres."""

    yaw: float = 0.0
    lean: float = 0.0
    lift: float = 0.0
    hip_left: float = 0.0
    hip_right: float = 0.0
    knee_left: float = 0.08
    knee_right: float = 0.08
    spread: float = 0.04
    arm_left: float = 0.05
    arm_right: float = 0.05
    raise_left: float = 0.12
    raise_right: float = 0.12
    elbow_left: float = 0.2
    elbow_right: float = 0.2
    out_left: float = 0.0
    out_right: float = 0.0


def blend(first: Pose, second: Pose, weight: float) -> Pose:
    """`first` at weight 0, `second` at weight 1."""
    return Pose(*[a + (b - a) * weight for a, b in zip(first, second, strict=True)])


def _stride(phase: float, swing: float, lift_knee: float, bend: float) -> tuple[float, float, float, float]:
    s, c = math.sin(phase), math.cos(phase)
    # The knee bends while its leg comes forward.
    return swing * s, -swing * s, bend + lift_knee * max(0.0, c) ** 1.3, bend + lift_knee * max(0.0, -c) ** 1.3


def _walk(distance: float, yaw: float) -> Pose:
    phase = 2 * math.pi * distance / WALK_STRIDE
    left, right, knee_left, knee_right = _stride(phase, 0.52, 0.85, 0.08)
    swing = 0.5 * math.sin(phase)
    return Pose(yaw, 0.04, 0.0, left, right, knee_left, knee_right, 0.02, -swing, swing, 0.1, 0.1, 0.3, 0.3)


def _run(distance: float, yaw: float) -> Pose:
    phase = 2 * math.pi * distance / RUN_STRIDE
    left, right, knee_left, knee_right = _stride(phase, 0.74, 1.35, 0.3)
    swing = 0.95 * math.sin(phase)
    flight = 0.16 * math.sin(phase) ** 2  # off the ground while the legs are far apart
    return Pose(yaw, 0.24, flight, left + 0.15, right + 0.15, knee_left, knee_right, 0.02, -swing, swing, 0.12, 0.12, 1.5, 1.5)


def _stand(time: float, yaw: float) -> Pose:
    breath = math.sin(1.8 * time)
    return Pose(yaw, 0.02 * breath, spread=0.07, raise_left=0.14 + 0.02 * breath, raise_right=0.14 - 0.02 * breath)


def _wave(time: float, yaw: float) -> Pose:
    swing = math.sin(2 * math.pi * 1.4 * time)
    return _stand(time, yaw)._replace(arm_right=0.0, raise_right=1.75 + 0.12 * swing, elbow_right=0.0, out_right=0.85 + 0.65 * swing)


def _jump(time: float, yaw: float) -> Pose:
    u = (time / 0.9) % 1.0
    flight = max(0.0, 1 - ((u - 0.5) / 0.28) ** 2)  # a parabola between take-off and landing
    crouch = max(0.0, 1 - abs(u - 0.12) / 0.16) + max(0.0, 1 - abs(u - 0.88) / 0.16)
    up = 0.5 - 0.5 * math.cos(2 * math.pi * u)
    bent = 0.75 * crouch
    return Pose(
        yaw, 0.25 * crouch, 0.42 * flight, bent, bent, 0.08 + 2 * bent, 0.08 + 2 * bent, 0.06 + 0.38 * flight,
        0.0, 0.0, 0.15 + 2.45 * up, 0.15 + 2.45 * up, 0.1, 0.1,
    )  # fmt: skip


def _sit(time: float, yaw: float) -> Pose:
    nod = 0.03 * math.sin(1.1 * time)
    return Pose(yaw, -0.06 + nod, 0.0, 1.5, 1.45, 1.5, 1.4, 0.1, 0.35, 0.45, 0.1, 0.1, 0.75, 0.8)


def _turn(time: float, yaw: float) -> Pose:
    step = math.sin(2 * math.pi * 1.6 * time)
    left, right = max(0.0, step), max(0.0, -step)
    return Pose(yaw, 0.0, 0.0, 0.45 * left, 0.45 * right, 0.1 + 0.8 * left, 0.1 + 0.8 * right, 0.08, 0.2, -0.2, 0.3, 0.3, 0.5, 0.5)


def pose_of(action: int, time: float, distance: float, yaw: float) -> Pose:
    """The pose of a person that has been doing `action` for `time` seconds, `distance` metres into its way, turned to `yaw`.

    Riding is not among them: it depends on the bicycle (`riding`).
    """
    if action == WALK:
        return _walk(distance, yaw)
    if action == RUN:
        return _run(distance, yaw)
    return {STAND: _stand, WAVE: _wave, JUMP: _jump, SIT: _sit, TURN: _turn}[action](time, yaw)


def reach(dx: float, dy: float, first: float, second: float, bend: float) -> tuple[float, float]:
    """Swings of two links of lengths `first` and `second` that end at (dx, dy) from their root; `bend` is +1 or -1, the side of the joint.

    Out of reach they point at it, stretched. Angles are measured from straight down, forward positive.
    """
    distance = min(math.hypot(dx, dy), first + second - 1e-6)
    toward = math.atan2(dx, -dy)
    inner = math.acos(max(-1.0, min(1.0, (first**2 + distance**2 - second**2) / (2 * first * distance + 1e-9))))
    outer = math.acos(max(-1.0, min(1.0, (first**2 + second**2 - distance**2) / (2 * first * second))))
    upper = toward + bend * inner
    return upper, upper - bend * (math.pi - outer)


def riding(saddle: tuple[float, float], crank: tuple[float, float], bar: tuple[float, float], pedal: float, radius: float) -> Pose:
    """The pose on a bicycle: feet on the pedals at the angle `pedal`, hands on the bar; points are (x, y) in metres, facing right."""
    lean = 0.45
    swings = []
    for turned in (pedal, pedal + math.pi):
        foot = crank[0] + radius * math.cos(turned), crank[1] + radius * math.sin(turned) + 0.06
        swings.append(reach(foot[0] - saddle[0], foot[1] - saddle[1], THIGH, SHIN, 1.0))
    shoulder = saddle[0] + TRUNK * math.sin(lean), saddle[1] + TRUNK * math.cos(lean)
    upper, lower = reach(bar[0] - shoulder[0], bar[1] - shoulder[1], UPPER_ARM, FOREARM, -1.0)
    (thigh_left, shin_left), (thigh_right, shin_right) = swings
    return Pose(
        0.0, lean, 0.0, thigh_left, thigh_right, thigh_left - shin_left, thigh_right - shin_right, 0.02,
        upper, upper, 0.02, 0.02, lower - upper, lower - upper,
    )  # fmt: skip
