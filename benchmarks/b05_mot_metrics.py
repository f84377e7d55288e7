"""B5: tracking figures against TrackEval, from files to HOTA, CLEAR and identity with MOTChallenge's preprocessing.

Two made-up sets on disk: three videos of 600 frames with 40 objects each, and a crowd of 200 objects over 300 frames; results with noise, misses,
false alarms, new and exchanged ids. Both sides read the files and compute everything for each video and pooled; they alternate, the figures are
compared, then the times are printed. Goal: at least 5 times as fast.

    python benchmarks/b05_mot_metrics.py [--repeats 5]
"""
from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

try:
    import trackeval
except ModuleNotFoundError:  # it would bring a second OpenCV beside the development one
    print("B5 needs TrackEval: pip install --no-deps trackeval tabulate")
    raise SystemExit(0) from None

from saccade.metrics.mot.challenge import read_sequence
from saccade.metrics.mot.evaluation import Counts, count, pooled

NAMES = ("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDF1", "IDSW", "FP", "FN", "MT", "ML", "Frag")


def write_video(root: Path, name: str, frames: int, objects: int, extent: float, seed: int) -> None:
    """Truth and results of one video; every twentieth object is a distractor."""
    random = np.random.default_rng(seed)
    place, speed = random.uniform(0, extent, (objects, 2)), random.normal(0, 2, (objects, 2))
    size = random.uniform(30, 60, (objects, 1)) * np.array([1.0, 2.2])
    ids, newest = np.arange(1, objects + 1), objects
    classes = np.where(np.arange(objects) % 20 == 19, 8, 1)
    truth, found = [], []
    for frame in range(1, frames + 1):
        place = place + speed
        speed = np.where((place < 0) | (place > extent), -speed, speed)
        for i in np.flatnonzero(random.random(objects) < 0.01):
            newest += 1
            ids[i] = newest
        if random.random() < 0.2:
            i, j = random.choice(objects, 2, replace=False)
            ids[[i, j]] = ids[[j, i]]
        noisy = np.concatenate([place, size], 1) + random.normal(0, 3, (objects, 4))
        for i in range(objects):
            x, y = place[i]
            truth.append(f"{frame},{i + 1},{x:.2f},{y:.2f},{size[i, 0]:.2f},{size[i, 1]:.2f},{int(classes[i] == 1)},{classes[i]},1\n")
        for i in np.flatnonzero(random.random(objects) > 0.1):
            found.append(f"{frame},{ids[i]},{noisy[i, 0]:.3f},{noisy[i, 1]:.3f},{noisy[i, 2]:.3f},{noisy[i, 3]:.3f},0.9,-1,-1,-1\n")
        newest += 1
        x, y = random.uniform(0, extent, 2)
        found.append(f"{frame},{newest},{x:.3f},{y:.3f},40,90,0.5,-1,-1,-1\n")
    for file, lines in ((root / f"gt/MOT17-train/{name}/gt/gt.txt", truth), (root / f"results/MOT17-train/tracker/data/{name}.txt", found)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines))


def ours(root: Path, lengths: dict[str, int]) -> dict[str, float]:
    """The pooled figures by saccade."""
    counts = []
    for name, length in lengths.items():
        files = root / f"gt/MOT17-train/{name}/gt/gt.txt", root / f"results/MOT17-train/tracker/data/{name}.txt"
        counts.append(count(read_sequence(name, *files, num_frames=length)))
    return _named(pooled(counts))


def _named(counts: Counts) -> dict[str, float]:
    figures = counts.figures()
    return {name: float(figures[name]) for name in NAMES}


def theirs(root: Path, lengths: dict[str, int]) -> dict[str, float]:
    """The pooled figures by TrackEval's own evaluator, in one process, without writing anything."""
    dataset = trackeval.datasets.MotChallenge2DBox({
        "GT_FOLDER": str(root / "gt"), "TRACKERS_FOLDER": str(root / "results"), "SEQ_INFO": dict(lengths), "PRINT_CONFIG": False,
    })
    quiet = {"PRINT_CONFIG": False}
    evaluator = trackeval.Evaluator({
        "USE_PARALLEL": False, "PRINT_RESULTS": False, "PRINT_CONFIG": False, "TIME_PROGRESS": False, "OUTPUT_SUMMARY": False,
        "OUTPUT_DETAILED": False, "PLOT_CURVES": False, "OUTPUT_EMPTY_CLASSES": False, "LOG_ON_ERROR": None, "BREAK_ON_ERROR": True,
        "DISPLAY_LESS_PROGRESS": False,
    })
    metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR(quiet), trackeval.metrics.Identity(quiet)]
    results: Any = evaluator.evaluate([dataset], metrics)[0]["MotChallenge2DBox"]["tracker"]["COMBINED_SEQ"]["pedestrian"]
    fields = {name.removeprefix("CLR_"): float(np.mean(value)) for part in results.values() for name, value in part.items()}
    return {name: fields[name] for name in NAMES}


def compare(title: str, root: Path, lengths: dict[str, int], repeats: int) -> None:
    """Alternates both and prints their times; stops where figures differ."""
    runs: dict[str, Callable[[Path, dict[str, int]], dict[str, float]]] = {"saccade": ours, "TrackEval": theirs}
    times: dict[str, list[float]] = {name: [] for name in runs}
    figures: dict[str, dict[str, float]] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            with contextlib.redirect_stdout(io.StringIO()):
                start = time.perf_counter()
                figures[name] = run(root, lengths)
                times[name].append(time.perf_counter() - start)
    difference = max(abs(figures["saccade"][name] - figures["TrackEval"][name]) for name in NAMES)
    assert difference <= 1e-9, f"{title}: the figures differ by {difference}"
    print(f"{title}: HOTA {figures['saccade']['HOTA']:.4f}, MOTA {figures['saccade']['MOTA']:.4f}, IDF1 {figures['saccade']['IDF1']:.4f}, "
          f"IDSW {figures['saccade']['IDSW']:.0f}; largest difference of {len(NAMES)} figures {difference:.1e}")
    for name, seconds in times.items():
        print(f"  {name:10s} median {statistics.median(seconds):6.3f} s   fastest {min(seconds):6.3f} s")
    ratios = [b / a for a, b in zip(times["saccade"], times["TrackEval"], strict=True)]
    print(f"  saccade is {statistics.median(ratios):.2f} times as fast (median of the pairs; {min(ratios):.2f} to {max(ratios):.2f})")


def main() -> None:
    """Both sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        small, crowd = Path(folder) / "small", Path(folder) / "crowd"
        lengths = {f"MOT17-{n:02d}": 600 for n in range(1, 4)}
        for seed, name in enumerate(lengths):
            write_video(small, name, 600, 40, 1500.0, seed)
        write_video(crowd, "MOT17-01", 300, 200, 1500.0, 9)
        compare("3 videos of 600 frames, 40 objects", small, lengths, repeats)
        compare("a crowd of 200 objects, 300 frames", crowd, {"MOT17-01": 300}, repeats)


if __name__ == "__main__":
    main()
