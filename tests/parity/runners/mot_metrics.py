"""Runs the tracking metric cases: HOTA, CLEAR and identity with and without MOTChallenge's preprocessing, and py-motmetrics's columns."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from saccade.metrics.mot.challenge import read_sequence
from saccade.metrics.mot.evaluation import Counts, count, pooled
from saccade.metrics.mot.motmetrics import MotmetricsCounts, motmetrics_counts
from saccade.metrics.mot.prepared import prepare

Outputs = dict[str, np.ndarray]
_CLEAR_NAMES = {name: f"CLR_{name}" for name in ("TP", "FN", "FP", "Re", "Pr", "F1", "Frames")}


def _fields(counts: Counts, of_one_video: bool) -> Outputs:
    clear = counts.clear.figures_of_one_video() if of_one_video else counts.clear.figures()
    return {
        **{f"HOTA/{name}": np.asarray(value) for name, value in counts.hota.figures().items()},
        **{f"CLEAR/{_CLEAR_NAMES.get(name, name)}": np.asarray(value) for name, value in clear.items()},
        **{f"Identity/{name}": np.asarray(value) for name, value in counts.identity.figures().items()},
    }


def run(folder: Path, case: dict[str, Any]) -> Outputs:
    settings, outputs = case["settings"], {}
    lengths, threshold = settings["sequence_lengths"], settings["iou_threshold"]
    for mode in ("preproc", "plain"):
        counts = {}
        for name, length in lengths.items():
            sequence = read_sequence(name, folder / f"gt/{name}.txt", folder / f"results/{name}.txt", num_frames=length, benchmark="MOT17",
                                     preprocess=mode == "preproc")
            counts[name] = count(sequence, iou_threshold=threshold)
            outputs |= {f"{mode}/{name}/{key}": value for key, value in _fields(counts[name], True).items()}
        outputs |= {f"{mode}/COMBINED_SEQ/{key}": value for key, value in _fields(pooled(counts.values()), False).items()}
    total = MotmetricsCounts()
    for name, length in lengths.items():
        files = folder / f"gt/{name}.txt", folder / f"results/{name}.txt"
        sequence = read_sequence(name, *files, num_frames=length, benchmark="MOT17", preprocess=False)
        own = motmetrics_counts(prepare(sequence), threshold)
        total += own
        outputs[f"motmetrics/{name}"] = np.array([own.figures()[column] for column in settings["motmetrics_columns"]])
    outputs["motmetrics/OVERALL"] = np.array([total.figures()[column] for column in settings["motmetrics_columns"]])
    return outputs


RUNNERS: list[tuple[Callable[[dict[str, Any]], bool], Callable[[Path, dict[str, Any]], Outputs]]] = [
    (lambda case: "motmetrics_columns" in case.get("settings", {}), run),
]
