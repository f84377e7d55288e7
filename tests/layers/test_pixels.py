"""Pixel statistics: the definition, channel order, padding, and the input left alone."""
from __future__ import annotations

import pytest
import torch

from saccade.layers.pixels import PixelNorm


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 130, 9), (2, 4, 3, 66, 5), (0, 3, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_blocks_give_the_definition_to_the_bit_and_leave_the_input_alone(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = images.clone()
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    expected = (images.float() - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
    assert torch.equal(PixelNorm(mean=mean, std=std)(images), expected)
    assert torch.equal(PixelNorm(mean=mean, std=std, channel_order="bgr")(images), expected.flip(-3))
    innermost = images.movedim(-3, -1).contiguous().movedim(-1, -3)
    result = PixelNorm(mean=mean, std=std)(innermost)
    assert torch.equal(result, expected) and (not result.numel() or result.stride() == innermost.stride())
    assert torch.equal(images, before)


def test_padded_pixels_become_zero_and_gradients_pass() -> None:
    images = torch.full((1, 3, 2, 2), 50.0, requires_grad=True)
    padding = torch.tensor([[[False, True], [False, False]]])
    result = PixelNorm()(images, padding)
    assert torch.equal(result[0, :, 0, 1], torch.zeros(3))
    result.sum().backward()
    assert images.grad is not None
    assert (images.grad[0, :, 0, 0] > 0).all()


@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 3, 5, 7)])
@pytest.mark.parametrize("where", ["nowhere", "everywhere", "right and below", "right", "below", "anywhere"])
def test_padding_anywhere_is_cleared_and_nothing_else(where: str, shape: tuple[int, ...]) -> None:
    padding = torch.zeros(shape, dtype=torch.bool)
    if where == "anywhere":
        padding = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    if where in ("right", "right and below"):
        padding[1, ..., 4:] = True
    if where in ("below", "right and below"):
        padding[1, ..., 3:, :] = True
    images = torch.full((*shape[:-2], 3, *shape[-2:]), 200, dtype=torch.uint8)
    result = PixelNorm()(images, torch.ones_like(padding) if where == "everywhere" else padding)
    expected = PixelNorm()(images).masked_fill((torch.ones_like(padding) if where == "everywhere" else padding).unsqueeze(-3), 0)
    assert torch.equal(result, expected)


@pytest.mark.parametrize("bad", [{"mean": (1.0, 2.0)}, {"std": (1.0, 0.0, 1.0)}])
def test_statistics_that_make_no_sense_are_refused(bad: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="three numbers"):
        PixelNorm(**bad)  # type: ignore[arg-type]
