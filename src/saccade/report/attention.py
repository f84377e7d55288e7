"""What a transformer's attention looks at in one picture, as maps: the encoder's self-attention from any place, the decoder's from any detection.

The recipe is that of DETR's notebook (spec detr_family.md 2.6), in both directions (where a place looks, who looks at it), in each layer and head.
Maps are taken layer by layer while the model runs, so that no more than one layer stands in memory at full precision. What is left out: the decoder's
self-attention between queries, and gradients, which would turn weights into contributions. Attention is where values were taken from, not why
something was detected.
"""
from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.data.decoding import read_image
from saccade.errors import InputError, NumericError
from saccade.layers.attention import Attention, record_attention
from saccade.models.contract import Model
from saccade.ops.boxes import clip_to_canvas
from saccade.report.drawing import Picture, to_picture
from saccade.report.prediction import evaluation_transform
from saccade.structures import Batch, Detections, Outputs, Sample, collate, make_sample

MOST_VALUES = 2**27  # of the encoder's maps, 256 MiB as float16; a DETR on 800 x 1333 pixels has 53 million, a DC5 one 847 million
_SHOWN = re.compile(r"(?:^|\.)transformer\.(encoder\.layers\.\d+\.self_attn|decoder\.layers\.\d+\.cross_attn)$")


@runtime_checkable
class QueryDetector(Protocol):
    """What a model needs besides attention: one score, label and box a query, in the order of the queries."""

    def detect(self, logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`logits` (N, Q, R) and `boxes` (N, Q, 4) to scores (N, Q), labels (N, Q) and relative corners (N, Q, 4)."""
        ...


@dataclass(frozen=True)
class AttentionRecord:
    """The attention of one forward pass. Layers and heads count from 0, as in the module names `transformer.encoder.layers.0` and so on.

    `picture` (H, W, 3) uint8: the image as the network got it. `grid` (h, w): the places of the feature map; each is a cell of `cell` (height, width)
    pixels of the picture, those at the right and at the bottom may reach beyond it. `encoder` (layers, heads, S, h w) float16: row i is where place i
    looks, and sums to one. S = h w, unless `pooling` is k > 1: then a row is the mean of the rows of k x k places. `decoder` (layers, heads, n, h, w)
    float32: where each kept query looks. `detections`: n boxes in pixels of the picture, best first, with scores and labels; `queries` (n,) int64
    their numbers; `classes` names all labels.
    """

    picture: Picture
    grid: tuple[int, int]
    cell: tuple[float, float]
    encoder: Tensor
    decoder: Tensor
    detections: Detections
    queries: Tensor
    classes: tuple[str, ...]
    pooling: int = 1

    @property
    def source_grid(self) -> tuple[int, int]:
        """(rows, columns) of the places that the encoder's maps have a row for: `grid`, or less where they are pooled."""
        return -(-self.grid[0] // self.pooling), -(-self.grid[1] // self.pooling)

    def cell_at(self, point: tuple[float, float]) -> tuple[int, int]:
        """(row, column) of the place that holds `point` (x, y) in pixels of the picture. Raises InputError for a point outside of it."""
        x, y = point
        height, width = self.picture.shape[:2]
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(f"the point ({x:g}, {y:g}) lies outside the picture of {width} x {height} pixels (the image as the network gets it)")
        return int(y // self.cell[0]), int(x // self.cell[1])

    def encoder_from(self, point: tuple[float, float], *, layer: int = -1, head: int | None = None) -> Tensor:
        """(h, w) float32: where the place at `point` (x, y) looks; sums to one. `head` None is the mean of all heads."""
        row, column = self.cell_at(point)
        source = row // self.pooling * self.source_grid[1] + column // self.pooling
        return _heads(self.encoder, layer, head)[:, source].float().mean(0).reshape(self.grid)

    def encoder_to(self, point: tuple[float, float], *, layer: int = -1, head: int | None = None) -> Tensor:
        """(h, w) float32 (in general `source_grid`): how much each place looks at the one at `point` (x, y). `head` None is the mean of all heads."""
        row, column = self.cell_at(point)
        return _heads(self.encoder, layer, head)[:, :, row * self.grid[1] + column].float().mean(0).reshape(self.source_grid)

    def decoder_of(self, detection: int, *, layer: int = -1, head: int | None = None) -> Tensor:
        """(h, w) float32: where the query of a detection (its place in `detections`) looks; sums to one. `head` None is the mean of all heads."""
        if not 0 <= detection < len(self.queries):
            raise InputError(f"there is no detection {detection}; {len(self.queries)} are kept, numbered from 0")
        return _heads(self.decoder, layer, head)[:, detection].mean(0)


def look_inside(
    model: Model, image: Sample | Tensor | str | Path, *, min_score: float = 0.1, least: int = 10, most_values: int = MOST_VALUES
) -> AttentionRecord:
    """The attention of `model` for one image: a file, a (3, H, W) uint8 RGB tensor, or a sample as a data set gives it.

    The image goes through the model's evaluation transforms; the model is used as it is, on its device, in its mode. Kept are the detections that
    score at least `min_score`, and the best `least` in any case. Where the encoder's maps have more than `most_values` values, the places they are of
    are pooled, k x k to one.
    Raises InputError for a model without such attention, DataError for a file that can't be read, NumericError where something is not finite.
    """
    names = attention_names(model)
    sample = image if isinstance(image, Sample) else make_sample(image if isinstance(image, Tensor) else read_image(image))
    sample = evaluation_transform(model)(sample)
    batch = collate([sample]).to(next((p.device for p in model.parameters()), torch.device("cpu")))
    with torch.no_grad():
        outputs = model(batch)  # on the fused kernels: the detections are those of `predict`, and the grid is known before any map is made
        found, queries = _detections(model, outputs, sample.size, min_score, least)
        grid = (int(outputs["memory"].shape[-2]), int(outputs["memory"].shape[-1]))
        encoder, decoder, pooling = _maps(model, batch, names, queries, grid, most_values)
    picture = to_picture(sample.image.as_subclass(Tensor).clamp(0, 255).to(torch.uint8))
    return AttentionRecord(picture, grid, cell_size(sample.size, grid), encoder, decoder, found, queries.cpu(), model.classes, pooling)


def attention_names(model: Model) -> list[str]:
    """The attention modules that a record shows: of the encoder among its places, of the decoder to them. Raises InputError where one is missing."""
    layers = [name for name, module in model.named_modules() if isinstance(module, Attention) and _SHOWN.search(name)]
    kinds = {part for name in layers for part in ("encoder", "decoder") if f"transformer.{part}." in name}
    if kinds != {"encoder", "decoder"} or not isinstance(model, QueryDetector):
        raise InputError(
            f"{type(model).__name__} has no attention to look at: this needs a detector with a transformer encoder and decoder, such as those of the "
            "recipes detr_*"
        )
    return layers


def _detections(model: Model, outputs: Outputs, size: tuple[int, int], min_score: float, least: int) -> tuple[Detections, Tensor]:
    """The kept detections, best first, with boxes in pixels of the picture of `size`, and the numbers of their queries."""
    assert isinstance(model, QueryDetector)
    scores, labels, boxes = (values[0] for values in model.detect(outputs["logits"][-1], outputs["boxes"][-1]))
    if not (torch.isfinite(scores).all() and torch.isfinite(boxes).all()):
        raise NumericError("The model's boxes or scores for this picture are not finite; look at the checkpoint's weights.")
    order = scores.argsort(descending=True, stable=True)
    kept = order[: max(int((scores >= min_score).sum()), min(least, len(order)))]
    corners = boxes[kept] * boxes.new_tensor([size[1], size[0], size[1], size[0]])
    return Detections(clip_to_canvas(corners, size), scores[kept], labels[kept]).to("cpu"), kept


def _maps(
    model: Model, batch: Batch, names: Sequence[str], queries: Tensor, grid: tuple[int, int], most_values: int
) -> tuple[Tensor, Tensor, int]:
    """The encoder's maps, pooled where they are too many, the decoder's for `queries`, and the pooling; each layer is reduced once it has run."""
    encoder: list[Tensor] = []
    decoder: list[Tensor] = []
    pooling = 1
    num_layers = sum(".encoder." in f".{name}" for name in names)

    def taken(name: str, *_: object) -> None:
        nonlocal pooling
        weights = maps.pop(name)
        if not torch.isfinite(weights).all():
            raise NumericError(f"The attention of {name} is not finite for this picture; look at the checkpoint's weights.")
        if "decoder." in name:
            decoder.append(weights[0, :, queries].unflatten(-1, grid).float().cpu())
            return
        heads, places = weights.shape[1], weights.shape[2]
        while num_layers * heads * places**2 / pooling**2 > most_values and pooling < max(grid):
            pooling += 1
        encoder.append(pool_sources(weights[0], grid, pooling).half().cpu())

    with record_attention(model) as maps, ExitStack() as hooks:
        for name in names:
            hooks.callback(model.get_submodule(name).register_forward_hook(partial(taken, name)).remove)
        model(batch)
    return torch.stack(encoder), torch.stack(decoder), pooling


def pool_sources(maps: Tensor, grid: tuple[int, int], factor: int) -> Tensor:
    """Maps (..., S, T) whose rows belong to the places of `grid` (h, w), S = h w, with one row for each block of `factor` x `factor` places.

    A block's row is the mean of its places' rows (those at edges may be fewer), so it still sums to one.
    """
    if factor == 1:
        return maps
    flat = maps.reshape(-1, *maps.shape[-2:]).transpose(1, 2).unflatten(2, grid)  # (B, T, h, w)
    pooled = F.avg_pool2d(flat.float(), factor, ceil_mode=True).flatten(2)  # blocks at edges divide by the places they have
    return pooled.transpose(1, 2).reshape(*maps.shape[:-2], -1, maps.shape[-1]).to(maps.dtype)


def _heads(maps: Tensor, layer: int, head: int | None) -> Tensor:
    """(heads, ...): those of one layer, one head alone where it is named."""
    layers, heads = maps.shape[:2]
    if not -layers <= layer < layers:
        raise InputError(f"there is no layer {layer}; they are numbered 0 to {layers - 1} (-1 is the last)")
    if head is not None and not 0 <= head < heads:
        raise InputError(f"there is no head {head}; they are numbered 0 to {heads - 1} (None is their mean)")
    return maps[layer] if head is None else maps[layer, head : head + 1]


def cell_size(size: tuple[int, int], grid: tuple[int, int]) -> tuple[float, float]:
    """(height, width) of one place in pixels: the power of two by which the backbone shrinks `size` to `grid`, else the plain ratio."""
    exact = [s for s in (2**k for k in range(11)) if all(-(-side // s) == cells for side, cells in zip(size, grid))]
    if exact:
        nearest = min(exact, key=lambda s: abs(math.log2(s * max(grid) / max(size))))
        return float(nearest), float(nearest)
    return size[0] / grid[0], size[1] / grid[1]
