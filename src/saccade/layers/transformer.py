"""The transformer of DETR and its kin (Carion et al. 2020, figure 10): an encoder over places, a decoder from queries to objects.

Batch first. Positions are added to queries and keys of every attention, never to values. The decoder's starting content and its query positions are
arguments of their own, so that tracks can come in as further queries (TrackFormer). Spec: detr_family.md 1.5.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.layers.attention import Attention


class Decoded(NamedTuple):
    """What a transformer gives: `queries` (L, N, Q, C), every decoder layer's output after the decoder's norm, the last layer last (L is 1 where only

    that was asked for); `unnormed` (L, N, Q, C), the same before that norm; `memory` (N, S, C), the encoder's output.
    """

    queries: Tensor
    unnormed: Tensor
    memory: Tensor


class _FeedForward(nn.Module):
    """Parts that both kinds of layers share: two linear layers with a ReLU between, dropout, and the choice of where the norms are."""

    def __init__(self, channels: int, feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(channels, feedforward), nn.Linear(feedforward, channels)
        self.dropout, self.pre_norm = nn.Dropout(dropout), pre_norm

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(F.relu(self.linear1(x))))


class EncoderLayer(_FeedForward):
    """Self-attention over all places, then two linear layers, each with a residual and a layer norm (after it, or before it with `pre_norm`)."""

    def __init__(self, *, channels: int, heads: int, feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__(channels, feedforward, dropout, pre_norm)
        self.self_attn = Attention(channels=channels, heads=heads, dropout=dropout)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        """`x`, `positions` (N, S, C), `padding` (N, S) to (N, S, C)."""
        if self.pre_norm:
            x = x + self.dropout(self._attend(self.norm1(x), positions, padding))
            return x + self.dropout(self.feed_forward(self.norm2(x)))
        x = self.norm1(x + self.dropout(self._attend(x, positions, padding)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))

    def _attend(self, x: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        placed = x + positions
        return self.self_attn(placed, placed, x, padding)


class DecoderLayer(_FeedForward):
    """Self-attention among queries, attention to the memory, two linear layers, each with a residual and a layer norm."""

    def __init__(self, *, channels: int, heads: int, feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__(channels, feedforward, dropout, pre_norm)
        self.self_attn = Attention(channels=channels, heads=heads, dropout=dropout)
        self.cross_attn = Attention(channels=channels, heads=heads, dropout=dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(channels), nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(self, x: Tensor, query_pos: Tensor, memory: Tensor, keys: Tensor, padding: Tensor | None, query_padding: Tensor | None) -> Tensor:
        """`x`, `query_pos` (N, Q, C), `memory` (N, S, C), `keys` the memory with its positions, `padding` (N, S), `query_padding` (N, Q)."""
        if self.pre_norm:
            x = x + self.dropout(self._attend_queries(self.norm1(x), query_pos, query_padding))
            x = x + self.dropout(self.cross_attn(self.norm2(x) + query_pos, keys, memory, padding))
            return x + self.dropout(self.feed_forward(self.norm3(x)))
        x = self.norm1(x + self.dropout(self._attend_queries(x, query_pos, query_padding)))
        x = self.norm2(x + self.dropout(self.cross_attn(x + query_pos, keys, memory, padding)))
        return self.norm3(x + self.dropout(self.feed_forward(x)))

    def _attend_queries(self, x: Tensor, query_pos: Tensor, query_padding: Tensor | None) -> Tensor:
        placed = x + query_pos
        return self.self_attn(placed, placed, x, query_padding)


class Encoder(nn.Module):
    """`layers` one after another; with pre-norm a last norm."""

    def __init__(self, layers: nn.ModuleList, norm: nn.LayerNorm | None) -> None:
        super().__init__()
        self.layers, self.norm = layers, norm

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        """(N, S, C) to (N, S, C)."""
        for layer in self.layers:
            x = layer(x, positions, padding)
        return x if self.norm is None else self.norm(x)


class Decoder(nn.Module):
    """`layers` one after another; a norm, shared by all, after each of their outputs."""

    def __init__(self, layers: nn.ModuleList, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.layers, self.norm = layers, norm

    def forward(
        self, x: Tensor, query_pos: Tensor, memory: Tensor, keys: Tensor, padding: Tensor | None, query_padding: Tensor | None, every_layer: bool
    ) -> tuple[Tensor, Tensor]:
        """Outputs after and before the norm, each (L, N, Q, C) where `every_layer`, else (1, N, Q, C)."""
        outputs = []
        for layer in self.layers:
            x = layer(x, query_pos, memory, keys, padding, query_padding)
            outputs.append(x)
        unnormed = torch.stack(outputs if every_layer else outputs[-1:])
        return self.norm(unnormed), unnormed


class Transformer(nn.Module):
    """Encoder and decoder with `channels` numbers a token. Layer norms come after each residual, or before each part with `pre_norm`.

    Matrices start as Xavier uniform (the packed projection of an attention as one matrix), as in the original.
    """

    def __init__(
        self, *, channels: int = 256, heads: int = 8, encoder_layers: int = 6, decoder_layers: int = 6, feedforward: int = 2048,
        dropout: float = 0.1, pre_norm: bool = False,
    ) -> None:
        super().__init__()
        if encoder_layers < 0 or decoder_layers < 1:
            raise ValueError(f"Transformer needs at least one decoder layer; got {encoder_layers} encoder and {decoder_layers} decoder layers")
        self.channels, self.heads = channels, heads

        def layers(kind: type[EncoderLayer] | type[DecoderLayer], count: int) -> nn.ModuleList:
            settings = {"channels": channels, "heads": heads, "feedforward": feedforward, "dropout": dropout, "pre_norm": pre_norm}
            return nn.ModuleList(kind(**settings) for _ in range(count))  # type: ignore[arg-type]

        self.encoder = Encoder(layers(EncoderLayer, encoder_layers), nn.LayerNorm(channels) if pre_norm else None)
        self.decoder = Decoder(layers(DecoderLayer, decoder_layers), nn.LayerNorm(channels))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, features: Tensor, positions: Tensor, query_pos: Tensor, *, padding: Tensor | None = None, content: Tensor | None = None,
        query_padding: Tensor | None = None, every_layer: bool = True,
    ) -> Decoded:
        """`features`, `positions` (N, S, C) of the places, `query_pos` (N, Q, C) or (Q, C), `padding` (N, S) bool.

        `content` (N, Q, C): what the queries hold at first, zeros unless given; `query_padding` (N, Q) bool: queries that the others must not see.
        """
        if query_pos.ndim == 2:
            query_pos = query_pos.expand(len(features), -1, -1)
        memory = self.encoder(features, positions, padding)
        content = torch.zeros_like(query_pos) if content is None else content
        queries, unnormed = self.decoder(content, query_pos, memory, memory + positions, padding, query_padding, every_layer)
        return Decoded(queries, unnormed, memory)
