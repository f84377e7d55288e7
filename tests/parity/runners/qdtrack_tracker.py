"""Runs the case qdtrack_tracker: association over scripted sequences, under the settings that the case names."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.structures import Detections
from saccade.tracking.quasi_dense import QuasiDense

Case = dict[str, Any]
Outputs = dict[str, np.ndarray]

NAMES = {
    "init_score_thr": "init_threshold", "obj_score_thr": "score_threshold", "match_score_thr": "match_threshold",
    "memo_tracklet_frames": "memory_frames", "memo_backdrop_frames": "backdrop_frames", "memo_momentum": "momentum",
    "nms_conf_thr": "weak_match_threshold", "nms_backdrop_iou_thr": "backdrop_iou", "nms_class_iou_thr": "duplicate_iou",
    "with_cats": "within_class", "match_metric": "match_metric",
}


def frames_of(stored: dict[str, np.ndarray], sequence: str) -> list[Detections]:
    """The detections of each frame of a stored sequence."""
    boxes, embeddings, labels = (torch.from_numpy(stored[f"in_{sequence}_{name}"]) for name in ("boxes", "embeddings", "labels"))
    every = Detections(boxes[:, :4], boxes[:, 4], labels.long(), embeddings=embeddings)
    ends = stored[f"in_{sequence}_counts"].cumsum().tolist()
    return [every[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def follow(tracker: QuasiDense, frames: list[Detections]) -> Outputs:
    """What the case stores of one sequence under one setting."""
    rows, ids, tracks, backdrops = [], [], [], []
    for index, detections in enumerate(frames):
        row, track, _ = tracker.associate(detections, index)
        rows.append(row)
        ids.append(track)
        tracks.append(len(tracker.ids))
        backdrops.append(sum(len(known) for known, _ in tracker.backdrops))
    order = tracker.ids.argsort()
    return {
        "ids": np.concatenate(ids), "rows": np.concatenate(rows), "counts": np.array([len(r) for r in rows]), "tracks": np.array(tracks),
        "backdrops": np.array(backdrops), "created": np.array(tracker.next_id), "alive": tracker.ids[order],
        "memory": tracker.embeddings.numpy()[order],
    }


def run(folder: Path, case: Case) -> Outputs:
    """All sequences under all settings."""
    with np.load(folder / "golden.npz") as golden:
        stored = {name: golden[name] for name in golden.files if name.startswith("in_")}
    sequences = sorted(name.removeprefix("in_").removesuffix("_boxes") for name in stored if name.endswith("_boxes"))
    outputs: Outputs = {}
    for setting, values in case["settings"].items():
        arguments = {NAMES[name]: value for name, value in values.items()}
        for sequence in sequences:
            found = follow(QuasiDense(**arguments, reference_quirks=True), frames_of(stored, sequence))
            outputs |= {f"{sequence}_{setting}_{name}": value for name, value in found.items()}
    return outputs


RUNNERS: list[tuple[Callable[[Case], bool], Callable[[Path, Case], Outputs]]] = [
    (lambda case: any("memo_tracklet_frames" in values for values in case.get("settings", {}).values() if isinstance(values, dict)), run),
]
