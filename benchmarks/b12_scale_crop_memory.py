"""B12: memory of a sample on ProDA's stage-1 data path, from a decoded picture of 2048 x 1024 and a stored soft label of 19 x 129 x 257 to a crop.

The published way (spec segmentation_adaptation.md 2.2 and 9.9): the soft label is enlarged to the picture's size, picture and label are resized to
int(U(0.5, 1.5) * 2200) pixels of width, 512 x 896 of both are kept, and the label is brought to a quarter of that. Ours: the crop is computed from
the pixels around it, and the label is sampled where the crop's quarter-size pixels lie. Both give the same crop; labels differ by interpolation.

Each measurement is a process of its own, whose peak of resident memory is reset first. What both are given (the picture, the stored label) is there
before and not counted, nor is the code of the libraries: the same ran on a few pixels before.

    python benchmarks/b12_scale_crop_memory.py [--scales 11] [--classes 19]
"""
from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from saccade.adaptation.warping import Place, bring, places_of
from saccade.data.transforms.scale_crop import Placed, RandomScaleCrop
from saccade.structures import Geometry, collate, make_sample

SIZE, CROP, BASE, STORED = (1024, 2048), (512, 896), 2200, (129, 257)
Size = tuple[int, int]
Made = tuple[Tensor, Tensor]  # the crop (3, 512, 896) uint8, its soft label (C, 128, 224)
Side = Callable[[np.ndarray, Tensor, Placed, Size], Made]


def published(picture: np.ndarray, stored: Tensor, placed: Placed, crop: Size) -> Made:
    """Everything at the scaled picture's size, then the crop."""
    rows, columns = slice(placed.top, placed.top + crop[0]), slice(placed.left, placed.left + crop[1])
    scaled = Image.fromarray(picture).resize(placed.scaled[::-1], Image.Resampling.BILINEAR)
    label = interpolate(stored[None], picture.shape[:2], mode="bilinear", align_corners=True)
    label = interpolate(label, placed.scaled, mode="bilinear", align_corners=True)
    label = label[:, :, rows, columns].clone()
    image = torch.from_numpy(np.asarray(scaled)[rows, columns].copy()).permute(2, 0, 1)
    return image, interpolate(label, (crop[0] // 4, crop[1] // 4), mode="bilinear", align_corners=True)[0]


def ours(picture: np.ndarray, stored: Tensor, placed: Placed, crop: Size) -> Made:
    """The crop from the pixels around it, the label where its pixels lie."""
    size = (picture.shape[0], picture.shape[1])
    sample = RandomScaleCrop(size=crop).apply(make_sample(torch.from_numpy(picture).permute(2, 0, 1)), placed)
    batch = collate([sample])
    label, _ = bring(stored[None], [Place(size, Geometry.identity(size))], places_of(batch), (crop[0] // 4, crop[1] // 4))
    return batch.images[0], label[0]


def inputs(classes: int) -> tuple[np.ndarray, Tensor]:
    """A picture (1024, 2048, 3) and a soft label (C, 129, 257), both smooth."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (3, 32, 64), dtype=torch.uint8, generator=random)
    picture = np.asarray(Image.fromarray(coarse.permute(1, 2, 0).numpy()).resize(SIZE[::-1], Image.Resampling.BICUBIC))
    logits = interpolate(torch.randn(1, classes, 17, 33, generator=random) * 4, STORED, mode="bilinear", align_corners=True)
    return picture.copy(), logits.softmax(1)[0]


def placed_at(scale: float) -> Placed:
    """The middle part of the picture at `scale`."""
    width = int(scale * BASE)
    height = width * SIZE[0] // SIZE[1]
    return Placed((height, width), (height - CROP[0]) // 2, (width - CROP[1]) // 2)


def resident(field: str) -> float:
    """VmRSS (now) or VmHWM (the peak) of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024 / 1e6


def measured(side: Side, picture: np.ndarray, stored: Tensor, placed: Placed) -> tuple[float, float]:
    """Peak MB above what was there before, and milliseconds, of `side` in a process of its own."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        side(picture[:32, :64].copy(), stored[:, :5, :9].clone(), Placed((40, 80), 4, 4), (16, 32))
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is resident now
        before, begin = resident("VmRSS"), time.perf_counter()
        side(picture, stored, placed, CROP)
        seconds = time.perf_counter() - begin
        os.write(writing, f"{resident('VmHWM') - before} {seconds * 1e3}".encode())
        os._exit(0)
    os.wait()
    peak, milliseconds = map(float, os.read(reading, 100).decode().split())
    os.close(reading)
    os.close(writing)
    return peak, milliseconds


def main() -> None:
    """Measure both ways over the range of scales, compare what they give, and print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scales", type=int, default=11)
    parser.add_argument("--classes", type=int, default=19)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    picture, stored = inputs(arguments.classes)
    scales = np.linspace(0.5, 1.5, arguments.scales).tolist()
    print(f"B12 memory of a ProDA stage-1 sample: picture {SIZE[1]} x {SIZE[0]}, soft label {arguments.classes} x {STORED[0]} x {STORED[1]}")
    print(f"{'scale':>6} {'scaled':>12} {'published':>16} {'saccade':>16} {'ratio':>6}")
    peaks: dict[str, list[float]] = {"published": [], "saccade": []}
    for scale in scales:
        placed = placed_at(scale)
        theirs, own = measured(published, picture, stored, placed), measured(ours, picture, stored, placed)
        peaks["published"].append(theirs[0])
        peaks["saccade"].append(own[0])
        shown = [f"{peak:6.1f} MB {milliseconds:4.0f} ms" for peak, milliseconds in (theirs, own)]
        print(f"{scale:6.2f} {placed.scaled[1]:>5} x {placed.scaled[0]:<4} {shown[0]:>16} {shown[1]:>16} {theirs[0] / own[0]:6.1f}")
    for name, values in peaks.items():
        print(f"{name}: {statistics.mean(values):.0f} MB a sample on average, {max(values):.0f} at most")
    print(f"published / saccade: {statistics.mean(peaks['published']) / statistics.mean(peaks['saccade']):.1f} on average, "
          f"{max(peaks['published']) / max(peaks['saccade']):.1f} at most")
    compare(picture, stored, scales)


def compare(picture: np.ndarray, stored: Tensor, scales: list[float]) -> None:
    """Say how far the two ways are from each other."""
    pixels, labels, equal = 0, 0.0, 1.0
    for scale in scales:
        (image, label), (other, other_label) = (side(picture, stored, placed_at(scale), CROP) for side in (published, ours))
        pixels = max(pixels, int((image.int() - other.int()).abs().max()))
        labels = max(labels, float((label - other_label).abs().mean()))
        equal = min(equal, float((label.argmax(0) == other_label.argmax(0)).float().mean()))
    print(f"pixels differ by {pixels} grey level(s) at most, soft labels by {labels:.4f} on average, their best class agrees for {equal:.1%} or more")


if __name__ == "__main__":
    main()
