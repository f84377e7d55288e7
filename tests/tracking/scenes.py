"""Scripted sequences for trackers: objects that cross, hide behind each other, enter, leave, jitter and are missed, with clutter and empty frames."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch

from saccade.structures import Detections

Array = np.ndarray[Any, Any]


def walk(
    seed: int, frames: int = 60, objects: int = 8, size: tuple[int, int] = (400, 300), noise: float = 1.0, dimension: int = 8,
) -> list[dict[str, Array]]:
    """For each frame `dets` (n, 5), `truth` (n,) the object's number or -1 for clutter, and `embeddings` (n, `dimension`).

    Objects move straight at up to four pixels a frame and turn back at the border; the score falls with how much of an object is hidden by one in
    front (of a higher number), and one that is nearly hidden is not found. Frames 20 and 21 are empty.
    """
    draw = np.random.default_rng(seed)
    width, height = size
    place = draw.uniform([40, 40], [width - 40, height - 40], (objects, 2))
    speed = draw.uniform(-4, 4, (objects, 2))
    extent = draw.uniform([20, 40], [40, 80], (objects, 2))
    look = draw.normal(size=(objects, dimension))
    begin = draw.integers(0, 15, objects)
    sequence = []
    for frame in range(frames):
        place += speed
        speed = np.where((place < 20) | (place > np.array(size) - 20), -speed, speed)
        boxes = np.concatenate([place - extent / 2, place + extent / 2], 1)
        shown = [i for i in range(objects) if begin[i] <= frame]
        rows = []
        for i in shown:
            hidden = max((_covered(boxes[i], boxes[j]) for j in shown if j > i), default=0.0)
            score = draw.uniform(0.85, 0.99) - 0.8 * hidden
            if score > 0.15 and draw.random() > 0.05:
                rows.append(([*(boxes[i] + draw.normal(0, noise, 4)), score], i, look[i] + draw.normal(0, 0.2, dimension)))
        for _ in range(draw.poisson(0.5)):
            x, y = draw.uniform([0, 0], [width - 50, height - 80])
            rows.append(([x, y, x + draw.uniform(20, 50), y + draw.uniform(40, 80), draw.uniform(0.1, 0.75)], -1, draw.normal(size=dimension)))
        if frame in (20, 21):
            rows = []
        order = draw.permutation(len(rows))
        sequence.append({
            "dets": np.array([rows[i][0] for i in order]).reshape(-1, 5), "truth": np.array([rows[i][1] for i in order], dtype=np.int64),
            "embeddings": np.array([rows[i][2] for i in order]).reshape(-1, dimension),
        })
    return sequence


def _covered(box: Array, other: Array) -> float:
    w, h = min(box[2], other[2]) - max(box[0], other[0]), min(box[3], other[3]) - max(box[1], other[1])
    return max(0.0, w) * max(0.0, h) / ((box[2] - box[0]) * (box[3] - box[1]))


def detections(dets: Array, embeddings: Array | None = None, labels: list[int] | None = None) -> Detections:
    """A frame as the house's type, in double precision."""
    values = torch.from_numpy(np.asarray(dets, dtype=np.float64).reshape(-1, 5))
    known = torch.zeros(len(values), dtype=torch.int64) if labels is None else torch.tensor(labels, dtype=torch.int64)
    return Detections(values[:, :4], values[:, 4], known, embeddings=None if embeddings is None else torch.from_numpy(embeddings))


def table(found: Detections) -> Array:
    """(n, 5) of x1, y1, x2, y2, id, by id."""
    assert found.track_ids is not None
    rows = torch.cat([found.boxes.double(), found.track_ids[:, None].double()], 1).numpy()
    return rows[rows[:, 4].argsort()]
