"""B9: association, that is everything a tracker does outside the network, on 100 frames of 50 objects that cross, hide and are missed, with clutter.

Quasi-dense association is held against its published structure: one dictionary entry a track, memory gathered anew in every frame, one step a
detection. SORT, ByteTrack and OC-SORT are held against the PyPI package `trackers` (Roboflow) where it is installed, and against the plain
implementations of tests/tracking/textbook.py, whose ids must be equal before anything is timed. The sides take turns in one process, one thread.
Goal: 2 ms a frame, and no slower than the peer.

    python benchmarks/b09_association.py [--objects 50] [--frames 100] [--repeats 7]
"""
from __future__ import annotations

import argparse
import importlib.metadata
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from saccade.structures import Detections
from saccade.tracking.byte_track import ByteTrack
from saccade.tracking.oc_sort import OCSORT
from saccade.tracking.quasi_dense import QuasiDense
from saccade.tracking.sort import SORT
from tracking import scenes, textbook

GOAL = 2.0  # milliseconds
Frame = dict[str, Any]
Step = Callable[[Frame, int], list[int]]  # the ids of a frame


class PublishedQuasiDense:
    """The structure of mmtracking's QuasiDenseTracker with its default settings."""

    def __init__(self) -> None:
        self.tracks: dict[int, dict[str, Any]] = {}
        self.backdrops: list[dict[str, torch.Tensor]] = []
        self.count = 0

    def update(self, found: Detections, frame: int) -> list[int]:
        """Ids of the frame's tracked detections, ascending."""
        assert found.embeddings is not None
        order = found.scores.sort(descending=True).indices
        boxes, scores, labels, embeds = found.boxes[order], found.scores[order], found.labels[order], found.embeddings[order]
        iou = self._iou(boxes, boxes)
        valid = torch.ones(len(boxes))
        for i in range(1, len(boxes)):
            limit = 0.3 if scores[i] < 0.5 else 0.7
            if (iou[i, :i] > limit).any():
                valid[i] = 0
        keep = valid == 1
        boxes, scores, labels, embeds = boxes[keep], scores[keep], labels[keep], embeds[keep]
        ids = torch.full((len(boxes),), -1, dtype=torch.long)
        if self.tracks and len(boxes):
            memory, known, numbers = self._memory()
            products = embeds @ memory.t()
            similarity = (products.softmax(1) + products.softmax(0)) / 2 * (labels.view(-1, 1) == known.view(1, -1)).float()
            for i in range(len(boxes)):
                value, column = similarity[i].max(0)
                if value > 0.5 and numbers[column] > -1:
                    if scores[i] > 0.5:
                        ids[i] = numbers[column]
                        similarity[:i, column] = 0
                        similarity[i + 1 :, column] = 0
                    elif value > 0.5:
                        ids[i] = -2
        new = (ids == -1) & (scores > 0.8)
        count = int(new.sum())
        ids[new] = torch.arange(self.count, self.count + count)
        self.count += count
        self._update(ids, boxes, labels, embeds, frame)
        return sorted(ids[ids > -1].tolist())

    def _update(self, ids: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor, embeds: torch.Tensor, frame: int) -> None:
        for number, box, label, embed in zip(ids[ids > -1], boxes[ids > -1], labels[ids > -1], embeds[ids > -1], strict=True):
            key = int(number)
            if key in self.tracks:
                track = self.tracks[key]
                track.update(box=box, embed=0.2 * track["embed"] + 0.8 * embed, label=label, last=frame)
            else:
                self.tracks[key] = {"box": box, "embed": embed, "label": label, "last": frame}
        rest = torch.nonzero(ids == -1).squeeze(1)
        iou = self._iou(boxes[rest], boxes)
        kept = [int(row) for i, row in enumerate(rest) if not (iou[i, :row] > 0.3).any()]
        self.backdrops = [{"embeds": embeds[kept], "labels": labels[kept]}]
        self.tracks = {key: track for key, track in self.tracks.items() if frame - track["last"] < 10}

    def _memory(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        embeds, labels, numbers = [], [], []
        for key, track in self.tracks.items():
            embeds.append(track["embed"][None])
            labels.append(track["label"].view(1))
            numbers.append(key)
        ids = torch.tensor(numbers)
        for backdrop in self.backdrops:
            ids = torch.cat([ids, torch.full((len(backdrop["embeds"]),), -1)])
            embeds.append(backdrop["embeds"])
            labels.append(backdrop["labels"])
        return torch.cat(embeds), torch.cat(labels), ids

    @staticmethod
    def _iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        from torchvision.ops import box_iou

        return box_iou(first, second)


def make_frames(frames: int, objects: int) -> list[Frame]:
    """Frames with the detections as this package, the textbook and supervision take them."""
    import supervision

    made = []
    for frame in scenes.walk(0, frames=frames, objects=objects, size=(1920, 1080), dimension=256):
        dets, count = frame["dets"], len(frame["dets"])
        made.append({
            "found": Detections(
                torch.from_numpy(dets[:, :4]).float(), torch.from_numpy(dets[:, 4]).float(), torch.zeros(count, dtype=torch.int64),
                embeddings=torch.from_numpy(frame["embeddings"]).float(),
            ),
            "dets": dets,
            "supervision": supervision.Detections(dets[:, :4], confidence=dets[:, 4], class_id=np.zeros(count, dtype=int)),
        })
    return made


def of_ours(tracker: Any) -> Step:
    """`update` of a tracker of this package."""
    def step(frame: Frame, index: int) -> list[int]:
        return sorted(tracker.update(frame["found"], index).track_ids.tolist())

    return step


def of_textbook(tracker: Any) -> Step:
    """`update` of the plain implementation."""
    def step(frame: Frame, index: int) -> list[int]:
        return [int(row[4]) for row in tracker.update(frame["dets"])]

    return step


def of_package(tracker: Any) -> Step:
    """`update` of the package `trackers`."""
    def step(frame: Frame, index: int) -> list[int]:
        return sorted(tracker.update(frame["supervision"]).tracker_id.tolist())

    return step


def sides() -> dict[str, dict[str, Callable[[], Step]]]:
    """For each tracker what is measured; the first is ours, the second must give equal ids."""
    found: dict[str, dict[str, Callable[[], Step]]] = {
        "QuasiDense": {
            "saccade": lambda: of_ours(QuasiDense(reference_quirks=True)),
            "published structure": lambda: (lambda tracker: lambda frame, index: tracker.update(frame["found"], index))(PublishedQuasiDense()),
        },
        "SORT": {"saccade": lambda: of_ours(SORT(score_threshold=None)), "textbook": lambda: of_textbook(textbook.Sort())},
        "ByteTrack": {"saccade": lambda: of_ours(ByteTrack()), "textbook": lambda: of_textbook(textbook.Byte())},
        "OC-SORT": {
            "saccade": lambda: of_ours(OCSORT(score_threshold=0.6, init_threshold=0.6)), "textbook": lambda: of_textbook(textbook.OcSort()),
        },
    }
    try:
        import trackers
    except ImportError:
        print("the package `trackers` is not installed, so it is left out (pip install trackers)")
        return found
    version = f"trackers {importlib.metadata.version('trackers')}"
    found["SORT"][version] = lambda: of_package(trackers.SORTTracker())
    found["ByteTrack"][version] = lambda: of_package(trackers.ByteTrackTracker())
    found["OC-SORT"][version] = lambda: of_package(trackers.OCSORTTracker())
    return found


def main() -> None:
    """Parse the arguments, check and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, default in (("objects", 50), ("frames", 100), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    frames = make_frames(arguments.frames, arguments.objects)
    boxes = sum(len(f["dets"]) for f in frames) / len(frames)
    print(f"{len(frames)} frames, {arguments.objects} objects, {boxes:.0f} detections a frame; one thread; milliseconds a frame")
    for name, makers in sides().items():
        ours, peer, *_ = [[step(frame, i) for i, frame in enumerate(frames)] for step in (make() for make in makers.values())]
        assert ours == peer, f"{name}: the ids differ"
        times: dict[str, list[float]] = {side: [] for side in makers}
        for _ in range(arguments.repeats):
            for side, make in makers.items():
                step = make()
                for index, frame in enumerate(frames):
                    begin = time.perf_counter()
                    step(frame, index)
                    times[side].append((time.perf_counter() - begin) * 1e3)
        median = {side: statistics.median(values) for side, values in times.items()}
        mine = next(iter(median.values()))
        print(f"{name} ({'within' if mine <= GOAL else 'ABOVE'} the goal of {GOAL:.0f} ms)")
        for side, values in times.items():
            slowest = sorted(values)[int(len(values) * 0.95)]
            print(f"  {side:<22} median {median[side]:7.3f}  95 % below {slowest:7.3f}  fastest {min(values):7.3f}  {median[side] / mine:5.1f} x")


if __name__ == "__main__":
    main()
