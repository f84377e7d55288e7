"""OC-SORT (Cao et al. 2023, "Observation-centric SORT"): SORT that trusts what was seen more than what was predicted.

Three additions: the direction between observations enters the matching (section 4.2, momentum), tracks left over are matched by where they were last
seen (4.2, recovery), and a track that is found again has its filter run once more along a straight line over the gap (4.1, re-update). What is
shown is the detection itself. Left out: the optional second matching with low scores, which is ByteTrack's.

In two places the published code does other than the paper says, and `reference_quirks` does so, too: the detection that begins a track is no
observation of it, and after a re-update the last observation is taken in twice.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saccade.structures.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Probability
from saccade.tracking.assignment import Pairs, match_best, match_overlaps, others, overlaps, same_class
from saccade.tracking.contract import Floats, Found, Integers, Observed
from saccade.tracking.kalman import Beliefs
from saccade.tracking.sort import AreaTracker, SortTracks


@dataclass
class ObservedTracks(SortTracks):
    """With `last` (n, 4), where a track was last seen; `recent` (n, t, 4), where it was 1..t frames ago; `directions` (n, 2), the unit vector of
    its motion, 0 where unknown; and the filter's states in the first frame of the present gap. nan where there is nothing."""

    last: Floats
    recent: Floats
    directions: Floats
    gap_means: Floats
    gap_covariances: Floats


class OCSORT(AreaTracker):
    """Motion and overlap, centred on observations.

    `score_threshold`: detections with this score or a lower one are passed over; `init_threshold`: those that begin a track need a higher one.
    `match_iou`, `min_hits`, `retain_frames`, `within_class` as in SORT. `direction_weight`: what agreement of directions counts beside overlap, in
    units of a half turn; `direction_frames`: over how many frames a direction is measured.

    The published code's settings: `score_threshold` and `init_threshold` 0.6.
    """

    tracks: ObservedTracks

    def __init__(
        self, *, score_threshold: Probability = 0.3, init_threshold: Probability = 0.7, match_iou: PositiveFloat = 0.3,
        direction_weight: NonNegativeFloat = 0.2, direction_frames: PositiveInt = 3, min_hits: NonNegativeInt = 3, retain_frames: NonNegativeInt = 30,
        within_class: bool = True, reference_quirks: bool = False,
    ) -> None:
        self.score_threshold, self.init_threshold, self.reference_quirks = score_threshold, init_threshold, reference_quirks
        self.direction_weight, self.direction_frames = direction_weight, direction_frames
        self.match_iou, self.min_hits, self.within_class = match_iou, min_hits, within_class
        super().__init__(retain_frames)

    def _begin(self, seen: Observed) -> ObservedTracks:
        count, simple = len(seen), self._begin_simple(seen)
        unknown = np.full((count, self.direction_frames, 4), np.nan)
        return ObservedTracks(
            simple.ids, simple.labels, simple.means, simple.covariances, simple.missed, simple.streaks, unknown[:, 0].copy(), unknown,
            np.zeros((count, 2)), np.full((count, 7), np.nan), np.full((count, 7, 7), np.nan),
        )

    def _no_tracks(self) -> ObservedTracks:
        return self._begin(Observed.none())

    def _step(self, seen: Observed, appearance: Floats) -> Found:
        seen = seen.keep(seen.scores > self.score_threshold)
        predicted = self._predict()
        tracks = self.tracks
        previous = _previous(tracks)
        found, continued = self._match(seen, predicted, previous)
        found, continued = self._recover(seen, found, continued)
        self._see(seen.keep(found), continued, previous)
        left = seen.keep(others(len(seen), found))
        new = left.keep(left.scores > self.init_threshold)
        self.tracks = tracks = tracks.join(self._begin(new))
        begun = slice(len(tracks) - len(new), None)
        rows, now = np.full(len(tracks), -1), np.full((len(tracks), 4), np.nan)
        rows[continued], rows[begun] = seen.rows[found], new.rows
        now[continued], now[begun] = seen.boxes[found], new.boxes
        shown = (rows >= 0) & ((tracks.streaks >= self.min_hits) | (self.frames <= self.min_hits))
        result = Found(rows[shown], tracks.ids[shown], now[shown], tracks.labels[shown])
        self._remember(now, begun)
        self.tracks = tracks.keep(tracks.missed <= self.retain_frames)
        return result

    def _match(self, seen: Observed, predicted: Floats, previous: Floats) -> Pairs:
        """(detections, tracks) by overlap with what was predicted, and by how well the way from the `previous` observations suits the directions."""
        allowed = same_class(seen.labels, self.tracks.labels, self.within_class)
        iou = overlaps(seen.boxes, predicted) * allowed
        ways = _directions(previous[None], seen.boxes[:, None])  # (detections, tracks, 2)
        turn = np.arccos(np.clip((ways * self.tracks.directions).sum(-1), -1, 1))
        agreement = np.nan_to_num((np.pi / 2 - turn) / np.pi)
        return match_overlaps(iou, self.match_iou, self.direction_weight * agreement * allowed * seen.scores[:, None])

    def _recover(self, seen: Observed, found: Integers, continued: Integers) -> Pairs:
        """The pairs, with those added that overlap where the tracks were last seen."""
        left, lost = others(len(seen), found), others(len(self.tracks), continued)
        allowed = same_class(seen.labels[left], self.tracks.labels[lost], self.within_class)
        more, again = match_best(overlaps(seen.boxes[left], self.tracks.last[lost]) * allowed, self.match_iou)
        return np.concatenate([found, left[more]]), np.concatenate([continued, lost[again]])

    def _see(self, seen: Observed, rows: Integers, previous: Floats) -> None:
        """The tracks `rows` are what was `seen`, one each."""
        tracks = self.tracks
        known = np.isfinite(tracks.last[rows, 0])
        tracks.directions[rows[known]] = _directions(previous[rows], seen.boxes)[known]
        gap = (tracks.missed[rows] > 1) & np.isfinite(tracks.gap_means[rows, 0])
        beliefs = tracks.keep(rows).beliefs
        after = self._update_along_gap(tracks.keep(rows[gap]), seen.boxes[gap])
        beliefs.means[gap], beliefs.covariances[gap] = after.means, after.covariances
        once = np.ones(len(rows), dtype=bool) if self.reference_quirks else ~gap
        corrected = self.motion.correct(Beliefs(beliefs.means[once], beliefs.covariances[once]), seen.boxes[once])
        beliefs.means[once], beliefs.covariances[once] = corrected.means, corrected.covariances
        tracks.see(rows, beliefs)
        tracks.streaks[rows] += 1

    def _update_along_gap(self, tracks: ObservedTracks, boxes: Floats) -> Beliefs:
        """The filter run again from the gap's first frame on, along a line from where a track was last seen to where it is now."""
        start, end = _centres_and_sizes(tracks.last), _centres_and_sizes(boxes)
        means, covariances = tracks.gap_means.copy(), tracks.gap_covariances.copy()
        for step in range(1, int(tracks.missed.max(initial=0)) + 1):
            inside = tracks.missed >= step
            share = (step / tracks.missed[inside])[:, None]
            at = _corners(start[inside] + share * (end[inside] - start[inside]))
            beliefs = self.motion.correct(Beliefs(means[inside], covariances[inside]), at)
            on = tracks.missed[inside] > step
            later = self.motion.predict(Beliefs(beliefs.means[on], beliefs.covariances[on]))
            beliefs.means[on], beliefs.covariances[on] = later.means, later.covariances
            means[inside], covariances[inside] = beliefs.means, beliefs.covariances
        return Beliefs(means, covariances)

    def _remember(self, now: Floats, begun: slice) -> None:
        """Keep where the tracks are `now` (n, 4; nan where not seen), and the filter's states where a gap begins."""
        tracks = self.tracks
        if self.reference_quirks:
            now[begun] = np.nan
        seen = np.isfinite(now[:, 0])
        tracks.last[seen] = now[seen]
        tracks.recent = np.concatenate([now[:, None], tracks.recent[:, :-1]], 1)
        first = (tracks.missed == 1) & np.isfinite(tracks.last[:, 0])
        tracks.gap_means[first], tracks.gap_covariances[first] = tracks.means[first], tracks.covariances[first]


def _previous(tracks: ObservedTracks) -> Floats:
    """Where directions are measured from (n, 4): the oldest of the recent observations, else the last one; nan where there is none."""
    oldest_first = tracks.recent[:, ::-1]
    there = np.isfinite(oldest_first[:, :, 0])
    first = there.argmax(axis=1)
    row = np.arange(len(tracks))
    return np.where(there[row, first][:, None], oldest_first[row, first], tracks.last)


def _directions(first: Floats, second: Floats) -> Floats:
    """Unit vectors (..., 2) from the centres of boxes (..., 4) to those of others."""
    way = (second[..., :2] + second[..., 2:] - first[..., :2] - first[..., 2:]) / 2
    return way / (np.linalg.norm(way, axis=-1, keepdims=True) + 1e-6)


def _centres_and_sizes(boxes: Floats) -> Floats:
    size = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] + size / 2, size], 1)


def _corners(boxes: Floats) -> Floats:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
