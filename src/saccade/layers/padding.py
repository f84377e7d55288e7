"""Convolutions that do not see padding: what a network says about a picture is then the same whatever the picture was filled up to.

A convolution adds zeros around its input. Within a batch, the features of padded pixels stand there instead, which are not zero after the first norm,
and leak into the picture; released DETR models lose up to ten points of AP by it when they are evaluated in larger batches than they were trained in.
What is padded in a map follows from the layers that made it smaller, whether they round sizes up or down. Exact for networks of convolutions, norms
and max-pooling, such as plain ResNets; average pooling of odd sizes, averages over a whole map (squeeze-excite) and attention inside a backbone
still see it.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Masks = dict[tuple[int, int], Tensor]


class PaddingGuard:
    """Zeroes padded places before each convolution and max-pooling of `module` that looks beyond one place, while `hide` says where they are."""

    def __init__(self, module: nn.Module) -> None:
        self._masks: Masks = {}
        for child in module.modules():
            if isinstance(child, nn.Conv2d | nn.MaxPool2d) and _reach(child) > 1:
                child.register_forward_pre_hook(self._clear)
            if isinstance(child, nn.Conv2d | nn.MaxPool2d) and max(_pair(child.stride)) > 1:
                child.register_forward_hook(self._follow)

    @contextmanager
    def hide(self, padding: Tensor | None) -> Iterator[None]:
        """Inside, `padding` (N, H, W) bool holds for images (N, 3, H, W) that go through the module; None: nothing is padded."""
        self._masks = {} if padding is None else dict(pyramid(padding))
        try:
            yield
        finally:
            self._masks = {}

    def padding_of(self, maps: Tensor) -> Tensor | None:
        """(N, h, w) bool: what is padded in `maps` (N, C, h, w) of the module; only while `hide` holds, None where nothing is padded."""
        return self._mask((int(maps.shape[-2]), int(maps.shape[-1]))) if self._masks else None

    def _clear(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self._masks:
            return None
        x: Tensor = inputs[0]
        return (x.masked_fill(self._mask((int(x.shape[-2]), int(x.shape[-1])))[:, None], 0), *inputs[1:])

    def _follow(self, layer: nn.Conv2d | nn.MaxPool2d, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Notes what is padded in the map that a strided layer has made: what the layer makes of a picture alone is not."""
        if not self._masks:
            return
        size, made = tuple(inputs[0].shape[-2:]), (int(output.shape[-2]), int(output.shape[-1]))
        if _sizes_after(layer, torch.tensor([size]))[0].tolist() != list(made):  # it pads by a rule of its own
            return
        shown = ~self._mask((int(size[0]), int(size[1])))
        sizes = _sizes_after(layer, torch.stack([shown[:, :, 0].sum(1), shown[:, 0].sum(1)], 1))  # (N, 2)
        rows, columns = (torch.arange(length, device=shown.device) for length in made)
        self._masks[made] = (rows[None, :, None] >= sizes[:, :1, None]) | (columns[None, None] >= sizes[:, 1:, None])

    def _mask(self, size: tuple[int, int]) -> Tensor:
        if size not in self._masks:  # a network that strides by a rule of its own
            first = next(iter(self._masks.values()))
            self._masks[size] = F.interpolate(first[:, None].float(), size=size)[:, 0].bool()
        return self._masks[size]


def pyramid(padding: Tensor) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """`padding` (N, H, W) at full size, half of it, a quarter, ..., each by its size; halves are rounded up, as convolutions of stride two do."""
    while True:
        yield (int(padding.shape[-2]), int(padding.shape[-1])), padding
        if padding.shape[-2] == padding.shape[-1] == 1:
            return
        padding = padding[:, ::2, ::2]


def _reach(layer: nn.Conv2d | nn.MaxPool2d) -> int:
    return max(_pair(layer.kernel_size))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _sizes_after(layer: nn.Conv2d | nn.MaxPool2d, sizes: Tensor) -> Tensor:
    """(N, 2) heights and widths that `layer` makes of maps of `sizes` (N, 2) int."""
    if isinstance(layer.padding, str):  # "same", which torch has without a stride alone
        return sizes
    kernel, stride, padding, dilation = (
        torch.tensor(_pair(v), device=sizes.device) for v in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    beyond = sizes + 2 * padding - dilation * (kernel - 1) - 1
    if not getattr(layer, "ceil_mode", False):
        return beyond.div(stride, rounding_mode="floor") + 1
    made = -(-beyond).div(stride, rounding_mode="floor") + 1
    return made - ((made - 1) * stride >= sizes + padding).long()  # no window begins beyond the map
