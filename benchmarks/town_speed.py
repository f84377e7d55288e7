"""How many frames of the town one core renders in a second, with all annotations, in each domain.

    python benchmarks/town_speed.py [--frames 200]

CPU time, so that other work on the machine counts little. Two cases: videos of 20 frames in order, where frames share their street, and single
frames, where every one is a new scene. The aim is 200 frames/s at 128 px.
"""
from __future__ import annotations

import argparse
import time

import torch

from saccade.data.town.dataset import Town
from saccade.data.town.vocabulary import DOMAINS


def frames_per_second(town: Town, count: int, warm_up: int = 20) -> float:
    """Best of three runs over `count` frames that were not rendered before."""
    for index in range(warm_up):
        town[len(town) - 1 - index]
    best = 0.0
    for run in range(3):
        start = time.process_time()
        for index in range(run * count, (run + 1) * count):
            town[index]
        best = max(best, count / (time.process_time() - start))
    return best


def main() -> None:
    """Print one line a size and domain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=200, help="frames a measurement")
    count = parser.parse_args().frames
    torch.set_num_threads(1)
    print(f"{'size':>5}  {'domain':8}{'videos, frames/s':>18}{'single frames/s':>18}{'annotations only/s':>20}")
    for size in (128, 256):
        for domain in DOMAINS:
            videos = Town(size=size, domain=domain, num_videos=3 * count // 20 + 3, frames_per_video=20)
            singles = Town(size=size, domain=domain, num_videos=3 * count + 30, frames_per_video=1)
            known = Town(size=size, domain=domain, num_videos=count // 20 + 1, frames_per_video=20, seed=1)
            start = time.process_time()
            for index in range(count):
                known.annotations(index)
            alone = count / (time.process_time() - start)
            together, apart = frames_per_second(videos, count), frames_per_second(singles, count)
            print(f"{size:>5}  {domain:8}{together:>18.0f}{apart:>18.0f}{alone:>20.0f}", flush=True)


if __name__ == "__main__":
    main()
