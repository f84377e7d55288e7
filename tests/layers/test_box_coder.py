"""Encoding and decoding of boxes."""
from __future__ import annotations

import torch

from saccade.layers.box_coder import decode_boxes, encode_boxes


def test_decoding_undoes_encoding() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes, priors = torch.rand(2, 50, 4, generator=generator) + 0.05, torch.rand(50, 4, generator=generator) + 0.05
    offsets = encode_boxes(boxes, priors, 0.1, 0.2)
    assert torch.allclose(decode_boxes(offsets, priors, 0.1, 0.2), boxes, atol=1e-5)
    assert torch.allclose(encode_boxes(priors, priors, 0.1, 0.2), torch.zeros(50, 4))


def test_offsets_of_an_untrained_network_give_finite_boxes() -> None:
    boxes = decode_boxes(torch.full((1, 4), 1e6), torch.ones(1, 4), 0.1, 0.2)
    assert boxes.isfinite().all()
