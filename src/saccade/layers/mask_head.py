"""Masks from attention maps: the mask head of DETR (Carion et al. 2020, section 4.4), which TrackFormer and VisTR share.

`MaskAttention` says where in the encoder's memory each query looks, one map a head; `MaskHead` turns these maps, together with the features, into one
mask a query at a quarter of the picture's size, refining it with the backbone's finer maps on the way up. Parameters are named as in the released
weights (`bbox_attention.*`, `mask_head.*`). Leaves out VisTR's tail (deformable convolution and convolutions over time).

With `padding` the head sees nothing of padded places: not in its convolutions, nor in the means and variances of its group norms, so that a picture's
masks are the same in every batch. The original lets padding in; without `padding` that is what happens here, too.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.errors import InputError
from saccade.layers.padding import pyramid

_GROUPS = 8  # of every group norm in the released weights
_QUERIES_AT_ONCE = 10


class MaskAttention(nn.Module):
    """Attention of queries over a feature map, without values: what is asked for are the maps.

    `channels` of queries and memory, a multiple of `heads`. The softmax runs over all heads and pixels of a query together, as in the original, so
    that all maps of a query together sum to one.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise InputError(f"MaskAttention: {channels} channels can't be split into {heads} heads; use a multiple of {heads}")
        self.heads = heads
        self.scale = (channels / heads) ** -0.5
        self.q_linear = nn.Linear(channels, channels)
        self.k_linear = nn.Linear(channels, channels)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, queries: Tensor, memory: Tensor, padding: Tensor | None = None) -> Tensor:
        """Maps (N, Q, heads, h, w) of `queries` (N, Q, C) over `memory` (N, C, h, w); 0 where `padding` (N, h, w) is true."""
        images, _, height, width = memory.shape
        asked = (self.q_linear(queries) * self.scale).unflatten(-1, (self.heads, -1))  # (N, Q, heads, c)
        keys = F.conv2d(memory, self.k_linear.weight[:, :, None, None], self.k_linear.bias).unflatten(1, (self.heads, -1)).flatten(3)
        scores = torch.einsum("nqhc,nhcp->nqhp", asked, keys)
        if padding is not None:
            scores = scores.masked_fill(padding.flatten(1)[:, None, None], -math.inf)
        return scores.flatten(2).softmax(-1).view(images, queries.shape[1], self.heads, height, width)


class MaskHead(nn.Module):
    """Mask logits from attention maps, source features and finer backbone levels.

    `channels` C of the source (a multiple of 16), `heads` of the attention; `level_channels`: channels of the three levels, coarse to fine (for a
    ResNet: layer3, layer2, layer1, so 1024, 512, 256). Group norms have 8 groups, or as many as divide both 8 and their channels where C is no
    multiple of 128 (the original can't be built then). Where no gradient is asked for, queries are taken `queries_at_once`, which bounds the memory.
    """

    def __init__(
        self, channels: int, heads: int, level_channels: Sequence[int] = (1024, 512, 256), *, queries_at_once: int = _QUERIES_AT_ONCE
    ) -> None:
        super().__init__()
        if channels % 16 or channels < 16:
            raise InputError(f"MaskHead halves its channels four times, so they must be a multiple of 16; they are {channels}")
        if len(level_channels) != 3:
            raise InputError(f"MaskHead goes up three levels, coarse to fine; {len(level_channels)} were given")
        if queries_at_once < 1:
            raise InputError(f"MaskHead: queries_at_once must be at least 1; it is {queries_at_once}")
        self.channels, self.queries_at_once = channels, queries_at_once
        widths = (channels + heads, channels // 2, channels // 4, channels // 8, channels // 16)
        self.lay1, self.gn1 = _conv(widths[0], widths[0]), _norm(widths[0])
        self.lay2, self.gn2 = _conv(widths[0], widths[1]), _norm(widths[1])
        self.lay3, self.gn3 = _conv(widths[1], widths[2]), _norm(widths[2])
        self.lay4, self.gn4 = _conv(widths[2], widths[3]), _norm(widths[3])
        self.lay5, self.gn5 = _conv(widths[3], widths[4]), _norm(widths[4])
        self.out_lay = _conv(widths[4], 1)
        self.adapter1 = _conv(level_channels[0], widths[1], 1)
        self.adapter2 = _conv(level_channels[1], widths[2], 1)
        self.adapter3 = _conv(level_channels[2], widths[3], 1)

    def forward(self, source: Tensor, attention: Tensor, levels: Sequence[Tensor], padding: Tensor | None = None) -> Tensor:
        """Logits (N, Q, h4, w4) from `source` (N, C, h, w), `attention` (N, Q, heads, h, w; 0 on padding) and `levels` (N, c, h', w'), coarse to
        fine; the masks have the size of the finest level. `padding` (N, H, W) bool of the whole images is hidden, None: nothing is."""
        hidden = [None] * 4 if padding is None else _padding_at(padding, (source, *levels))
        source = _without(source, hidden[0])
        # A convolution is linear: what all queries share is convolved once an image, and only the attention maps once a query.
        shared = F.conv2d(source, self.lay1.weight[:, : self.channels], self.lay1.bias, padding=1)
        adapted = [adapter(level) for adapter, level in zip((self.adapter1, self.adapter2, self.adapter3), levels, strict=True)]
        images, queries = attention.shape[:2]
        if queries == 0:
            return source.new_zeros(images, 0, *levels[-1].shape[-2:])
        at_once = queries if torch.is_grad_enabled() else self.queries_at_once
        parts = [self._masks(shared, part, adapted, hidden) for part in attention.split(at_once, 1)]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def _masks(self, shared: Tensor, attention: Tensor, adapted: Sequence[Tensor], hidden: Sequence[Tensor | None]) -> Tensor:
        images, queries = attention.shape[:2]
        own = F.conv2d(attention.flatten(0, 1), self.lay1.weight[:, self.channels :], padding=1)
        x = (own.unflatten(0, (images, queries)) + shared[:, None]).flatten(0, 1)  # (N * Q, C + heads, h, w)
        x = _activated(x, self.gn1, hidden[0])
        x = _activated(self.lay2(x), self.gn2, hidden[0])
        x = _activated(self.lay3(_raised(x, adapted[0], hidden[1])), self.gn3, hidden[1])
        x = _activated(self.lay4(_raised(x, adapted[1], hidden[2])), self.gn4, hidden[2])
        x = _activated(self.lay5(_raised(x, adapted[2], hidden[3])), self.gn5, hidden[3])
        return self.out_lay(x)[:, 0].unflatten(0, (images, queries))


def _raised(x: Tensor, level: Tensor, hidden: Tensor | None) -> Tensor:
    """`x` (N * Q, c, ., .) at the size of `level` (N, c, h, w), plus it; 0 where `hidden`."""
    larger = F.interpolate(x, size=level.shape[-2:], mode="nearest")
    return _without((larger.unflatten(0, (len(level), -1)) + level[:, None]).flatten(0, 1), hidden)


def _without(x: Tensor, hidden: Tensor | None) -> Tensor:
    """`x` (N * Q, c, h, w), 0 where `hidden` (N, h, w) is true for its image."""
    if hidden is None:
        return x
    return x.unflatten(0, (len(hidden), -1)).masked_fill(hidden[:, None, None], 0).flatten(0, 1)


def _activated(x: Tensor, norm: nn.GroupNorm, hidden: Tensor | None) -> Tensor:
    """Group norm and ReLU of `x` (N * Q, c, h, w); places that are `hidden` (N, h, w) do not count and become 0."""
    if hidden is None:
        return F.relu(norm(x))
    x = _without(x, hidden)
    seen = (~hidden).flatten(1).sum(1).clamp(min=1).repeat_interleave(len(x) // len(hidden))[:, None]  # (N * Q, 1) places
    grouped = x.float().flatten(2).unflatten(1, (norm.num_groups, -1))  # (N * Q, G, c / G, h * w)
    count = seen * grouped.shape[2]
    mean = grouped.sum((2, 3)) / count  # (N * Q, G)
    variance = (grouped.square().sum((2, 3)) / count - mean.square()).clamp(min=0)
    scale = (variance + norm.eps).rsqrt().repeat_interleave(grouped.shape[2], 1) * norm.weight  # (N * Q, c)
    shift = norm.bias - mean.repeat_interleave(grouped.shape[2], 1) * scale
    return _without(F.relu(x * scale[:, :, None, None] + shift[:, :, None, None]), hidden).to(x.dtype)


def _padding_at(padding: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    """`padding` (N, H, W) at the sizes of `maps`: a place is padded where its first pixel is."""
    known = dict(pyramid(padding))
    sizes = [(int(one.shape[-2]), int(one.shape[-1])) for one in maps]
    return [known[size] if size in known else F.interpolate(padding[:, None].float(), size=size)[:, 0].bool() for size in sizes]


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels)
