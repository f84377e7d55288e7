"""DeepSORT (Wojke et al. 2017, "Simple online and realtime tracking with a deep association metric"): motion and appearance.

A track keeps the last appearances of its object. Matching goes from the tracks seen most recently to those missed longest (the paper's cascade), by
the nearest of the kept appearances among boxes that the filter holds for possible; what is left is matched by overlap. Appearances come with the
detections as embeddings of any kind. The published code also shows tracks in the first frame in which they are missed; here none is.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saccade.structures import Detections
from saccade.structures.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, Probability
from saccade.tracking.assignment import match_gated, others, overlaps, same_class
from saccade.tracking.contract import Flags, Floats, Found, Integers, Observed, needed_embeddings
from saccade.tracking.kalman import HeightMotion
from saccade.tracking.motion import MotionTracker, MovingTracks

_POSSIBLE = 9.4877  # the 0.95 quantile of the chi-squared distribution with four degrees of freedom


@dataclass
class AppearanceTracks(MovingTracks):
    """With the number of detections of each, and the last appearances: `gallery` (n, samples, D) of unit length, filled in turn."""

    hits: Integers
    gallery: Floats


class DeepSORT(MotionTracker):
    """Motion and appearance.

    `score_threshold`: detections with a lower score are passed over. `appearance_distance`: the largest cosine distance of an appearance from the
    nearest of a track's `samples`. `match_iou`: the least overlap in the matching of what is left. `confirm_hits`: detections in a row that make a
    new track one that is shown. `retain_frames`: frames in a row that such a track may miss. `within_class` as in SORT.
    """

    tracks: AppearanceTracks
    motion = HeightMotion()

    def __init__(
        self, *, score_threshold: float = 0.3, appearance_distance: NonNegativeFloat = 0.2, samples: PositiveInt = 100, match_iou: Probability = 0.3,
        confirm_hits: PositiveInt = 3, retain_frames: NonNegativeInt = 30, within_class: bool = True,
    ) -> None:
        self.score_threshold, self.appearance_distance, self.samples = score_threshold, appearance_distance, samples
        self.match_iou, self.confirm_hits, self.within_class = match_iou, confirm_hits, within_class
        super().__init__(retain_frames)

    def _no_tracks(self) -> AppearanceTracks:
        return self._begin(Observed.none(), np.zeros((0, 0)))

    def _begin(self, seen: Observed, appearance: Floats) -> AppearanceTracks:
        beliefs, hits = self.motion.begin(seen.boxes), np.ones(len(seen), dtype=np.int64)
        gallery = np.zeros((len(seen), self.samples, appearance.shape[1]), dtype=appearance.dtype)
        gallery[:, 0] = appearance
        return AppearanceTracks(self._new_ids(len(seen)), seen.labels, beliefs.means, beliefs.covariances, hits - 1, hits, gallery)

    def _appearance(self, detections: Detections, rows: Integers) -> Floats:
        size = self.tracks.gallery.shape[2]
        if not len(detections) and detections.embeddings is None:
            return np.zeros((0, size))
        embeddings = needed_embeddings(detections, "DeepSORT").detach().cpu().float().numpy()[rows]
        if len(self.tracks) and embeddings.shape[1] != size:
            raise ValueError(f"embeddings of {embeddings.shape[1]} numbers after embeddings of {size}; call reset() before another model's")
        return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)

    def _step(self, seen: Observed, appearance: Floats) -> Found:
        certain = seen.scores >= self.score_threshold
        seen, appearance = seen.keep(certain), appearance[certain]
        tracks = self.tracks if len(self.tracks) else self._begin(Observed.none(), appearance[:0])
        tracks.beliefs = self.motion.predict(tracks.beliefs)
        tracks.missed += 1
        match = self._match(tracks, seen, appearance)
        rows = (match >= 0).nonzero()[0]
        found = match[rows]
        tracks.see(rows, self.motion.correct(tracks.keep(rows).beliefs, seen.boxes[found]))
        tracks.gallery[rows, tracks.hits[rows] % self.samples] = appearance[found]
        tracks.hits[rows] += 1
        stay = (tracks.hits >= self.confirm_hits) | (match >= 0)
        stay &= tracks.missed <= self.retain_frames
        new = others(len(seen), found)
        self.tracks = tracks.keep(stay).join(self._begin(seen.keep(new), appearance[new]))
        row_of = np.concatenate([np.where(match >= 0, seen.rows[match], -1)[stay] if len(seen) else np.full(stay.sum(), -1), seen.rows[new]])
        shown = (row_of >= 0) & (self.tracks.hits >= self.confirm_hits)
        found_tracks = self.tracks.keep(shown)
        return Found(row_of[shown], found_tracks.ids, self.motion.boxes(found_tracks.means), found_tracks.labels)

    def _match(self, tracks: AppearanceTracks, seen: Observed, appearance: Floats) -> Integers:
        """The detection of each track, -1 where it has none."""
        match = np.full(len(tracks), -1)
        if not len(tracks) or not len(seen):
            return match
        allowed = same_class(tracks.labels, seen.labels, self.within_class)
        possible = allowed & (self.motion.squared_distances(tracks.beliefs, seen.boxes) <= _POSSIBLE)
        costs = np.where(possible, self._distances(tracks, appearance), np.inf)
        confirmed, free = tracks.hits >= self.confirm_hits, np.arange(len(seen))
        for age in np.unique(tracks.missed[confirmed]):  # the cascade: those seen last choose first
            level = (confirmed & (tracks.missed == age)).nonzero()[0]
            rows, found = match_gated(costs[np.ix_(level, free)], self.appearance_distance)
            match[level[rows]] = free[found]
            free = np.delete(free, found)
        rest = ((match < 0) & (~confirmed | (tracks.missed == 1))).nonzero()[0]
        iou = overlaps(self.motion.boxes(tracks.means[rest]), seen.boxes[free])
        rows, found = match_gated(np.where(allowed[np.ix_(rest, free)], 1.0 - iou, np.inf), 1.0 - self.match_iou)
        match[rest[rows]] = free[found]
        return match

    def _distances(self, tracks: AppearanceTracks, appearance: Floats) -> Floats:
        """Cosine distances (n, k) of each track's nearest sample from k appearances."""
        filled = self._filled(tracks)
        similarity = np.where(filled[..., None], tracks.gallery @ appearance.T, -np.inf)
        return 1.0 - similarity.max(1)

    def _filled(self, tracks: AppearanceTracks) -> Flags:
        return np.arange(self.samples) < tracks.hits[:, None]
