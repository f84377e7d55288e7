"""Kalman filters with constant velocity over the boxes of all tracks at once.

`AreaMotion` is SORT's state (Bewley et al. 2016, section 3.2; OC-SORT's as well): centre, area, aspect ratio w/h, and the velocities of the first
three. `HeightMotion` is DeepSORT's (Wojke et al. 2017, section 2.1; ByteTrack's as well): centre, aspect ratio, height and the velocities of all
four, with noise in proportion to the height. Both step by one frame and observe their first four numbers. The matrices are the published codes'.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from saccade.tracking.contract import Floats

_LEAST = 1e-3  # pixels: a height that is divided by or that noise is in proportion to


@dataclass(frozen=True)
class Beliefs:
    """Normal distributions over the states of n tracks: `means` (n, d), `covariances` (n, d, d)."""

    means: Floats
    covariances: Floats


class Motion(Protocol):
    """How boxes move: what a tracker asks of a filter."""

    def begin(self, boxes: Floats) -> Beliefs:
        """Beliefs about tracks seen for the first time in `boxes` (n, 4)."""

    def predict(self, beliefs: Beliefs) -> Beliefs:
        """One frame later."""

    def correct(self, beliefs: Beliefs, boxes: Floats) -> Beliefs:
        """After seeing the tracks in `boxes` (n, 4)."""

    def boxes(self, means: Floats) -> Floats:
        """The boxes (n, 4) that states (n, d) stand for; not finite where a state stands for none."""


def predict(beliefs: Beliefs, transition: Floats, noise: Floats) -> Beliefs:
    """x' = F x, P' = F P F^T + Q for `transition` F (d, d) and `noise` Q (d, d) or (n, d, d)."""
    return Beliefs(beliefs.means @ transition.T, transition @ beliefs.covariances @ transition.T + noise)


def correct(beliefs: Beliefs, measured: Floats, noise: Floats) -> Beliefs:
    """The posterior given `measured` (n, m), the first m numbers of the states, with `noise` R (m, m) or (n, m, m).

    K = P H^T S^-1 with S = H P H^T + R; x' = x + K (z - H x), P' = P - K S K^T.
    """
    m = measured.shape[1]
    cross = beliefs.covariances[:, :, :m]  # P H^T: (n, d, m)
    spread = beliefs.covariances[:, :m, :m] + noise
    gain = np.linalg.solve(spread, cross.transpose(0, 2, 1)).transpose(0, 2, 1)  # S is symmetric
    means = beliefs.means + (gain @ (measured - beliefs.means[:, :m])[..., None])[..., 0]
    return Beliefs(means, beliefs.covariances - gain @ cross.transpose(0, 2, 1))


def squared_distances(beliefs: Beliefs, measured: Floats, noise: Floats) -> Floats:
    """Squared Mahalanobis distances (n, k) of measurements (k, m) from what each of n tracks expects."""
    m = measured.shape[1]
    spread = beliefs.covariances[:, :m, :m] + noise
    off = (measured[None] - beliefs.means[:, None, :m]).transpose(0, 2, 1)  # (n, m, k)
    return (off * np.linalg.solve(spread, off)).sum(1)


def _constant_velocity(size: int, velocities: int) -> Floats:
    transition = np.eye(size)
    transition[np.arange(velocities), np.arange(velocities) + 4] = 1.0
    return transition


class AreaMotion:
    """SORT's filter: state (x, y, area, w/h, and the velocities of x, y, area)."""

    transition = _constant_velocity(7, 3)
    first_covariance = np.diag([10.0, 10, 10, 10, 1e4, 1e4, 1e4])
    process_noise = np.diag([1.0, 1, 1, 1, 1e-2, 1e-2, 1e-4])
    observation_noise = np.diag([1.0, 1, 10, 10])

    def measure(self, boxes: Floats) -> Floats:
        """(x, y, area, w/h) of boxes (..., 4)."""
        size = boxes[..., 2:] - boxes[..., :2]
        width, height = size[..., 0], size[..., 1]
        centre = boxes[..., :2] + size / 2
        return np.concatenate([centre, (width * height)[..., None], (width / np.maximum(height, _LEAST))[..., None]], -1)

    def begin(self, boxes: Floats) -> Beliefs:
        """At rest, with velocities hardly known."""
        means = np.concatenate([self.measure(boxes), np.zeros((len(boxes), 3))], 1)
        return Beliefs(means, np.broadcast_to(self.first_covariance, (len(boxes), 7, 7)).copy())

    def predict(self, beliefs: Beliefs) -> Beliefs:
        """One frame later; an area that would shrink to nothing stops shrinking."""
        means = beliefs.means.copy()
        means[means[:, 2] + means[:, 6] <= 0, 6] = 0.0
        return predict(Beliefs(means, beliefs.covariances), self.transition, self.process_noise)

    def correct(self, beliefs: Beliefs, boxes: Floats) -> Beliefs:
        """After seeing the tracks in `boxes`."""
        return correct(beliefs, self.measure(boxes), self.observation_noise)

    def boxes(self, means: Floats) -> Floats:
        """w = sqrt(area * ratio), h = area / w; nan where area or ratio is not positive."""
        area, ratio = (np.where(means[:, i] > 0, means[:, i], np.nan) for i in (2, 3))
        width = np.sqrt(area * ratio)
        half = np.stack([width, area / width], 1) / 2
        return np.concatenate([means[:, :2] - half, means[:, :2] + half], 1)


class HeightMotion:
    """DeepSORT's filter: state (x, y, w/h, height and the velocities of the four)."""

    transition = _constant_velocity(8, 4)
    place_weight, speed_weight = 1 / 20, 1 / 160  # standard deviations as shares of the height

    def measure(self, boxes: Floats) -> Floats:
        """(x, y, w/h, height) of boxes (..., 4)."""
        size = boxes[..., 2:] - boxes[..., :2]
        height = size[..., 1:]
        return np.concatenate([boxes[..., :2] + size / 2, size[..., :1] / np.maximum(height, _LEAST), height], -1)

    def begin(self, boxes: Floats) -> Beliefs:
        """At rest; deviations of twice the place's and ten times the speed's share of the height."""
        measured = self.measure(boxes)
        covariances = self._noise(measured[:, 3], 2.0, 1e-2, 10.0, 1e-5)
        return Beliefs(np.concatenate([measured, np.zeros_like(measured)], 1), covariances)

    def predict(self, beliefs: Beliefs) -> Beliefs:
        """One frame later."""
        return predict(beliefs, self.transition, self._noise(beliefs.means[:, 3], 1.0, 1e-2, 1.0, 1e-5))

    def correct(self, beliefs: Beliefs, boxes: Floats) -> Beliefs:
        """After seeing the tracks in `boxes`."""
        return correct(beliefs, self.measure(boxes), self._observation_noise(beliefs.means[:, 3]))

    def squared_distances(self, beliefs: Beliefs, boxes: Floats) -> Floats:
        """Squared Mahalanobis distance (n, k) of each track from each of k boxes."""
        return squared_distances(beliefs, self.measure(boxes), self._observation_noise(beliefs.means[:, 3]))

    def boxes(self, means: Floats) -> Floats:
        """w = ratio * h; nan where ratio or height is not positive."""
        ratio, height = (np.where(means[:, i] > 0, means[:, i], np.nan) for i in (2, 3))
        half = np.stack([ratio * height, height], 1) / 2
        return np.concatenate([means[:, :2] - half, means[:, :2] + half], 1)

    def _noise(self, heights: Floats, place: float, ratio: float, speed: float, ratio_speed: float) -> Floats:
        """Diagonal covariances (n, 8, 8): `place` and `speed` multiply the weights, `ratio` and `ratio_speed` are deviations of the aspect ratio."""
        scale = np.maximum(np.abs(heights), _LEAST)
        at, by = place * self.place_weight * scale, speed * self.speed_weight * scale
        same = np.ones_like(scale)
        deviations = np.stack([at, at, ratio * same, at, by, by, ratio_speed * same, by], 1)
        return np.eye(8) * np.square(deviations)[:, None, :]

    def _observation_noise(self, heights: Floats) -> Floats:
        at = self.place_weight * np.maximum(np.abs(heights), _LEAST)
        return np.eye(4) * np.square(np.stack([at, at, np.full_like(at, 1e-1), at], 1))[:, None, :]
