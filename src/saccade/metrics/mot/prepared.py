"""What is left to judge: distractors and regions removed as MOTChallenge's and BDD100K's rules say, ids numbered from 0.

MOTChallenge: found boxes are matched with the true boxes of all classes (overlap 0.5); those that fall to a distractor (person on a vehicle, static
person, distractor, reflection) are removed; then only the counted true boxes stay. BDD100K: a found box without a match that lies by more than half
in a crowd region is removed. Both as in TrackEval.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saccade.metrics.mot.assignment import match
from saccade.metrics.mot.pairs import EPSILON, Pairs, overlapping, share_within
from saccade.metrics.mot.tracks import Regions, Sequence, Tracks, Truth

_GATE = 0.5


@dataclass(frozen=True)
class Prepared:
    """One class of one video: frames and ids (0..count - 1) of the true rows (n,) and the found rows (m,), and the pairs that overlap."""

    num_frames: int
    frame: np.ndarray
    ids: np.ndarray
    num_ids: int
    found_frame: np.ndarray
    found_ids: np.ndarray
    num_found_ids: int
    pairs: Pairs


def prepare(sequence: Sequence, label: int | None = None) -> Prepared:
    """What of `sequence` counts for the class `label`, or for all rows together where it is None.

    Regions count for every class.
    """
    truth, found = sequence.truth.by_frame(), sequence.found.by_frame()
    if label is not None:
        truth, found = truth.take(truth.labels == label), found.take(found.labels == label)
    pairs = overlapping(truth.frame, truth.boxes, found.frame, found.boxes)
    kept_found = ~_excused(truth, found, pairs)
    pairs = pairs.among(truth.counted, kept_found)
    truth, found = truth.take(truth.counted), found.take(kept_found)
    known, ids = np.unique(truth.ids, return_inverse=True)
    known_found, found_ids = np.unique(found.ids, return_inverse=True)
    return Prepared(sequence.num_frames, truth.frame, ids, len(known), found.frame, found_ids, len(known_found), pairs)


def _excused(truth: Truth, found: Tracks, pairs: Pairs) -> np.ndarray:
    """(m,) bool: the found rows that count neither way."""
    excused = np.zeros(len(found), dtype=bool)
    if not truth.distractor.any() and not len(truth.regions.frame):
        return excused
    near = pairs.take(pairs.overlap >= _GATE - EPSILON)
    near = near.take(match(near.truth, near.found, near.overlap, truth.frame, found.frame))
    excused[near.found[truth.distractor[near.truth]]] = True
    if len(truth.regions.frame):
        free = np.ones(len(found), dtype=bool)
        free[near.found] = False
        excused |= free & _within(found, truth.regions)
    return excused


def _within(found: Tracks, regions: Regions) -> np.ndarray:
    """(m,) bool: the found rows that lie by more than half in one region of their frame."""
    inside = np.zeros(len(found), dtype=bool)
    for frame in np.unique(regions.frame):
        rows = slice(*np.searchsorted(found.frame, [frame, frame + 1]))
        of_frame = regions.boxes[regions.frame == frame]
        inside[rows] = (share_within(found.boxes[rows], of_frame) > 0.5 + EPSILON).any(1)
    return inside
