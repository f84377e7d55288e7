"""Which true and found boxes of a frame overlap: intersection over union for a whole video at once, only the pairs above zero kept.

Frames are worked on in blocks that fit the processor's cache, so that thousands of frames need few calls.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EPSILON = float(np.finfo(np.float64).eps)
_BLOCK = 1 << 17  # comparisons at once


@dataclass(frozen=True)
class Pairs:
    """`truth` (k,) and `found` (k,): rows of the two tables that share a frame and overlap; `overlap` (k,) in (0, 1]. Sorted by truth, then found."""

    truth: np.ndarray
    found: np.ndarray
    overlap: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, keep: np.ndarray) -> Pairs:
        """The pairs that a mask or an index names."""
        return Pairs(self.truth[keep], self.found[keep], self.overlap[keep])

    def among(self, truth: np.ndarray, found: np.ndarray) -> Pairs:
        """Those between kept rows, numbered among these; `truth` (n,) and `found` (m,) are masks over the rows."""
        kept = self.take(truth[self.truth] & found[self.found])
        return Pairs((np.cumsum(truth) - 1)[kept.truth], (np.cumsum(found) - 1)[kept.found], kept.overlap)


def overlapping(frame: np.ndarray, boxes: np.ndarray, other_frame: np.ndarray, other_boxes: np.ndarray) -> Pairs:
    """The pairs of rows of two tables sorted by frame: (n,) with (n, 4) boxes and (m,) with (m, 4).

    Boxes without area overlap nothing. As TrackEval's, so that figures are equal in the last bit of the overlap.
    """
    frames, first, last = _ranges(frame)
    starts, ends = np.searchsorted(other_frame, frames), np.searchsorted(other_frame, frames, side="right")
    sizes = (last - first) * (ends - starts)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    at, frames_left = 0, np.flatnonzero(sizes)
    while at < len(frames_left):
        rows = frames_left[at : at + max(1, _BLOCK // int(sizes[frames_left[at]]))]
        while len(rows) > 1 and (last - first)[rows].max() * (ends - starts)[rows].max() * len(rows) > 2 * _BLOCK:
            rows = rows[: len(rows) // 2]
        parts.append(_block(boxes, first[rows], last[rows], other_boxes, starts[rows], ends[rows]))
        at += len(rows)
    if not parts:
        whole = np.zeros(0, dtype=np.int64)
        return Pairs(whole, whole, np.zeros(0))
    truth, found, overlap = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pairs(truth, found, overlap)


def share_within(boxes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """(n, r): the part of each box (n, 4) that lies in each region (r, 4), 0 for boxes without area."""
    inside = _intersection(boxes[:, None], regions[None])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return np.divide(inside, area[:, None], out=np.zeros_like(inside), where=area[:, None] > EPSILON)


def _ranges(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The frame numbers that occur in a sorted column, and where their rows start and end."""
    starts = np.flatnonzero(np.diff(frame, prepend=frame[:1] - 1)) if len(frame) else np.zeros(0, dtype=np.int64)
    return frame[starts], starts, np.append(starts[1:], len(frame)) if len(frame) else starts


def _block(
    boxes: np.ndarray, first: np.ndarray, last: np.ndarray, others: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Overlaps in a block of frames, whose boxes are filled up with boxes without area to the largest number."""
    a, b = _padded(boxes, first, last), _padded(others, starts, ends)  # (f, n, 4), (f, m, 4)
    # The horizontal extents of most boxes are apart, which costs two comparisons.
    beside = (a[:, :, None, 0] < b[:, None, :, 2]) & (b[:, None, :, 0] < a[:, :, None, 2])
    flat = np.flatnonzero(beside)
    frame, rest = np.divmod(flat, beside.shape[1] * beside.shape[2])
    row, column = np.divmod(rest, beside.shape[2])
    own, other = a[frame, row], b[frame, column]
    shared = _intersection(own, other)
    area, other_area = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (own, other))
    union = area + other_area - shared
    valid = (area > EPSILON) & (other_area > EPSILON) & (union > EPSILON)
    overlap = np.divide(shared, union, out=np.zeros_like(shared), where=valid)
    kept = overlap > 0
    return (first[frame] + row)[kept], (starts[frame] + column)[kept], overlap[kept]


def _padded(boxes: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    counts = last - first
    index = first[:, None] + np.arange(counts.max())
    return np.where((index < last[:, None])[..., None], boxes[np.minimum(index, len(boxes) - 1)], 0.0)


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    result: np.ndarray = np.maximum(width, 0) * np.maximum(height, 0)
    return result
