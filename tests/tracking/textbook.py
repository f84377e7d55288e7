"""SORT, ByteTrack, OC-SORT and DeepSORT as their papers and published codes tell them: one object a track, one loop a step, no shared code.

A frame is an array (n, 5) of x1, y1, x2, y2, score; `update` gives rows (x1, y1, x2, y2, id), by id. Slow and plain on purpose: what is tested is
held against this.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

Array = np.ndarray[Any, Any]


class Kalman:
    """The filter of any textbook, for one object, with Joseph's form of the update."""

    def __init__(self, x: Array, p: Array, f: Array, h: Array) -> None:
        self.x, self.p, self.f, self.h = x.astype(float), p.astype(float), f, h

    def predict(self, q: Array) -> None:
        self.x = self.f @ self.x
        self.p = self.f @ self.p @ self.f.T + q

    def update(self, z: Array, r: Array) -> None:
        s = self.h @ self.p @ self.h.T + r
        k = self.p @ self.h.T @ np.linalg.inv(s)
        self.x = self.x + k @ (z - self.h @ self.x)
        left = np.eye(len(self.x)) - k @ self.h
        self.p = left @ self.p @ left.T + k @ r @ k.T


def iou(a: Array, b: Array) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / union if union > 0 else 0.0


def table(rows: list[Any], columns: list[Any], of: Any) -> Array:
    values = np.zeros((len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            values[i, j] = of(row, column)
    return values


def sort_filter(box: Array) -> Kalman:
    f = np.eye(7)
    for i in range(3):
        f[i, i + 4] = 1
    p = np.diag([10.0, 10, 10, 10, 10000, 10000, 10000])
    return Kalman(np.concatenate([area_state(box), np.zeros(3)]), p, f, np.eye(4, 7))


def area_state(box: Array) -> Array:
    w, h = box[2] - box[0], box[3] - box[1]
    return np.array([box[0] + w / 2, box[1] + h / 2, w * h, w / h])


def area_box(x: Array) -> Array:
    w = np.sqrt(x[2] * x[3])
    h = x[2] / w
    return np.array([x[0] - w / 2, x[1] - h / 2, x[0] + w / 2, x[1] + h / 2])


SORT_Q, SORT_R = np.diag([1.0, 1, 1, 1, 0.01, 0.01, 0.0001]), np.diag([1.0, 1, 10, 10])


class SortTrack:
    def __init__(self, box: Array, number: int) -> None:
        self.kalman, self.number = sort_filter(box), number
        self.since, self.streak, self.age = 0, 0, 0

    def predict(self) -> Array:
        if self.kalman.x[6] + self.kalman.x[2] <= 0:
            self.kalman.x[6] = 0
        self.kalman.predict(SORT_Q)
        self.age += 1
        if self.since > 0:
            self.streak = 0
        self.since += 1
        return area_box(self.kalman.x)

    def update(self, box: Array) -> None:
        self.since = 0
        self.streak += 1
        self.kalman.update(area_state(box), SORT_R)


def sort_pairs(overlap: Array, bonus: Array, least: float) -> list[tuple[int, int]]:
    if min(overlap.shape) == 0:
        return []
    above = (overlap > least).astype(int)
    if above.sum(1).max() == 1 and above.sum(0).max() == 1:
        pairs = list(zip(*np.where(above), strict=True))
    else:
        pairs = list(zip(*linear_sum_assignment(-(overlap + bonus)), strict=True))
    return [(i, j) for i, j in pairs if overlap[i, j] >= least]


class Sort:
    def __init__(self, max_age: int = 1, min_hits: int = 3, least: float = 0.3) -> None:
        self.max_age, self.min_hits, self.least = max_age, min_hits, least
        self.tracks: list[SortTrack] = []
        self.frame = self.count = 0

    def update(self, dets: Array) -> Array:
        self.frame += 1
        places = [track.predict() for track in self.tracks]
        overlap = table(list(dets), places, iou)
        pairs = sort_pairs(overlap, np.zeros_like(overlap), self.least)
        for d, t in pairs:
            self.tracks[t].update(dets[d])
        for d in range(len(dets)):
            if d not in [i for i, _ in pairs]:
                self.count += 1
                self.tracks.append(SortTrack(dets[d], self.count))
        rows = [
            [*area_box(t.kalman.x), t.number] for t in self.tracks if t.since < 1 and (t.streak >= self.min_hits or self.frame <= self.min_hits)
        ]
        self.tracks = [t for t in self.tracks if t.since <= self.max_age]
        return np.array(sorted(rows, key=lambda r: r[4])).reshape(-1, 5)


def centre(box: Array) -> Array:
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])


def direction(a: Array, b: Array) -> Array:
    step = centre(b) - centre(a)
    return step / (np.hypot(*step) + 1e-6)


class OcTrack(SortTrack):
    """`quirks`: as published, the first box is no observation, and the last box of a gap is taken in twice."""

    def __init__(self, box: Array, number: int, delta: int, quirks: bool) -> None:
        super().__init__(box, number)
        self.delta, self.quirks = delta, quirks
        self.seen: dict[int, Array] = {} if quirks else {0: box[:4]}
        self.speed: Array | None = None
        self.frozen: tuple[Array, Array] | None = None

    def previous(self) -> Array | None:
        if not self.seen:
            return None
        for back in range(self.delta, 0, -1):
            if self.age - back in self.seen:
                return self.seen[self.age - back]
        return self.seen[max(self.seen)]

    @property
    def last(self) -> Array | None:
        return self.seen[max(self.seen)] if self.seen else None

    def miss(self) -> None:
        if self.since == 1 and self.seen:
            self.frozen = self.kalman.x.copy(), self.kalman.p.copy()

    def update(self, box: Array) -> None:
        before = self.previous()
        if before is not None:
            self.speed = direction(before, box)
        again = self.quirks
        if self.since > 1 and self.frozen is not None:
            self.kalman.x, self.kalman.p = self.frozen
            start, gap = self.last, self.since
            assert start is not None
            a = np.array([*centre(start), start[2] - start[0], start[3] - start[1]])
            b = np.array([*centre(box), box[2] - box[0], box[3] - box[1]])
            for i in range(1, gap + 1):
                x, y, w, h = a + i * (b - a) / gap
                self.kalman.update(np.array([x, y, w * h, w / h]), SORT_R)
                if i < gap:
                    self.kalman.predict(SORT_Q)
        else:
            again = True
        self.frozen = None
        if again:
            self.kalman.update(area_state(box), SORT_R)
        self.seen[self.age] = box[:4]
        self.since = 0
        self.streak += 1


class OcSort:
    def __init__(
        self, threshold: float = 0.6, max_age: int = 30, min_hits: int = 3, least: float = 0.3, delta: int = 3, inertia: float = 0.2,
        quirks: bool = False,
    ) -> None:
        self.threshold, self.max_age, self.min_hits, self.least = threshold, max_age, min_hits, least
        self.delta, self.inertia, self.quirks = delta, inertia, quirks
        self.tracks: list[OcTrack] = []
        self.frame = self.count = 0

    def update(self, dets: Array) -> Array:
        self.frame += 1
        dets = dets[dets[:, 4] > self.threshold]
        places = [track.predict() for track in self.tracks]
        overlap = table(list(dets), places, iou)
        pairs = sort_pairs(overlap, table(list(dets), self.tracks, self._agreement), self.least)
        left = [d for d in range(len(dets)) if d not in [i for i, _ in pairs]]
        lost = [t for t in range(len(self.tracks)) if t not in [j for _, j in pairs]]
        if left and lost:
            none = np.full(4, -1.0)
            old = [none if self.tracks[t].last is None else self.tracks[t].last for t in lost]
            overlap = table([dets[d] for d in left], old, iou)
            if overlap.max() > self.least:
                pairs += [(left[i], lost[j]) for i, j in zip(*linear_sum_assignment(-overlap), strict=True) if overlap[i, j] >= self.least]
        for d, t in pairs:
            self.tracks[t].update(dets[d])
        for t, track in enumerate(self.tracks):
            if t not in [j for _, j in pairs]:
                track.miss()
        found = {t: dets[d][:4] for d, t in pairs}
        for d in range(len(dets)):
            if d not in [i for i, _ in pairs]:
                self.count += 1
                found[len(self.tracks)] = dets[d][:4]
                self.tracks.append(OcTrack(dets[d], self.count, self.delta, self.quirks))
        rows = [
            [*found[i], t.number] for i, t in enumerate(self.tracks)
            if t.since < 1 and (t.streak >= self.min_hits or self.frame <= self.min_hits)
        ]
        self.tracks = [t for t in self.tracks if t.since <= self.max_age]
        return np.array(sorted(rows, key=lambda r: r[4])).reshape(-1, 5)

    def _agreement(self, det: Array, track: OcTrack) -> float:
        before = track.previous()
        if before is None or track.speed is None:
            return 0.0
        cosine = float(np.clip(direction(before, det) @ track.speed, -1, 1))
        return (np.pi / 2 - abs(np.arccos(cosine))) / np.pi * self.inertia * det[4]


def height_state(box: Array) -> Array:
    w, h = box[2] - box[0], box[3] - box[1]
    return np.array([box[0] + w / 2, box[1] + h / 2, w / h, h])


def height_box(x: Array) -> Array:
    w, h = x[2] * x[3], x[3]
    return np.array([x[0] - w / 2, x[1] - h / 2, x[0] + w / 2, x[1] + h / 2])


def height_filter(box: Array) -> Kalman:
    f = np.eye(8)
    for i in range(4):
        f[i, i + 4] = 1
    x = np.concatenate([height_state(box), np.zeros(4)])
    h = x[3]
    std = [h / 10, h / 10, 1e-2, h / 10, h / 16, h / 16, 1e-5, h / 16]
    return Kalman(x, np.diag(np.square(std)), f, np.eye(4, 8))


def height_predict(kalman: Kalman) -> None:
    h = kalman.x[3]
    kalman.predict(np.diag(np.square([h / 20, h / 20, 1e-2, h / 20, h / 160, h / 160, 1e-5, h / 160])))


def height_noise(kalman: Kalman) -> Array:
    h = kalman.x[3]
    return np.diag(np.square([h / 20, h / 20, 1e-1, h / 20]))


def limited_pairs(costs: Array, limit: float) -> list[tuple[int, int]]:
    """What lapjv(extend_cost=True, cost_limit=limit) solves: the matrix is extended so that staying alone costs half the limit."""
    n, m = costs.shape
    if n == 0 or m == 0:
        return []
    wide = np.full((n + m, n + m), limit / 2)
    wide[n:, m:] = 0
    wide[:n, :m] = np.minimum(costs, 1e6)
    return [(i, j) for i, j in zip(*linear_sum_assignment(wide), strict=True) if i < n and j < m]


class ByteTrackTrack:
    def __init__(self, box: Array, number: int, frame: int) -> None:
        self.kalman, self.number = height_filter(box), number
        self.tracked, self.activated = True, frame == 1
        self.start = self.end = frame

    @property
    def box(self) -> Array:
        return height_box(self.kalman.x)

    def update(self, box: Array, frame: int) -> None:
        self.kalman.update(height_state(box), height_noise(self.kalman))
        self.tracked = self.activated = True
        self.end = frame


class Byte:
    def __init__(
        self, high: float = 0.6, low: float = 0.1, init: float = 0.7, limits: tuple[float, float, float] = (0.9, 0.5, 0.7), buffer: int = 30,
        fuse: bool = True,
    ) -> None:
        self.high, self.low, self.init, self.limits, self.buffer, self.fuse = high, low, init, limits, buffer, fuse
        self.tracks: list[ByteTrackTrack] = []
        self.frame = self.count = 0

    def update(self, dets: Array) -> Array:
        self.frame += 1
        sure = [d for d in dets if d[4] > self.high]
        unsure = [d for d in dets if self.low < d[4] <= self.high]
        unconfirmed = [t for t in self.tracks if not t.activated]
        pool = [t for t in self.tracks if t.activated and t.tracked] + [t for t in self.tracks if t.activated and not t.tracked]
        for t in pool:
            if not t.tracked:
                t.kalman.x[7] = 0
            height_predict(t.kalman)
        matched = self._round(pool, sure, self.limits[0], self.fuse)
        rest = [t for t in pool if t not in matched and t.tracked]
        for t in rest:
            t.tracked = False
        left = [d for d in sure if not any(d is o for o in self.taken)]
        rescued = self._round(rest, unsure, self.limits[1], False)
        for t in rescued:
            assert t.tracked
        confirmed = self._round(unconfirmed, left, self.limits[2], self.fuse)
        self.tracks = [t for t in self.tracks if t.activated or t in confirmed]
        for d in left:
            if not any(d is o for o in self.taken) and d[4] >= self.init:
                self.count += 1
                self.tracks.append(ByteTrackTrack(d, self.count, self.frame))
        self.tracks = [t for t in self.tracks if t.tracked or self.frame - t.end <= self.buffer]
        self._remove_duplicates()
        rows = [[*t.box, t.number] for t in self.tracks if t.tracked and t.activated]
        return np.array(sorted(rows, key=lambda r: r[4])).reshape(-1, 5)

    def _round(self, tracks: list[ByteTrackTrack], dets: list[Array], limit: float, fuse: bool) -> list[ByteTrackTrack]:
        costs = table(tracks, dets, lambda t, d: 1 - iou(t.box, d) * (d[4] if fuse else 1.0))
        pairs = limited_pairs(costs, limit)
        self.taken = [dets[j] for _, j in pairs]
        for i, j in pairs:
            tracks[i].update(dets[j], self.frame)
        return [tracks[i] for i, _ in pairs]

    def _remove_duplicates(self) -> None:
        drop: list[ByteTrackTrack] = []
        for a in [t for t in self.tracks if t.tracked]:
            for b in [t for t in self.tracks if not t.tracked]:
                if 1 - iou(a.box, b.box) < 0.15:
                    drop.append(b if a.end - a.start > b.end - b.start else a)
        self.tracks = [t for t in self.tracks if t not in drop]


class DeepTrack:
    def __init__(self, box: Array, feature: Array, number: int) -> None:
        self.kalman, self.number, self.features = height_filter(box), number, [feature]
        self.hits, self.since, self.confirmed = 1, 0, False


class DeepSort:
    def __init__(self, distance: float = 0.2, budget: int = 100, max_iou_distance: float = 0.7, n_init: int = 3, max_age: int = 30) -> None:
        self.distance, self.budget, self.max_iou_distance, self.n_init, self.max_age = distance, budget, max_iou_distance, n_init, max_age
        self.tracks: list[DeepTrack] = []
        self.count = 0

    def update(self, dets: Array, features: Array) -> Array:
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
        for t in self.tracks:
            height_predict(t.kalman)
            t.since += 1
        free, pairs = list(range(len(dets))), {}
        for age in range(1, self.max_age + 1):
            level = [t for t in self.tracks if t.confirmed and t.since == age]
            pairs |= self._solve(level, free, table(level, free, lambda t, d: self._appearance(t, dets[d], features[d])), self.distance)
        rest = [t for t in self.tracks if t not in pairs and (not t.confirmed or t.since == 1)]
        pairs |= self._solve(rest, free, table(rest, free, lambda t, d: 1 - iou(height_box(t.kalman.x), dets[d])), self.max_iou_distance)
        for t, d in pairs.items():
            t.kalman.update(height_state(dets[d]), height_noise(t.kalman))
            t.features = [*t.features, features[d]][-self.budget:]
            t.hits, t.since = t.hits + 1, 0
            t.confirmed = t.confirmed or t.hits >= self.n_init
        self.tracks = [t for t in self.tracks if t in pairs or (t.confirmed and t.since <= self.max_age)]
        for d in free:
            self.count += 1
            self.tracks.append(DeepTrack(dets[d], features[d], self.count))
        rows = [[*height_box(t.kalman.x), t.number] for t in self.tracks if t.confirmed and t.since == 0]
        return np.array(sorted(rows, key=lambda r: r[4])).reshape(-1, 5)

    def _appearance(self, track: DeepTrack, det: Array, feature: Array) -> float:
        k = track.kalman
        off = height_state(det) - k.x[:4]
        if off @ np.linalg.inv(k.p[:4, :4] + height_noise(k)) @ off > 9.4877:
            return 1e5
        return float(min(1 - f @ feature for f in track.features))

    def _solve(self, tracks: list[DeepTrack], free: list[int], costs: Array, limit: float) -> dict[DeepTrack, int]:
        if costs.size == 0:
            return {}
        costs = np.where(costs > limit, limit + 1e-5, costs)
        found = {tracks[i]: free[j] for i, j in zip(*linear_sum_assignment(costs), strict=True) if costs[i, j] <= limit}
        for d in found.values():
            free.remove(d)
        return found
