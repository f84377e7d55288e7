"""Multi-head attention on torch's fused kernels, whose maps can be looked at when they are asked for.

Vaswani et al. 2017, section 3.2. Parameters have the names and the packing of `torch.nn.MultiheadAttention`, so weights of models made with it fit.
The weights of attention exist only inside `record_attention`; elsewhere the kernel never writes them down.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Queries (N, A, C) look at keys (N, B, C) and take from values (N, B, C) in `heads` independent ways; batch first.

    `dropout` acts on the attention weights while training. Raises ValueError where `heads` does not divide `channels`.
    """

    def __init__(self, *, channels: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"Attention: {heads} heads do not divide {channels} channels")
        self.channels, self.heads, self.dropout = channels, heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        self._observe: Callable[[Tensor], None] | None = None

    def forward(self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None = None) -> Tensor:
        """(N, A, C). `padding` (N, B) bool: true where a key must not be looked at."""
        q, k, v = self._projected(query, key, value)
        allowed = None if padding is None else ~padding[:, None, None, :]
        if self._observe is None:
            seen = F.scaled_dot_product_attention(q, k, v, allowed, dropout_p=self.dropout if self.training else 0.0)
        else:
            weights = _weights(q, k, allowed)
            self._observe(weights.detach())
            seen = F.dropout(weights, self.dropout, self.training).to(v.dtype) @ v
        return self.out_proj(seen.transpose(1, 2).flatten(2))

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, heads, A or B, C / heads) each; equal inputs share one multiplication."""
        weight, bias, c = self.in_proj_weight, self.in_proj_bias, self.channels
        if query is key:
            q, k = F.linear(query, weight[: 2 * c], bias[: 2 * c]).split(c, -1)
        else:
            q, k = F.linear(query, weight[:c], bias[:c]), F.linear(key, weight[c : 2 * c], bias[c : 2 * c])
        v = F.linear(value, weight[2 * c :], bias[2 * c :])
        return self._in_heads(q), self._in_heads(k), self._in_heads(v)

    def _in_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def extra_repr(self) -> str:
        """The settings, for `print(model)`."""
        return f"{self.channels}, heads={self.heads}, dropout={self.dropout:g}"


def _weights(query: Tensor, key: Tensor, allowed: Tensor | None) -> Tensor:
    """(N, heads, A, B) float32, each row sums to one."""
    scores = (query.float() * query.shape[-1] ** -0.5) @ key.float().transpose(-1, -2)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    return scores.softmax(-1)


@contextmanager
def record_attention(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside, every call of an `Attention` within `module` leaves its weights (N, heads, A, B) under its dotted name; a later call replaces them.

    with record_attention(model) as maps:
        model(batch)
    maps["transformer.encoder.layers.5.self_attn"]
    """
    maps: dict[str, Tensor] = {}
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, Attention)}
    for name, layer in layers.items():
        layer._observe = partial(maps.__setitem__, name)
    try:
        yield maps
    finally:
        for layer in layers.values():
            layer._observe = None
