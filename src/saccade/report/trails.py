"""Where tracks came from, drawn on the frames of a video: a line from each object's feet back over its last frames, thinner the older it is."""
from __future__ import annotations

from collections import deque

import numpy as np
import torch
from PIL import Image, ImageDraw

from saccade.report.drawing import Picture, Style, enlargement
from saccade.report.palette import PALETTE
from saccade.structures import Detections

Point = tuple[float, float]


class Trails:
    """The tails of one video's tracks; `length` frames long at most. Tracks that are not seen for so long are forgotten."""

    def __init__(self, length: int = 40) -> None:
        self.length = length
        self._frame = 0
        self._points: dict[int, deque[tuple[int, Point]]] = {}

    def add(self, found: Detections) -> None:
        """The next frame's objects, which have `track_ids`."""
        self._frame += 1
        assert found.track_ids is not None
        boxes = found.boxes.detach().cpu().float()
        feet = torch.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]], 1)
        for track, (x, y) in zip(found.track_ids.tolist(), feet.tolist(), strict=True):
            self._points.setdefault(track, deque()).append((self._frame, (x, y)))
        for points in self._points.values():
            while points and points[0][0] <= self._frame - self.length:
                points.popleft()
        self._points = {track: points for track, points in self._points.items() if points}

    def draw(self, drawn: Picture, height: int, width: int) -> Picture:
        """The tails on `drawn`, which `drawing.draw` made of a picture of `height` x `width` pixels; a new picture."""
        factor, line = enlargement(height, width), Style.for_size(*drawn.shape[:2]).line
        image = Image.fromarray(drawn)
        brush = ImageDraw.Draw(image)
        for track, points in self._points.items():
            places = [(x * factor, y * factor) for _, (x, y) in points]
            for (frame, _), start, end in zip(points, places, places[1:], strict=False):
                age = (self._frame - frame) / self.length
                brush.line((start, end), fill=PALETTE[track % len(PALETTE)], width=max(1, round((1 - age) * 1.5 * line)))
        return np.asarray(image).copy()
