"""The coder of two-stage detectors: torchvision's numbers, and there and back."""
from __future__ import annotations

import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder

from saccade.layers.box_coder import decode_deltas, encode_deltas

STDS = (0.1, 0.1, 0.2, 0.2)


def boxes(seed: int, count: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 100
    return torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 50 + 1], 1)


def test_deltas_are_torchvisions_with_the_inverse_weights() -> None:
    theirs = BoxCoder((10.0, 10.0, 5.0, 5.0))
    torch.testing.assert_close(encode_deltas(boxes(0), boxes(1), STDS), theirs.encode_single(boxes(0), boxes(1)), atol=1e-5, rtol=1e-4)
    deltas = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)) * 10
    decoded = decode_deltas(deltas, boxes(1), STDS, limit_both=False)
    torch.testing.assert_close(decoded, theirs.decode_single(deltas, boxes(1)), atol=1e-3, rtol=1e-4)


def test_decoding_undoes_encoding() -> None:
    for stds in ((1.0,) * 4, STDS):
        torch.testing.assert_close(decode_deltas(encode_deltas(boxes(0), boxes(1), stds), boxes(1), stds), boxes(0), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("limit_both", "smallest"), [(True, 16.0), (False, 1000 * math.exp(-50))])
def test_growth_and_shrinkage_are_limited(limit_both: bool, smallest: float) -> None:
    decoded = decode_deltas(torch.tensor([[0.0, 0, 50, -50]]), torch.tensor([[0.0, 0, 1000, 1000]]), limit_both=limit_both)
    assert (decoded[0, 2:] - decoded[0, :2]).tolist() == pytest.approx([62_500, smallest], rel=1e-4, abs=1e-3)
