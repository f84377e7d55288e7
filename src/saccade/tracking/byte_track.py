"""ByteTrack (Zhang et al. 2022, "ByteTrack: multi-object tracking by associating every detection box", algorithm 1).

Confident detections are matched first, with all tracks; those of low score then only with the tracks that are still without one. Equal to the
published code, except that a track is dropped in the frame in which it has been missed too often, where the code keeps it for one more. Numbers are
those of mmtracking's configuration, in which the limits are overlaps instead of distances; the class's docstring names the published code's.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saccade.structures.ranges import NonNegativeInt, Probability
from saccade.tracking.assignment import Pairs, match_below, others, overlaps, same_class
from saccade.tracking.contract import Flags, Floats, Found, Integers, Observed
from saccade.tracking.kalman import HeightMotion
from saccade.tracking.motion import MotionTracker, MovingTracks

_DUPLICATE_IOU = 0.85


@dataclass
class ByteTracks(MovingTracks):
    """With whether a second detection has confirmed a track, and the frames in which it began and was last seen."""

    confirmed: Flags
    first_frames: Integers
    last_frames: Integers


class ByteTrack(MotionTracker):
    """Motion and overlap, also with detections of low score.

    Scores above `high_threshold` take part in the first matching, those above `low_threshold` in the second. New tracks need `init_threshold`; those
    that do not begin in the first frame are shown from their second detection on, and need it in the very next frame. The least overlaps of the three
    matchings (all tracks; low scores; tracks not yet confirmed) are `match_iou`, `low_match_iou` and `tentative_match_iou`; with `fuse_scores`
    overlaps are multiplied by the score but in the second. `retain_frames`: frames in a row that a track may miss. `within_class` as in SORT.

    The published code's settings: high 0.6 (init 0.1 above it), match_iou 0.1 (0.2 in its demo), and `fuse_scores` off for MOT20.
    """

    tracks: ByteTracks
    motion = HeightMotion()

    def __init__(
        self, *, high_threshold: Probability = 0.6, low_threshold: Probability = 0.1, init_threshold: Probability = 0.7, match_iou: Probability = 0.1,
        low_match_iou: Probability = 0.5, tentative_match_iou: Probability = 0.3, fuse_scores: bool = True, retain_frames: NonNegativeInt = 30,
        within_class: bool = True,
    ) -> None:
        if not low_threshold <= high_threshold:
            raise ValueError(f"low_threshold {low_threshold} is above high_threshold {high_threshold}")
        self.high_threshold, self.low_threshold, self.init_threshold = high_threshold, low_threshold, init_threshold
        self.match_iou, self.low_match_iou, self.tentative_match_iou = match_iou, low_match_iou, tentative_match_iou
        self.fuse_scores, self.within_class = fuse_scores, within_class
        super().__init__(retain_frames)

    def _no_tracks(self) -> ByteTracks:
        return self._begin(Observed.none())

    def _begin(self, seen: Observed) -> ByteTracks:
        beliefs, now = self.motion.begin(seen.boxes), np.full(len(seen), self.frames)
        certain = np.full(len(seen), self.frames == 1)
        return ByteTracks(
            self._new_ids(len(seen)), seen.labels, beliefs.means, beliefs.covariances, np.zeros(len(seen), dtype=np.int64), certain, now, now.copy()
        )

    def _step(self, seen: Observed, appearance: Floats) -> Found:
        high = seen.keep(seen.scores > self.high_threshold)
        low = seen.keep((seen.scores > self.low_threshold) & (seen.scores <= self.high_threshold))
        was_missed = self._predict()
        tracks = self.tracks
        row_of = np.full(len(tracks), -1)  # the detection, among those given, of each track
        # First all confirmed tracks, lost ones too, with the confident detections.
        pool = tracks.confirmed.nonzero()[0]
        matched, found = self._match(pool, high, self.match_iou, self.fuse_scores)
        self._see(matched, high, found, row_of)
        # Then tracks that were there one frame ago with the unsure ones; objects behind others still give such.
        rest = pool[(row_of[pool] < 0) & ~was_missed[pool]]
        again, found_low = self._match(rest, low, self.low_match_iou, False)
        self._see(again, low, found_low, row_of)
        # What is left of the confident ones confirms the tracks that began one frame ago, or begins new ones.
        left = high.keep(others(len(high), found))
        tentative = (~tracks.confirmed).nonzero()[0]
        confirmed, found_left = self._match(tentative, left, self.tentative_match_iou, self.fuse_scores)
        self._see(confirmed, left, found_left, row_of)
        new = left.keep(others(len(left), found_left))
        new = new.keep(new.scores >= self.init_threshold)
        self.tracks = tracks.join(self._begin(new))
        row_of = np.concatenate([row_of, new.rows])
        stay = (self.tracks.missed <= self.retain_frames) & (self.tracks.confirmed | (row_of >= 0))
        stay[stay.nonzero()[0]] = self._unique(self.tracks.keep(stay))
        self.tracks, row_of = self.tracks.keep(stay), row_of[stay]
        shown = self.tracks.keep((row_of >= 0) & self.tracks.confirmed)
        return Found(row_of[(row_of >= 0) & self.tracks.confirmed], shown.ids, self.motion.boxes(shown.means), shown.labels)

    def _predict(self) -> Flags:
        """Move the confirmed tracks to this frame (those that were lost without a change of height), and say which were lost."""
        tracks = self.tracks
        lost = tracks.missed > 0
        tracks.means[lost, 7] = 0.0
        moving = tracks.confirmed.nonzero()[0]
        beliefs = self.motion.predict(tracks.keep(moving).beliefs)
        tracks.means[moving], tracks.covariances[moving] = beliefs.means, beliefs.covariances
        tracks.missed += 1
        return lost

    def _match(self, rows: Integers, seen: Observed, least: float, fuse: bool) -> Pairs:
        """(tracks among `rows`, detections) that belong together."""
        iou = overlaps(self.motion.boxes(self.tracks.means[rows]), seen.boxes)
        if fuse:
            iou = iou * seen.scores
        costs = np.where(same_class(self.tracks.labels[rows], seen.labels, self.within_class), 1.0 - iou, np.inf)
        matched, found = match_below(costs, 1.0 - least)
        return rows[matched], found

    def _see(self, rows: Integers, seen: Observed, found: Integers, row_of: Integers) -> None:
        tracks = self.tracks
        tracks.see(rows, self.motion.correct(tracks.keep(rows).beliefs, seen.boxes[found]))
        tracks.confirmed[rows], tracks.last_frames[rows], row_of[rows] = True, self.frames, seen.rows[found]

    def _unique(self, tracks: ByteTracks) -> Flags:
        """Which tracks stay where one that is seen and one that is lost lie on the same place: the older one."""
        seen, lost = (tracks.missed == 0).nonzero()[0], (tracks.missed > 0).nonzero()[0]
        boxes = self.motion.boxes(tracks.means)
        same = overlaps(boxes[seen], boxes[lost]) > _DUPLICATE_IOU
        if self.within_class:
            same &= same_class(tracks.labels[seen], tracks.labels[lost], True)
        ages = tracks.last_frames - tracks.first_frames
        older = ages[seen][:, None] > ages[lost][None, :]
        stay = np.ones(len(tracks), dtype=bool)
        stay[lost[(same & older).any(0)]] = False
        stay[seen[(same & ~older).any(1)]] = False
        return stay
