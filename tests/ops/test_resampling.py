"""A part computed from the pixels around it equals the part of the resized whole."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from saccade.ops.resampling import Interpolation, Span, nearest, resample

HEIGHT, WIDTH = 61, 97
# (height, width) of the scaled picture: smaller, of the same size, a little and much larger, and in each direction another way.
SIZES = [(23, 41), (31, 48), (61, 97), (64, 103), (200, 301), (23, 301), (200, 41)]
MODES: list[Interpolation] = ["bilinear", "bicubic"]


def picture() -> Tensor:
    """Noise, which shows every error; no value is so bright or dark that torchvision and Pillow would cut it off between the two directions."""
    return torch.randint(64, 192, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def parts(scaled: tuple[int, int]) -> list[tuple[Span, Span]]:
    """The whole, the corners, and the middle."""
    (height, width), (h, w) = scaled, (scaled[0] // 2, scaled[1] // 2)
    places = [(0, 0, height, width), (0, 0, h, w), (height - h, width - w, h, w), (h // 2, w // 2, h, w), (h, w, 1, 1)]
    return [(Span(HEIGHT, height, top, own_h), Span(WIDTH, width, left, own_w)) for top, left, own_h, own_w in places]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scaled", SIZES)
def test_a_part_is_the_part_of_the_resized_whole(scaled: tuple[int, int], mode: Interpolation) -> None:
    image = picture()
    whole = F.resize(image.double(), list(scaled), interpolation=InterpolationMode(mode), antialias=True)
    rounded = F.resize(image, list(scaled), interpolation=InterpolationMode(mode), antialias=True).int()
    pillow = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize(scaled[::-1], Image.Resampling[mode.upper()])).astype(int)
    for rows, columns in parts(scaled):
        window = (slice(None), slice(rows.first, rows.first + rows.count), slice(columns.first, columns.first + columns.count))
        exact = resample(image.double(), rows, columns, mode)
        torch.testing.assert_close(exact, whole[window], atol=1e-9, rtol=0)
        found = resample(image, rows, columns, mode)
        assert found.dtype == torch.uint8 and found.is_contiguous()
        assert (found.double() - exact.clamp(0, 255)).abs().max() <= 0.5 + 1e-3  # rounded once
        assert (found.int() - rounded[window]).abs().max() <= 2 and np.abs(found.numpy() - pillow.transpose(2, 0, 1)[window]).max() <= 2


@pytest.mark.parametrize("scaled", SIZES)
def test_nearest_is_pillows(scaled: tuple[int, int]) -> None:
    numbers = torch.arange(HEIGHT * WIDTH, dtype=torch.int32).reshape(HEIGHT, WIDTH)
    whole = torch.from_numpy(np.asarray(Image.fromarray(numbers.numpy()).resize(scaled[::-1], Image.Resampling.NEAREST)).copy())
    for rows, columns in parts(scaled):
        window = (slice(rows.first, rows.first + rows.count), slice(columns.first, columns.first + columns.count))
        assert torch.equal(nearest(numbers, rows, columns), whole[window])
        assert torch.equal(nearest(torch.stack([numbers, -numbers]), rows, columns)[1], -whole[window])


def test_a_constant_picture_stays_constant_to_the_border() -> None:
    for mode in MODES:
        for scaled in SIZES:
            for rows, columns in parts(scaled):
                found = resample(torch.full((3, HEIGHT, WIDTH), 201, dtype=torch.uint8), rows, columns, mode)
                assert found.shape == (3, rows.count, columns.count) and (found == 201).all()
