"""B6: the confusion matrix of label maps against ADVENT's `fast_hist` and torchmetrics, 1024 x 2048 pixels, 19 classes and pixels without a label.

Two kinds of maps: regions with wavy borders, whose prediction is wrong in blocks, as networks give them, and pure noise. The truth is uint8 as a PNG
holds it, the prediction int64 as an argmax gives it. `fast_hist` gets flat copies, as ADVENT and AdaptSegNet call it, of the truth as it is and of
one in float32, ADVENT's own; torchmetrics gets int64 on both sides, already made. Counts are compared first; then one after another goes over all
maps, as an evaluation does, several times. Goal: at least 4 times as fast as `fast_hist` and 20 times as torchmetrics.

    python benchmarks/b06_confusion_matrix.py [--maps 10] [--repeats 5] [--threads 1]
"""
from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from saccade.metrics.segmentation import confusion_matrix

HEIGHT, WIDTH, CLASSES, IGNORE = 1024, 2048, 19, 255
GOALS = {"fast_hist": 4.0, "fast_hist, float labels": 4.0, "torchmetrics": 20.0}
Maps = tuple[np.ndarray, np.ndarray]  # truth uint8, prediction int64


def fast_hist(label: np.ndarray, prediction: np.ndarray, n: int) -> np.ndarray:
    """The published way, on flat arrays: select the pixels with a label, then count `n * label + prediction`."""
    valid = (label >= 0) & (label < n)
    return np.bincount(n * label[valid].astype(int) + prediction[valid], minlength=n**2).reshape(n, n)


def blocks(values: np.ndarray) -> np.ndarray:
    """`values` (h, w) enlarged to the size of the maps."""
    return np.kron(values, np.ones((HEIGHT // values.shape[0], WIDTH // values.shape[1]), values.dtype))


def regions(seed: int) -> Maps:
    """Regions of about 64 pixels with wavy borders; a fifth of the prediction's 8 x 8 blocks is another class, a tenth of the truth has no label."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    y = (y + 10 * np.sin(x / 17)).astype(int) % HEIGHT
    truth = blocks(random.integers(0, CLASSES, (16, 32)))[y, (x + 12 * np.sin(y / 23)).astype(int) % WIDTH]
    other, wrong = blocks(random.integers(0, CLASSES, (128, 256))), blocks(random.random((128, 256)) < 0.2)
    found = np.where(wrong, other, truth)
    return np.where(blocks(random.random((32, 64)) < 0.1), IGNORE, truth).astype(np.uint8), found


def noise(seed: int) -> Maps:
    """Every pixel at random."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, CLASSES, (HEIGHT, WIDTH)).astype(np.uint8)
    truth[random.random(truth.shape) < 0.1] = IGNORE
    return truth, random.integers(0, CLASSES, truth.shape)


def sides(truth: np.ndarray, found: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """What is timed: each gives the counts of one map."""
    ours, wide, published = (torch.from_numpy(truth), torch.from_numpy(found)), torch.from_numpy(truth).long(), truth.astype(np.float32)
    return {
        "saccade": lambda: confusion_matrix(*ours, CLASSES)[:, :-1],
        "fast_hist": lambda: fast_hist(truth.flatten(), found.flatten(), CLASSES),
        "fast_hist, float labels": lambda: fast_hist(published.flatten(), found.flatten(), CLASSES),
        "torchmetrics": lambda: multiclass_confusion_matrix(ours[1], wide, CLASSES, ignore_index=IGNORE).numpy(),
    }


def measure(maps: Sequence[Maps], repeats: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds of each side on each map by the clock and of the processor, after one round without. Stops where counts differ."""
    clock: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    runs = [sides(*pair) for pair in maps]
    for pair in runs:
        counts = [run() for run in pair.values()]
        assert all(np.array_equal(counts[0], other) for other in counts), "the counts differ"
    for _ in range(repeats):
        for name in runs[0]:
            for pair in runs:
                begin, busy = time.perf_counter(), time.process_time()
                pair[name]()
                clock.setdefault(name, []).append((time.perf_counter() - begin) * 1e3)
                processor.setdefault(name, []).append((time.process_time() - busy) * 1e3)
    return clock, processor


def main() -> None:
    """Parse the arguments, measure both kinds of maps and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--maps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"B6 confusion matrix, {arguments.maps} maps of {HEIGHT} x {WIDTH}, {CLASSES} classes, {arguments.threads} thread(s)")
    for kind in (regions, noise):
        clock, processor = measure([kind(seed) for seed in range(arguments.maps)], arguments.repeats)
        print(f"{kind.__name__}: counts equal")
        for name, times in clock.items():
            print(f"  {name:<23} median {statistics.median(times):6.2f} ms a map (fastest {min(times):.2f}, processor "
                  f"{statistics.median(processor[name]):.2f})")
        for name, goal in GOALS.items():
            by_clock, by_processor = (statistics.median(t[name]) / statistics.median(t["saccade"]) for t in (clock, processor))
            print(f"  {name} / saccade: {by_clock:.1f} by the clock, {min(clock[name]) / min(clock['saccade']):.1f} of the fastest, "
                  f"{by_processor:.1f} by the processor (goal {goal:.0f} or more)")


if __name__ == "__main__":
    main()
