"""Convolutions that do not see padding: what a network says about a picture is then the same whatever the picture was filled up to.

A convolution adds zeros around its input. Within a batch, the features of padded pixels stand there instead, which are not zero after the first norm,
and leak into the picture; released DETR models lose up to ten points of AP by it when they are evaluated in larger batches than they were trained in.
Exact for networks of convolutions, norms and max-pooling, such as plain ResNets; average pooling of odd sizes, averages over a whole map
(squeeze-excite) and attention inside a backbone still see it.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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

    @contextmanager
    def hide(self, padding: Tensor | None) -> Iterator[None]:
        """Inside, `padding` (N, H, W) bool holds for images (N, 3, H, W) that go through the module; None: nothing is padded."""
        self._masks = {} if padding is None else dict(pyramid(padding))
        try:
            yield
        finally:
            self._masks = {}

    def _clear(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self._masks:
            return None
        x: Tensor = inputs[0]
        size = (int(x.shape[-2]), int(x.shape[-1]))
        if size not in self._masks:  # a network that rounds sizes down, or strides by other numbers than two
            first = next(iter(self._masks.values()))
            self._masks[size] = F.interpolate(first[:, None].float(), size=size)[:, 0].bool()
        return (x.masked_fill(self._masks[size][:, None], 0), *inputs[1:])


def pyramid(padding: Tensor) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """`padding` (N, H, W) at full size, half of it, a quarter, ..., each by its size; halves are rounded up, as convolutions of stride two do."""
    while True:
        yield (int(padding.shape[-2]), int(padding.shape[-1])), padding
        if padding.shape[-2] == padding.shape[-1] == 1:
            return
        padding = padding[:, ::2, ::2]


def _reach(layer: nn.Module) -> int:
    size: Any = layer.kernel_size
    return max(size) if isinstance(size, tuple) else int(size)
