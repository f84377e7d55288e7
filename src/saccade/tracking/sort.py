"""SORT (Bewley et al. 2016, "Simple online and realtime tracking"): a Kalman filter a track, optimal assignment by overlap, nothing else.

Equal to the published code in its choices, among them: a track is shown from its `min_hits`-th consecutive match on (from the start in the video's
first frames), and what is shown is the filtered box. Numbers of the published code are the defaults, but for the threshold, which it leaves to the
detector.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saccade.structures.ranges import NonNegativeInt, PositiveFloat
from saccade.tracking.assignment import match_overlaps, others, overlaps, same_class
from saccade.tracking.contract import Floats, Found, Integers, Observed
from saccade.tracking.kalman import AreaMotion
from saccade.tracking.motion import MotionTracker, MovingTracks


@dataclass
class SortTracks(MovingTracks):
    """With the number of matches in a row since the last miss."""

    streaks: Integers


class AreaTracker(MotionTracker):
    """What SORT and its kin have in common: the filter over centre, area and ratio, and counting matches in a row."""

    tracks: SortTracks
    motion = AreaMotion()

    def _begin_simple(self, seen: Observed) -> SortTracks:
        beliefs, nought = self.motion.begin(seen.boxes), np.zeros(len(seen), dtype=np.int64)
        return SortTracks(self._new_ids(len(seen)), seen.labels, beliefs.means, beliefs.covariances, nought, nought.copy())

    def _predict(self) -> Floats:
        """Move all tracks to this frame, drop those that became impossible, and give the boxes expected (n, 4)."""
        tracks = self.tracks
        tracks.beliefs = self.motion.predict(tracks.beliefs)
        tracks.streaks[tracks.missed > 0] = 0
        tracks.missed += 1
        boxes = self.motion.boxes(tracks.means)
        possible = np.isfinite(boxes[:, 0])
        self.tracks = tracks.keep(possible)
        return boxes[possible]


class SORT(AreaTracker):
    """Motion and overlap.

    `score_threshold`: detections with a lower score are passed over (None: all count). `match_iou`: the least overlap of a detection with the
    predicted box. `min_hits`: matches in a row after which a track is shown. `retain_frames`: frames in a row that a track may miss. `within_class`:
    only boxes of one class make a track; otherwise a track keeps its first class.
    """

    def __init__(
        self, *, score_threshold: float | None = 0.5, match_iou: PositiveFloat = 0.3, min_hits: NonNegativeInt = 3,
        retain_frames: NonNegativeInt = 1, within_class: bool = True,
    ) -> None:
        self.score_threshold, self.match_iou, self.min_hits, self.within_class = score_threshold, match_iou, min_hits, within_class
        super().__init__(retain_frames)

    def _no_tracks(self) -> SortTracks:
        return self._begin_simple(Observed.none())

    def _step(self, seen: Observed, appearance: Floats) -> Found:
        if self.score_threshold is not None:
            seen = seen.keep(seen.scores >= self.score_threshold)
        predicted = self._predict()
        tracks = self.tracks
        iou = overlaps(seen.boxes, predicted) * same_class(seen.labels, tracks.labels, self.within_class)
        found, continued = match_overlaps(iou, self.match_iou)
        tracks.see(continued, self.motion.correct(tracks.keep(continued).beliefs, seen.boxes[found]))
        tracks.streaks[continued] += 1
        new = others(len(seen), found)
        self.tracks = tracks = tracks.join(self._begin_simple(seen.keep(new)))
        rows = np.full(len(tracks), -1)
        rows[continued], rows[len(tracks) - len(new):] = seen.rows[found], seen.rows[new]
        shown = (rows >= 0) & ((tracks.streaks >= self.min_hits) | (self.frames <= self.min_hits))
        boxes = self.motion.boxes(tracks.means[shown])
        self.tracks = tracks.keep(tracks.missed <= self.retain_frames)
        return Found(rows[shown], tracks.ids[shown], boxes, tracks.labels[shown])
