"""B7: images per second of the training pipeline of DETR, from JPEG files to normalised batches with boxes: ours, OpenCV (mmdetection's way), Pillow.

All three read the same 640 x 480 JPEG files and do the same: flip (half of the time), then either resize the short side to 480..800 (long side at
most 1333), or resize to 400, 500 or 600, crop 384..600 and resize again; subtract the mean, divide by the deviation, move the boxes along, pad and
stack batches of two. Ours and Pillow resize with antialiasing, OpenCV without. One thread in each process; the pipelines take turns in every repeat.

Ours is fast because the pixels stay uint8 until the model: resizing them is a quarter of the work, and worker processes hand over a quarter of the
bytes; the whole batch is normalised at once, in the main process. JPEG decoding leaves the channels innermost, for which torch's resize is fastest.

    python benchmarks/b07_image_pipeline.py [--images 500] [--repeats 7] [--workers 0 2] [--photos FOLDER]
"""
from __future__ import annotations

import argparse
import functools
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from saccade.data.decoding import read_image
from saccade.data.loading import Loader
from saccade.data.transforms.detr import RandomSelect, RandomShortSideResize, RandomSizeCrop, short_side_size
from saccade.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, PixelNorm
from saccade.structures import Annotations, Sample, make_sample

SHORT_SIDES, LONGEST, FIRST_SIDES, CROP = tuple(range(480, 801, 32)), 1333, (400, 500, 600), (384, 600)
BATCH_SIZE, NUM_BOXES = 2, 8
Batch = tuple[Tensor, Tensor, list[Tensor]]  # images, padding, boxes


@functools.cache
def boxes_of(index: int) -> np.ndarray:
    """Eight boxes (8, 4) in a 640 x 480 image; no pipeline changes them in place."""
    rng = np.random.default_rng(index)
    corners = rng.uniform(0, [560, 400], (NUM_BOXES, 2))
    return np.concatenate([corners, corners + rng.uniform(10, 80, (NUM_BOXES, 2))], 1).astype(np.float32)


class Files:
    """The files as a data set of ours."""

    name, classes, videos = "files", ("thing",), ()

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        return make_sample(read_image(self.paths[index]), self.annotations(index), dataset=self.name, id=index)

    def annotations(self, index: int) -> Annotations:
        """The boxes of image `index`."""
        return Annotations(boxes=torch.from_numpy(boxes_of(index)), labels=torch.zeros(NUM_BOXES, dtype=torch.int64))

    def item_id(self, index: int) -> str:
        """The file name."""
        return self.paths[index].name

    def describe(self) -> dict[str, Any]:
        """The number of files."""
        return {"images": len(self)}


def detr_transforms() -> list[Any]:
    """The augmentation as a recipe of ours lists it."""
    last = RandomShortSideResize(sizes=SHORT_SIDES, max_size=LONGEST)
    crop = [RandomShortSideResize(sizes=FIRST_SIDES), RandomSizeCrop(min_size=CROP[0], max_size=CROP[1]), last]
    return [v2.RandomHorizontalFlip(), RandomSelect(first=[last], second=crop)]


def ours(paths: Sequence[Path], workers: int) -> Iterator[Batch]:
    """Endless batches of ours, normalised by the model's first layer."""
    loader = Loader(dataset=Files(paths), transforms=detr_transforms(), batch_size=BATCH_SIZE, workers=workers)
    norm = PixelNorm()
    for batch in loader.batches():
        padding = torch.zeros(len(batch), *batch.images.shape[-2:], dtype=torch.bool) if batch.padding is None else batch.padding
        yield norm(batch.images, batch.padding), padding, [target.boxes for target in batch.targets if target.boxes is not None]


class Plan:
    """The random numbers of one image, drawn alike for the two others."""

    def __init__(self) -> None:
        self.flip, self.crop = random.random() < 0.5, random.random() >= 0.5
        self.first, self.last = random.choice(FIRST_SIDES), random.choice(SHORT_SIDES)

    def window(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the crop in an image of `size` (height, width)."""
        height, width = (random.randint(min(CROP[0], side), min(side, CROP[1])) for side in size)
        return random.randint(0, size[0] - height), random.randint(0, size[1] - width), height, width


def flipped(boxes: np.ndarray, width: int) -> np.ndarray:
    """Boxes of the mirrored image."""
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)


def cropped(boxes: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """Boxes clipped to the window, without those that vanish."""
    top, left, height, width = window
    moved = (boxes - np.array([left, top, left, top], np.float32)).clip(0, np.array([width, height, width, height], np.float32))
    return moved[(moved[:, 2:] > moved[:, :2]).all(1)]


class OpenCV(TorchDataset):
    """mmdetection's way: BGR arrays by OpenCV, normalised as float32 on the whole image, channels moved to the front at the end."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.mean = np.array(IMAGENET_MEAN, np.float64).reshape(1, -1)
        self.inverse_std = 1 / np.array(IMAGENET_STD, np.float64).reshape(1, -1)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, boxes = cv2.imdecode(np.frombuffer(self.paths[index].read_bytes(), np.uint8), cv2.IMREAD_COLOR), boxes_of(index)
        plan = Plan()
        if plan.flip:
            image, boxes = cv2.flip(image, 1), flipped(boxes, image.shape[1])
        if plan.crop:
            image, boxes = self.resize(image, boxes, plan.first, None)
            window = plan.window(image.shape[:2])
            top, left, height, width = window
            image, boxes = image[top:top + height, left:left + width], cropped(boxes, window)
        image, boxes = self.resize(image, boxes, plan.last, LONGEST)
        return self.normalised(image), torch.from_numpy(boxes)

    def resize(self, image: np.ndarray, boxes: np.ndarray, short: int, longest: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Bilinear, uint8."""
        height, width = short_side_size(image.shape[:2], short, longest)
        scale = np.array([width / image.shape[1], height / image.shape[0]] * 2, np.float32)
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), boxes * scale

    def normalised(self, image: np.ndarray) -> Tensor:
        """BGR uint8 (H, W, 3) to float32 RGB (3, H, W), in place as far as OpenCV can."""
        image = image.astype(np.float32)
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
        cv2.subtract(image, self.mean, image)
        cv2.multiply(image, self.inverse_std, image)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


class Pillow(TorchDataset):
    """DETR's own way: Pillow images, torchvision's to_tensor and normalize on each."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, boxes = Image.open(self.paths[index]).convert("RGB"), boxes_of(index)
        plan = Plan()
        if plan.flip:
            image, boxes = TF.hflip(image), flipped(boxes, image.width)
        if plan.crop:
            image, boxes = self.resize(image, boxes, plan.first, None)
            window = plan.window((image.height, image.width))
            image, boxes = TF.crop(image, *window), cropped(boxes, window)
        image, boxes = self.resize(image, boxes, plan.last, LONGEST)
        return self.normalised(image), torch.from_numpy(boxes)

    def resize(self, image: Image.Image, boxes: np.ndarray, short: int, longest: int | None) -> tuple[Image.Image, np.ndarray]:
        """Bilinear with antialiasing, uint8."""
        height, width = short_side_size((image.height, image.width), short, longest)
        scale = np.array([width / image.width, height / image.height] * 2, np.float32)
        return TF.resize(image, [height, width]), boxes * scale

    def normalised(self, image: Image.Image) -> Tensor:
        """float32 (3, H, W)."""
        return TF.normalize(TF.to_tensor(image), [m / 255 for m in IMAGENET_MEAN], [s / 255 for s in IMAGENET_STD])


def stacked(items: Sequence[tuple[Tensor, Tensor]]) -> Batch:
    """Images padded on the right and below to one size, with the mask of the padding."""
    height, width = (max(image.shape[axis] for image, _ in items) for axis in (1, 2))
    images, padding = torch.zeros(len(items), 3, height, width), torch.ones(len(items), height, width, dtype=torch.bool)
    for place, outside, (image, _) in zip(images, padding, items, strict=True):
        place[:, :image.shape[1], :image.shape[2]] = image
        outside[:image.shape[1], :image.shape[2]] = False
    return images, padding, [boxes for _, boxes in items]


def peer(dataset: type, paths: Sequence[Path], workers: int) -> Iterator[Batch]:
    """Endless batches of OpenCV's or Pillow's pipeline."""
    loader = DataLoader(
        dataset(paths), batch_size=BATCH_SIZE, shuffle=True, num_workers=workers, collate_fn=stacked, persistent_workers=workers > 0, drop_last=True
    )
    while True:
        yield from loader


def one_thread(worker: int = 0) -> None:
    """No threads inside any library."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def write_photos(folder: Path, count: int, photos: Path | None) -> list[Path]:
    """`count` JPEG files of 640 x 480: parts of the photos below `photos`, or smooth noise where there are none."""
    sources = sorted(photos.rglob("*.jpg")) if photos is not None and photos.is_dir() else []
    paths, rng = [], np.random.default_rng(0)
    for number in range(count):
        if sources:
            image = cv2.imread(str(sources[number % len(sources)]))
            shift = number // len(sources) * 7  # another part of the photo in every round
            image = cv2.resize(image[shift:, shift:], (640, 480), interpolation=cv2.INTER_AREA)
        else:
            image = cv2.GaussianBlur(cv2.resize(rng.integers(0, 256, (60, 80, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC), (0, 0), 2)
        paths.append(folder / f"{number:04d}.jpg")
        cv2.imwrite(str(paths[-1]), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def check_equal(path: Path) -> None:
    """Without random choices the three give the same image: on average within half a grey level of Pillow, within 1 of OpenCV (no antialiasing)."""
    resize = RandomShortSideResize(sizes=[600], max_size=LONGEST)
    image = PixelNorm()(v2.RandomHorizontalFlip(p=1.0)(resize(make_sample(read_image(path)))).image[None])[0]
    deviation = torch.tensor(IMAGENET_STD).reshape(3, 1, 1)
    pillow, opencv = Pillow([path]), OpenCV([path])
    none = np.zeros((0, 4), np.float32)
    by_pillow = pillow.normalised(TF.hflip(pillow.resize(Image.open(path).convert("RGB"), none, 600, LONGEST)[0]))
    by_opencv = opencv.normalised(cv2.flip(opencv.resize(cv2.imread(str(path)), none, 600, LONGEST)[0], 1))
    differences = [((image - other) * deviation).abs() for other in (by_pillow, by_opencv)]
    print(f"outputs agree: Pillow largest {differences[0].max():.2f}, OpenCV mean {differences[1].mean():.2f} grey levels")
    assert differences[0].mean() < 0.5 and differences[1].mean() < 1, "the pipelines compute different images"


def main() -> None:
    """Print images per second and ratios for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500, help="JPEG files, and images a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--photos", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data/pennfudan/JPEGImages")
    arguments = parser.parse_args()
    one_thread()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photos(Path(folder), arguments.images, arguments.photos)
        check_equal(paths[0])
        for workers in arguments.workers:
            measure(paths, workers, arguments.repeats)


def measure(paths: Sequence[Path], workers: int, repeats: int) -> None:
    """Time the three in turn, `repeats` times."""
    pipelines: dict[str, Callable[[], Iterator[Batch]]] = {
        "ours": lambda: ours(paths, workers), "opencv": lambda: peer(OpenCV, paths, workers), "pillow": lambda: peer(Pillow, paths, workers)
    }
    seconds: dict[str, list[float]] = {name: [] for name in pipelines}
    for _ in range(repeats):
        for name, start in pipelines.items():
            batches = start()
            for _ in islice(batches, 2 * max(1, workers)):
                pass  # worker processes have started, and their first batches are there
            begun = time.perf_counter()
            count = sum(len(images) for images, _, _ in islice(batches, len(paths) // BATCH_SIZE))
            seconds[name].append((time.perf_counter() - begun) / count)
            del batches
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(values, seconds["ours"], strict=True)]
        print(
            f"{workers} workers  {name:<7} {1 / median(values):7.1f} images/s (median; best {1 / min(values):.1f})   "
            f"ours is {median(ratios):.2f} times as fast (median of {repeats} turns; least {min(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
