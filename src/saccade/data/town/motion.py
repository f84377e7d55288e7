"""Where actors are and what they do at any time, in closed form: programmes of actions for those on foot, conveyor lanes for those on wheels.

Nothing is simulated: the state at time t follows from t alone, so frames can be rendered in any order.
"""
from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from saccade.data.town.poses import Pose, blend, pose_of
from saccade.data.town.vocabulary import JUMP, RUN, SIT, STAND, TURN, WALK, WAVE

FRONT = math.pi / 2  # the yaw that faces the viewer
_BLEND = 0.3  # seconds from one action's pose into the next one's


@dataclass(frozen=True)
class Step:
    """One action of a programme: from `start` for `duration` seconds, from `place` metres at `velocity`, turning from `yaw` to `end_yaw`."""

    start: float
    duration: float
    action: int
    place: float
    velocity: float
    yaw: float
    end_yaw: float

    def pose(self, elapsed: float) -> Pose:
        """The pose `elapsed` seconds into the step."""
        u = min(1.0, elapsed / self.duration)
        yaw = self.yaw + (self.end_yaw - self.yaw) * u * u * (3 - 2 * u)
        return pose_of(self.action, elapsed, abs(self.velocity) * elapsed, yaw)


class Programme:
    """Steps that repeat for ever; `offset` is how far into them the video begins."""

    def __init__(self, steps: list[Step], offset: float) -> None:
        self.steps = tuple(steps)
        self._starts = [s.start for s in steps]
        self.duration = steps[-1].start + steps[-1].duration
        self.offset = offset * self.duration

    def _find(self, time: float) -> tuple[int, float]:
        within = (time + self.offset) % self.duration
        index = bisect_right(self._starts, within) - 1
        return index, within - self.steps[index].start

    def step_at(self, time: float) -> tuple[Step, float]:
        """The step of `time` and the seconds since its start."""
        index, elapsed = self._find(time)
        return self.steps[index], elapsed

    def place(self, time: float) -> float:
        """Metres along the way at `time`."""
        step, elapsed = self.step_at(time)
        return step.place + step.velocity * elapsed

    def heading(self, time: float) -> int:
        """+1 where the way leads to the right at `time`, -1 to the left; while standing the last way, after half a turn the next one."""
        index, elapsed = self._find(time)
        step = self.steps[index]
        if step.action == TURN and elapsed > step.duration / 2:
            index = (index + 1) % len(self.steps)
        while self.steps[index].velocity == 0.0:  # a way has steps that move
            index -= 1
        return 1 if self.steps[index].velocity > 0 else -1

    def pose(self, time: float) -> Pose:
        """The pose at `time`; actions flow into each other."""
        index, elapsed = self._find(time)
        pose = self.steps[index].pose(elapsed)
        if elapsed >= _BLEND:
            return pose
        before = self.steps[index - 1]
        last = before.pose(before.duration)
        turns = round((pose.yaw - last.yaw) / (2 * math.pi))  # the short way round
        u = elapsed / _BLEND
        return blend(last._replace(yaw=last.yaw + turns * 2 * math.pi), pose, u * u * (3 - 2 * u))


class _Writer:
    def __init__(self, place: float) -> None:
        self.steps: list[Step] = []
        self.time, self.place = 0.0, place

    def add(self, action: int, duration: float, yaw: float, end_yaw: float | None = None, velocity: float = 0.0) -> None:
        self.steps.append(Step(self.time, duration, action, self.place, velocity, yaw, yaw if end_yaw is None else end_yaw))
        self.time += duration
        self.place += velocity * duration


def passer_by(rng: random.Random, way: float, gait: int, speed: float, pauses: tuple[int, ...]) -> Programme:
    """Somebody who goes `way` metres to the right and back, at `speed` m/s, and stops now and then for one of `pauses`."""
    writer = _Writer(0.0)
    for direction, yaw in ((1, 0.0), (-1, math.pi)):
        left = way
        while left > 0.0:
            leg = rng.uniform(1.4, 4.0) * (1.8 if gait == RUN else 1.0)
            if left - leg < 1.0:  # no step may be so short that poses can't flow into each other
                leg = left
            writer.add(gait, leg / speed, yaw, velocity=direction * speed)
            left -= leg
            if left > 0.0 and pauses and rng.random() < 0.65:
                writer.add(rng.choice(pauses), rng.uniform(1.2, 2.4), FRONT + rng.uniform(-0.45, 0.45))
        half = rng.choice((math.pi, -math.pi))
        writer.add(TURN, rng.uniform(0.8, 1.2), yaw, yaw + half)
    return Programme(writer.steps, rng.random())


def performer(rng: random.Random) -> Programme:
    """Somebody who stays and waves, jumps, spins or stands."""
    writer = _Writer(0.0)
    yaw = FRONT + rng.uniform(-0.4, 0.4)
    for action in rng.sample((WAVE, JUMP, TURN, STAND, WAVE, JUMP, STAND), 5):
        if action == TURN:
            writer.add(TURN, rng.uniform(1.6, 2.4), yaw, yaw + 2 * math.pi)
        else:
            writer.add(action, rng.uniform(1.4, 3.0), yaw)
    return Programme(writer.steps, rng.random())


def sitter(rng: random.Random) -> Programme:
    """Somebody on a bench, who gets up now and then."""
    writer = _Writer(0.0)
    yaw = FRONT + rng.choice((-1.0, 1.0)) * rng.uniform(0.5, 0.95)
    for _ in range(2):
        writer.add(SIT, rng.uniform(4.0, 8.0), yaw)
        writer.add(rng.choice((STAND, WAVE)), rng.uniform(1.0, 1.8), FRONT)
    return Programme(writer.steps, rng.random())


def walker(rng: random.Random, way: float) -> Programme:
    """Somebody who walks and sometimes stops."""
    return passer_by(rng, way, WALK, rng.uniform(0.9, 1.4), (STAND, WAVE, STAND))


def runner(rng: random.Random, way: float) -> Programme:
    """Somebody who runs."""
    return passer_by(rng, way, RUN, rng.uniform(2.1, 2.8), ())


@dataclass(frozen=True)
class Lane:
    """A row of vehicles at one speed, which swells and ebbs but never reverses.

    `direction` is +1 (to the right) or -1; `y` the ground line, `speed` (units/s) and `spacing` (units) in picture heights; a vehicle stays within
    `margin` units beyond the picture of `width` units before it appears and after it is gone.
    """

    y: float
    direction: int
    speed: float
    spacing: float
    offset: float
    swell: float
    width: float
    margin: float = 0.6

    def _progress(self, time: float) -> float:
        rhythm = 0.7  # rad/s
        return self.offset + (self.width + 2 * self.margin) + self.speed * (time + self.swell * math.sin(rhythm * time + self.offset) / rhythm)

    def present(self, time: float) -> Iterator[tuple[int, float]]:
        """(slot, distance gone in units) of every slot that is on its way through the picture at `time`."""
        progress = self._progress(time)
        first = math.ceil((progress - self.width - 2 * self.margin) / self.spacing)
        for slot in range(max(0, first), math.floor(progress / self.spacing) + 1):
            yield slot, progress - slot * self.spacing

    def x(self, gone: float) -> float:
        """Where a vehicle is, in units, that has gone `gone` units."""
        return gone - self.margin if self.direction > 0 else self.width + self.margin - gone
