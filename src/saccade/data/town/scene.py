"""One video of the town as geometry: who and what is where at time t, from the back to the front. No pixels here."""
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from saccade.data.town.animals import Breed, dog, random_breed
from saccade.data.town.motion import Lane, Programme, passer_by, performer, runner, sitter, walker
from saccade.data.town.people import Appearance, person, random_appearance
from saccade.data.town.props import LAMP_HEIGHT, bench, bush, fir, hydrant, lamp_post, litter_bin, tree
from saccade.data.town.shapes import Figure
from saccade.data.town.street import random_street
from saccade.data.town.vehicles import Vehicle, random_vehicle, rider_pose, vehicle
from saccade.data.town.vocabulary import (
    BICYCLE,
    BUS,
    CAR,
    DOG,
    FURNITURE,
    NO_ACTION,
    PERSON,
    RIDE,
    STAND,
    TRUCK,
    VEGETATION,
    WALK,
)

NO_OBJECT = -1  # the label of what stands about and is no object


@dataclass(frozen=True, eq=False)
class Layer:
    """One thing in the picture: its figure (metres), where it touches the ground (x, y in units), units a metre, and what it is.

    `label` is a class or `NO_OBJECT`, `semantic` its semantic class, `light` (x, y, radius in metres, from the ground point) a lamp that it carries.
    `fixed` layers are the same object in every frame of a scene, so that their tiles can be remembered.
    """

    figure: Figure
    x: float
    y: float
    scale: float
    label: int
    semantic: int
    track_id: int = 0
    action: int = NO_ACTION
    light: tuple[float, float, float] | None = None
    fixed: bool = False


@dataclass(frozen=True)
class _Walker:
    """Somebody on foot: where the programme's way begins, and how they look."""

    x: float
    y: float
    scale: float
    programme: Programme
    looks: Appearance | Breed
    track_id: int


_PROPS: tuple[tuple[Callable[[random.Random], Figure], int], ...] = (
    (tree, VEGETATION), (fir, VEGETATION), (bush, VEGETATION), (lamp_post, FURNITURE), (litter_bin, FURNITURE), (hydrant, FURNITURE),
)  # fmt: skip


class Scene:
    """Everything that one video holds, for a picture `width` units wide; a pure function of `key` and `density`.

    `density` multiplies the numbers of people and vehicles.
    """

    def __init__(self, key: str, width: float, density: float) -> None:
        rng = random.Random(key)
        self.key, self.width = key, width
        self.street = random_street(rng, width)
        self._static = self._place_props(rng)
        self._walkers = self._place_people(rng, density)
        self._lanes = self._place_lanes(rng, density)
        self._vehicles: dict[tuple[int, int], tuple[Vehicle, Appearance, float] | None] = {}

    def layers(self, time: float) -> list[Layer]:
        """All layers at `time` seconds, in the order in which they are painted."""
        moving = [self._walker_at(w, time) for w in self._walkers]
        for number in range(len(self._lanes)):
            moving += self._traffic(number, time)
        return sorted([*self._static, *moving], key=lambda layer: layer.y)

    def _place_props(self, rng: random.Random) -> list[Layer]:
        street, found = self.street, []
        x = rng.uniform(0.0, 0.25)
        while x < self.width:
            draw, semantic = rng.choices(_PROPS, (5, 3, 3, 4, 2, 1))[0]
            y = street.base + rng.uniform(0.004, 0.02)
            found.append(self._prop(draw(rng), x, y, semantic, draw is lamp_post))
            x += rng.uniform(0.22, 0.5)
        if rng.random() < 0.6:
            draw, semantic = rng.choices(_PROPS, (1.5, 0, 3, 3, 2, 2))[0]
            y = street.near_kerb + rng.uniform(0.04, 0.15)
            found.append(self._prop(draw(rng), rng.uniform(0.0, self.width), y, semantic, draw is lamp_post))
        return found

    def _prop(self, figure: Figure, x: float, y: float, semantic: int, lamp: bool) -> Layer:
        return Layer(figure, x, y, self.street.scale(y), NO_OBJECT, semantic, light=(0.0, LAMP_HEIGHT, 1.9) if lamp else None, fixed=True)

    def _pavement(self, rng: random.Random, near: bool) -> float:
        street = self.street
        return rng.uniform(street.near_kerb + 0.045, 0.985) if near else rng.uniform(street.base + 0.028, street.far_kerb - 0.008)

    def _place_people(self, rng: random.Random, density: float) -> list[_Walker]:
        found: list[_Walker] = []
        count = max(1, round(rng.uniform(2.6, 4.8) * self.width**0.8 * density))
        for number in range(count):
            y = self._pavement(rng, rng.random() < 0.5)
            scale = self.street.scale(y)
            kind = rng.choices(("walker", "runner", "performer", "sitter"), (4.0, 2.0, 3.2, 1.2))[0]
            share = (number + rng.uniform(0.1, 0.9)) / count  # those who stay are spread over the street
            x, programme = self._programme(rng, kind, scale, y, 0.06 + share * (self.width - 0.12))
            found.append(_Walker(x, y, scale, programme, random_appearance(rng), len(found) + 1))
        for _ in range(round(rng.uniform(0.2, 1.7) * self.width**0.8 * density)):
            y = self._pavement(rng, rng.random() < 0.6)
            scale = self.street.scale(y)
            start, end = self._way(rng)
            programme = passer_by(rng, (end - start) / scale, WALK, rng.uniform(0.8, 1.5), (STAND,))
            found.append(_Walker(start, y, scale, programme, random_breed(rng), len(found) + 1))
        if rng.random() < 0.4:
            y = self.street.base + 0.02
            parked = vehicle(random_vehicle(rng, BICYCLE), rng.uniform(0, 2))
            figure = parked if rng.random() < 0.5 else parked.mirrored()
            self._static.append(Layer(figure, rng.uniform(0, self.width), y, self.street.scale(y), BICYCLE, BICYCLE, len(found) + 1, fixed=True))
        return found

    def _way(self, rng: random.Random) -> tuple[float, float]:
        """Two ends of a way along the picture; either may lie outside."""
        first = rng.uniform(-0.25, self.width * 0.55)
        return first, min(self.width + 0.25, first + rng.uniform(0.45, 1.0) * max(1.0, self.width * 0.7))

    def _programme(self, rng: random.Random, kind: str, scale: float, y: float, x: float) -> tuple[float, Programme]:
        if kind in ("walker", "runner"):
            start, end = self._way(rng)
            return start, (walker if kind == "walker" else runner)(rng, (end - start) / scale)
        if kind == "performer":
            return x, performer(rng)
        self._static.append(self._prop(bench(rng), x, y - 0.001, FURNITURE, False))
        return x, sitter(rng)

    def _place_lanes(self, rng: random.Random, density: float) -> list[Lane]:
        street, lanes = self.street, []
        road = street.near_kerb - street.far_kerb
        for y, direction in ((street.far_kerb + 0.36 * road, -1), (street.far_kerb + 0.8 * road, 1)):
            scale = street.scale(y)
            lanes.append(Lane(
                y, direction, rng.uniform(1.3, 2.4) * scale, rng.uniform(1.2, 1.75) / max(0.7, min(1.2, density)), rng.uniform(0, 20),
                rng.uniform(0.1, 0.8), self.width,
            ))  # fmt: skip
        y = street.near_kerb - 0.006
        spacing = rng.uniform(1.0, 1.8) / density
        lanes.append(Lane(y, rng.choice((-1, 1)), rng.uniform(1.3, 1.9) * street.scale(y), spacing, rng.uniform(0, 20), 0.3, self.width))
        return lanes

    def _vehicle(self, lane: int, slot: int) -> tuple[Vehicle, Appearance, float] | None:
        """What drives in a slot of a lane (None: nothing), who rides it, and how far it lags behind its slot, in units."""
        if (lane, slot) not in self._vehicles:
            rng = random.Random(f"{self.key}/{lane}/{slot}")
            label = BICYCLE if lane == 2 else rng.choices((CAR, BUS, TRUCK), (5, 2.6, 3.4))[0]
            present = rng.random() < 0.8
            made = random_vehicle(rng, label), random_appearance(rng), rng.uniform(0.0, 0.25)
            self._vehicles[lane, slot] = made if present else None
        return self._vehicles[lane, slot]

    def _traffic(self, number: int, time: float) -> list[Layer]:
        lane, found = self._lanes[number], []
        scale = self.street.scale(lane.y)
        for slot, gone in lane.present(time):
            made = self._vehicle(number, slot)
            if made is None:
                continue
            which, rider, lag = made
            x, metres = lane.x(gone - lag), (gone - lag) / scale
            figure = vehicle(which, metres)
            track_id = 10_000 * (number + 1) + 2 * slot
            light = (lane.direction * which.length / 2, 0.55, 0.9) if which.label != BICYCLE else (lane.direction * 0.5, 0.9, 0.5)
            facing = figure if lane.direction > 0 else figure.mirrored()
            found.append(Layer(facing, x, lane.y, scale, which.label, which.label, track_id, light=light))
            if which.label == BICYCLE:
                pose, seat = rider_pose(metres)
                body = person(pose, rider, seat)
                facing = body if lane.direction > 0 else body.mirrored()
                found.append(Layer(facing, x, lane.y + 1e-4, scale, PERSON, PERSON, track_id + 1, RIDE))
        return found

    def _walker_at(self, who: _Walker, time: float) -> Layer:
        step, elapsed = who.programme.step_at(time)
        x = who.x + who.scale * who.programme.place(time)
        if isinstance(who.looks, Breed):
            moving = step.action == WALK
            figure = dog(who.looks, abs(step.velocity) * elapsed, time, moving)
            facing = figure if who.programme.heading(time) > 0 else figure.mirrored()
            return Layer(facing, x, who.y, who.scale, DOG, DOG, who.track_id)
        return Layer(person(who.programme.pose(time), who.looks), x, who.y, who.scale, PERSON, PERSON, who.track_id, step.action)
