"""Batch normalisation that does not learn: frozen layers as DETR and torchvision detectors use them, and turning a network's layers into them.

A frozen layer has the four tensors of a batch norm as buffers, so that no optimiser sees them; y = x * s + (b - mean * s), s = w / sqrt(var + eps).
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose affine parameters and statistics are buffers (detr_family.md 1.3). Equal to `torchvision.ops.FrozenBatchNorm2d` in numbers.

    Input and output (N, C, H, W). `after` is what a layer with a fused activation does next (timm's `BatchNormAct2d`). The scale and shift are
    folded inside one pass over the pixels; a half-precision input stays in half precision.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, *, channels: int, eps: float = 1e-5, after: nn.Module | None = None) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.after = nn.Identity() if after is None else after

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, H, W) normalised, same shape and type."""
        return self.after(F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any, **keywords: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # files of trained batch norms have a counter; nothing here depends on it
        super()._load_from_state_dict(state_dict, prefix, *arguments, **keywords)

    def extra_repr(self) -> str:
        """Channels and eps, for `print(model)`."""
        return f"{self.channels}, eps={self.eps}"


def batch_norms(module: nn.Module) -> Mapping[str, _BatchNorm]:
    """Every trainable batch norm inside `module` by dotted name (frozen ones are not among them)."""
    return {name: child for name, child in module.named_modules() if isinstance(child, _BatchNorm)}


def freeze_batch_norms(module: nn.Module) -> int:
    """Replaces each 2-d batch norm inside `module` by a `FrozenBatchNorm2d` with its values, in place; returns how many."""
    found = batch_norms(module)
    for name, norm in found.items():
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, _frozen_copy(norm))
    return len(found)


def _frozen_copy(norm: _BatchNorm) -> FrozenBatchNorm2d:
    after = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else None
    frozen = FrozenBatchNorm2d(channels=norm.num_features, eps=norm.eps, after=after)
    for key in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(norm, key)
        if value is not None:
            getattr(frozen, key).copy_(value.detach())
    return frozen.to(norm.running_mean.device) if norm.running_mean is not None else frozen
