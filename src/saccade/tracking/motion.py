"""What the trackers with a motion filter share: frames that were left out, ids, state; each adds one step."""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.structures import Detections
from saccade.tracking.contract import Floats, Found, Integers, Observed, Rows, Tracker
from saccade.tracking.kalman import Beliefs


@dataclass
class MovingTracks(Rows):
    """Tracks with a filter: `ids`, `labels`, states as in `Beliefs`, and how many frames in a row each was `missed`, the present one included until
    it is found in it."""

    ids: Integers
    labels: Integers
    means: Floats
    covariances: Floats
    missed: Integers

    @property
    def beliefs(self) -> Beliefs:
        """The filter's states."""
        return Beliefs(self.means, self.covariances)

    @beliefs.setter
    def beliefs(self, beliefs: Beliefs) -> None:
        self.means, self.covariances = beliefs.means, beliefs.covariances

    def see(self, rows: Integers, beliefs: Beliefs) -> None:
        """The tracks `rows` are found in this frame, and believed to be at `beliefs` (one row each)."""
        self.means[rows], self.covariances[rows], self.missed[rows] = beliefs.means, beliefs.covariances, 0


class MotionTracker(Tracker):
    """A tracker whose tracks are `Rows`; a subclass gives `_no_tracks` and `_step`."""

    tracks: Rows

    def __init__(self, retain_frames: int) -> None:
        self.retain_frames = retain_frames
        self.reset()

    def update(self, detections: Detections, frame_index: int) -> Detections:
        """See `Tracker.update`."""
        seen = Observed.of(detections, frame_index)
        appearance = self._appearance(detections, seen.rows)
        missing = self._enter(frame_index)
        for passed in range(min(missing, self.retain_frames + 2)):  # after so many frames without detections no track is left
            self.frames += 1
            self._step(seen.keep(seen.rows[:0]), appearance[:0])
            if not len(self.tracks):
                self.frames += missing - passed - 1
                break
        self.frames += 1
        return self._step(seen, appearance).of(detections)

    def _appearance(self, detections: Detections, rows: Integers) -> Floats:
        """The embeddings (n, D) of those `rows`, for trackers that look at them."""
        return np.zeros((len(rows), 0))

    @abstractmethod
    def _step(self, seen: Observed, appearance: Floats) -> Found:
        """Take the next frame's detections, change the tracks, and say which detections belong to which."""

    def _new_ids(self, count: int) -> Integers:
        ids = np.arange(self.next_id, self.next_id + count)
        self.next_id += count
        return ids

    def reset(self) -> None:
        """See `Tracker.reset`."""
        self.frames, self.next_id = 0, 1
        self.last_frame = None
        self.tracks = self._no_tracks()

    @abstractmethod
    def _no_tracks(self) -> Rows:
        """An empty store."""

    def state_dict(self) -> dict[str, Any]:
        """See `Tracker.state_dict`."""
        return {"frames": self.frames, "next_id": self.next_id, "last_frame": self.last_frame, "tracks": self.tracks.tensors()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Tracker.load_state_dict`."""
        self.frames, self.next_id, self.last_frame = state["frames"], state["next_id"], state["last_frame"]
        self.tracks = type(self._no_tracks()).from_tensors(state["tracks"])
