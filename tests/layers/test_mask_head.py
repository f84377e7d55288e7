"""That the mask head computes what the paper's code computes, however many queries are taken at once."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.errors import InputError
from saccade.layers.mask_head import MaskAttention, MaskHead

HEADS = 4


def inputs(channels: int, queries: int = 7) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Queries, memory, padding of the last row and column of the second image, and three levels of 24, 12 and 6 channels."""
    torch.manual_seed(0)
    padding = torch.zeros(2, 3, 4, dtype=torch.bool)
    padding[1, -1] = padding[1, :, -1] = True
    levels = [torch.randn(2, 24, 5, 8), torch.randn(2, 12, 10, 15), torch.randn(2, 6, 20, 30)]
    return torch.randn(2, queries, channels), torch.randn(2, channels, 3, 4), padding, levels


def one_query_at_a_time(head: MaskHead, source: Tensor, attention: Tensor, levels: list[Tensor]) -> Tensor:
    """The head spelled out: everything concatenated and convolved for each query alone."""
    masks = []
    for query in range(attention.shape[1]):
        x = torch.cat([source, attention[:, query]], 1)
        x = F.relu(head.gn1(head.lay1(x)))
        x = F.relu(head.gn2(head.lay2(x)))
        for level, adapter, layer, norm in (
            (levels[0], head.adapter1, head.lay3, head.gn3), (levels[1], head.adapter2, head.lay4, head.gn4),
            (levels[2], head.adapter3, head.lay5, head.gn5),
        ):
            x = adapter(level) + F.interpolate(x, size=level.shape[-2:], mode="nearest")
            x = F.relu(norm(layer(x)))
        masks.append(head.out_lay(x))
    return torch.cat(masks, 1)


@pytest.mark.parametrize("channels", [64, 48])
def test_masks_are_those_of_the_layers_spelled_out(channels: int) -> None:
    queries, memory, padding, levels = inputs(channels)
    head, attention = MaskHead(channels, HEADS, (24, 12, 6)), MaskAttention(channels, HEADS)(queries, memory, padding)
    got = head(memory, attention, levels)
    assert got.shape == (2, 7, 20, 30)
    torch.testing.assert_close(got, one_query_at_a_time(head, memory, attention, levels), atol=2e-5, rtol=1e-4)


def test_the_attention_is_one_softmax_over_heads_and_pixels() -> None:
    queries, memory, padding, _ = inputs(32)
    attention = MaskAttention(32, HEADS)
    got = attention(queries, memory, padding)
    q, k = attention.q_linear(queries), attention.k_linear(memory.flatten(2).transpose(1, 2))
    for image in range(2):
        for query in range(7):
            scores = torch.stack([
                k[image, :, 8 * head : 8 * head + 8] @ q[image, query, 8 * head : 8 * head + 8] / 8**0.5 for head in range(HEADS)
            ])
            scores[:, padding[image].flatten()] = -torch.inf
            torch.testing.assert_close(got[image, query].flatten(), scores.flatten().softmax(0))
    assert (got[1, :, :, -1] == 0).all() and torch.allclose(got.flatten(2).sum(2), torch.ones(2, 7))


def test_taking_few_queries_at_once_changes_no_mask() -> None:
    queries, memory, padding, levels = inputs(32)
    attention = MaskAttention(32, HEADS)(queries, memory, padding)
    head = MaskHead(32, HEADS, (24, 12, 6), queries_at_once=3)
    whole = head(memory, attention, levels)
    with torch.no_grad():
        torch.testing.assert_close(head(memory, attention, levels), whole)
        assert head(memory, attention[:, :0], levels).shape == (2, 0, 20, 30)


def padded(tensor: Tensor, height: int, width: int) -> Tensor:
    """`tensor` (..., h, w) filled up with noise on the right and below."""
    larger = torch.randn(*tensor.shape[:-2], height, width)
    larger[..., : tensor.shape[-2], : tensor.shape[-1]] = tensor
    return larger


def test_masks_do_not_depend_on_padding_that_is_named() -> None:
    torch.manual_seed(1)
    sizes = [(3, 4), (5, 7), (10, 13), (19, 26)]  # of an image of 75 x 101 pixels, stride 32 down to 4
    larger = [(4, 6), (8, 11), (15, 22), (30, 43)]
    queries, source, head = torch.randn(1, 5, 32), torch.randn(1, 32, *sizes[0]), MaskHead(32, HEADS, (24, 12, 6))
    attention, levels = MaskAttention(32, HEADS), [torch.randn(1, c, *size) for c, size in zip((24, 12, 6), sizes[1:], strict=True)]
    padding = torch.ones(1, 119, 170, dtype=torch.bool)
    padding[:, :75, :101] = False
    alone = head(source, attention(queries, source), levels)
    wide, wide_levels = padded(source, *larger[0]), [padded(level, *size) for level, size in zip(levels, larger[1:], strict=True)]
    looks = attention(queries, wide, padding[:, ::32, ::32])
    for spread in (False, True):  # with gradients or a few queries at once
        with torch.set_grad_enabled(spread):
            hidden, seen = head(wide, looks, wide_levels, padding), head(wide, looks, wide_levels)
        torch.testing.assert_close(hidden[..., :19, :26], alone, atol=2e-5, rtol=1e-4)
        assert (seen[..., :19, :26] - alone).abs().max() > 1e-2


def test_naming_no_padded_pixel_is_naming_no_padding() -> None:
    queries, memory, _, levels = inputs(32)
    head, attention = MaskHead(32, HEADS, (24, 12, 6)), MaskAttention(32, HEADS)(queries, memory)
    for norm in (head.gn1, head.gn5):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    named = head(memory, attention, levels, torch.zeros(2, 80, 120, dtype=torch.bool))
    torch.testing.assert_close(named, head(memory, attention, levels), atol=2e-5, rtol=1e-4)


def test_gradients_reach_every_parameter_and_the_queries() -> None:
    queries, memory, padding, levels = inputs(32)
    queries.requires_grad_()
    attention, head = MaskAttention(32, HEADS), MaskHead(32, HEADS, (24, 12, 6), queries_at_once=2)
    head(memory, attention(queries, memory, padding), levels).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in [*attention.q_linear.parameters(), *head.parameters()])
    assert queries.grad is not None and queries.grad.abs().sum() > 0


def test_parameters_have_the_names_and_shapes_of_the_released_weights() -> None:
    shapes = {name: tuple(value.shape) for name, value in MaskHead(256, 8).state_dict().items()}
    assert len(shapes) == 28 and shapes["lay1.weight"] == (264, 264, 3, 3) and shapes["lay5.weight"] == (16, 32, 3, 3)
    assert shapes["adapter1.weight"] == (128, 1024, 1, 1) and shapes["adapter3.weight"] == (32, 256, 1, 1)
    assert shapes["out_lay.weight"] == (1, 16, 3, 3)
    assert sum(p.numel() for p in [*MaskHead(256, 8).parameters(), *MaskAttention(256, 8).parameters()]) == 1_333_657


def test_channels_that_do_not_fit_are_refused_with_the_number() -> None:
    with pytest.raises(InputError, match="100"):
        MaskHead(100, 4)
    with pytest.raises(InputError, match="100 channels can't be split into 8"):
        MaskAttention(100, 8)
