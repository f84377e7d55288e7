"""Motion in closed form: continuous, with feet on the ground, and vehicles that keep their distance."""
from __future__ import annotations

import math
import random

import numpy as np
import pytest

from saccade.data.town.motion import Lane, Programme, performer, runner, sitter, walker
from saccade.data.town.people import person, random_appearance
from saccade.data.town.poses import pose_of, reach
from saccade.data.town.vocabulary import ACTIONS, JUMP, RIDE, RUN, STAND, TURN, WALK


def programmes() -> list[Programme]:
    return [make(random.Random(seed)) for seed in range(5) for make in (performer, sitter, lambda r: walker(r, 6.0), lambda r: runner(r, 9.0))]


def test_poses_flow_from_one_action_into_the_next() -> None:
    looks = random_appearance(random.Random(0))
    for programme in programmes():
        for step in programme.steps:
            moment = step.start - programme.offset
            before, after = (person(programme.pose(t), looks) for t in (moment - 1e-4, moment + 1e-4))
            # The order in which limbs are painted may change in a turn, the region that they fill may not jump.
            for a, b in ((before.points.min(0), after.points.min(0)), (before.points.max(0), after.points.max(0))):
                assert np.abs(a - b).max() < 0.02


def test_places_are_continuous_and_programmes_repeat() -> None:
    for programme in programmes():
        times = np.linspace(-3.0, 2.5 * programme.duration, 4000)
        places = np.array([programme.place(t) for t in times])
        assert np.abs(np.diff(places)).max() <= 3.0 * (times[1] - times[0]) + 1e-9
        assert programme.place(1.234) == pytest.approx(programme.place(1.234 + programme.duration), abs=1e-6)


def test_walkers_face_where_they_go() -> None:
    programme = walker(random.Random(3), 8.0)
    for t in np.linspace(0, programme.duration, 300):
        step, elapsed = programme.step_at(float(t))
        if step.action == WALK and elapsed > 0.3:
            assert math.cos(programme.pose(float(t)).yaw) * step.velocity > 0
            assert programme.heading(float(t)) == np.sign(step.velocity)


@pytest.mark.parametrize("action", [a for a in range(len(ACTIONS)) if a != RIDE], ids=lambda a: ACTIONS[a])
def test_a_foot_is_on_the_ground_unless_in_flight(action: int) -> None:
    looks = random_appearance(random.Random(1))
    lowest = [person(pose_of(action, t, 1.5 * t, 0.4), looks).points[:, 1].min() for t in np.linspace(0, 3, 60)]
    assert min(lowest) == pytest.approx(0.0, abs=0.03)
    assert (max(lowest) > 0.08) == (action in (JUMP, RUN))


@pytest.mark.parametrize("action", [a for a in range(len(ACTIONS)) if a not in (STAND, RIDE)], ids=lambda a: ACTIONS[a])
def test_actions_differ_from_standing_by_their_limbs(action: int) -> None:
    yaw = 0.0 if action in (WALK, RUN) else math.pi / 2
    poses = np.array([pose_of(action, t, 1.2 * t, yaw + (2 * t if action == TURN else 0.0)) for t in np.linspace(0, 2, 40)])
    still = np.array([pose_of(STAND, t, 0.0, yaw) for t in np.linspace(0, 2, 40)])
    assert np.abs(poses - still).max() > 0.4


def test_two_links_reach_their_goal() -> None:
    upper, lower = reach(0.3, -0.5, 0.42, 0.42, 1.0)
    end = 0.42 * np.array([math.sin(upper) + math.sin(lower), -math.cos(upper) - math.cos(lower)])
    np.testing.assert_allclose(end, [0.3, -0.5], atol=1e-6)


@pytest.mark.parametrize("direction", [1, -1])
def test_a_lane_never_reverses_and_its_slots_enter_and_leave(direction: int) -> None:
    lane = Lane(0.7, direction, 0.3, 1.4, 5.0, 0.8, 1.0)
    places: dict[int, list[float]] = {}
    for t in np.linspace(0, 20, 400):
        for slot, gone in lane.present(float(t)):
            places.setdefault(slot, []).append(lane.x(gone))
    assert len(places) > 3
    for xs in places.values():
        assert (np.diff(xs) * direction >= -1e-9).all()
        assert min(xs) >= -0.6 - 1e-6 and max(xs) <= 1.6 + 1e-6
