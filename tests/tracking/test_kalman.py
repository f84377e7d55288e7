"""The batched filters against the textbook's, one object at a time."""
from __future__ import annotations

import numpy as np
import pytest

from saccade.tracking.kalman import AreaMotion, Beliefs, HeightMotion
from tracking import textbook


def boxes(draw: np.random.Generator, count: int) -> np.ndarray:
    corner = draw.uniform(0, 200, (count, 2))
    return np.concatenate([corner, corner + draw.uniform(10, 90, (count, 2))], 1)


def test_area_motion_equals_the_textbook() -> None:
    draw = np.random.default_rng(0)
    motion, start = AreaMotion(), boxes(draw, 6)
    one_by_one = [textbook.sort_filter(box) for box in start]
    beliefs = motion.begin(start)
    for _ in range(15):
        beliefs, seen = motion.predict(beliefs), boxes(draw, 6)
        for kalman in one_by_one:
            kalman.x[6] *= kalman.x[6] + kalman.x[2] > 0
            kalman.predict(textbook.SORT_Q)
        compare(beliefs, one_by_one)
        beliefs = motion.correct(beliefs, seen)
        for kalman, box in zip(one_by_one, seen, strict=True):
            kalman.update(textbook.area_state(box), textbook.SORT_R)
        compare(beliefs, one_by_one)


def test_height_motion_equals_the_textbook() -> None:
    draw = np.random.default_rng(1)
    motion, start = HeightMotion(), boxes(draw, 6)
    one_by_one = [textbook.height_filter(box) for box in start]
    beliefs = motion.begin(start)
    for _ in range(15):
        beliefs, seen = motion.predict(beliefs), boxes(draw, 6)
        for kalman in one_by_one:
            textbook.height_predict(kalman)
        compare(beliefs, one_by_one)
        distances = motion.squared_distances(beliefs, seen)
        for i, kalman in enumerate(one_by_one):
            off = textbook.height_state(seen[2]) - kalman.x[:4]
            spread = kalman.p[:4, :4] + textbook.height_noise(kalman)
            assert distances[i, 2] == pytest.approx(off @ np.linalg.inv(spread) @ off, rel=1e-9)
        beliefs = motion.correct(beliefs, seen)
        for kalman, box in zip(one_by_one, seen, strict=True):
            kalman.update(textbook.height_state(box), textbook.height_noise(kalman))
        compare(beliefs, one_by_one)


def compare(beliefs: Beliefs, one_by_one: list[textbook.Kalman]) -> None:
    np.testing.assert_allclose(beliefs.means, np.stack([k.x for k in one_by_one]), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(beliefs.covariances, np.stack([k.p for k in one_by_one]), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("motion", [AreaMotion(), HeightMotion()])
def test_boxes_come_back_from_their_states(motion: AreaMotion | HeightMotion) -> None:
    given = boxes(np.random.default_rng(2), 20)
    np.testing.assert_allclose(motion.boxes(motion.begin(given).means), given, atol=1e-9)


def test_a_constant_velocity_is_learned() -> None:
    motion = HeightMotion()
    place = np.array([[10.0, 20, 40, 100]])
    beliefs = motion.begin(place)
    for _ in range(40):
        place = place + np.array([3.0, -2, 3, -2])
        beliefs = motion.correct(motion.predict(beliefs), place)
    np.testing.assert_allclose(beliefs.means[0, 4:6], [3, -2], atol=0.05)


def test_states_that_are_no_boxes_have_none() -> None:
    means = np.array([[5.0, 5, -1, 1, 0, 0, 0], [5, 5, 9, 1, 0, 0, 0]])
    assert np.isnan(AreaMotion().boxes(means)[0]).all() and np.isfinite(AreaMotion().boxes(means)[1]).all()


def test_no_tracks_are_no_trouble() -> None:
    for motion in (AreaMotion(), HeightMotion()):
        none = motion.correct(motion.predict(motion.begin(np.zeros((0, 4)))), np.zeros((0, 4)))
        assert none.means.shape[0] == 0 and motion.boxes(none.means).shape == (0, 4)
