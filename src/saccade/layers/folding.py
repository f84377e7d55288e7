"""Batch norms folded into the convolutions before them: the same network with fewer passes over its feature maps, for prediction only."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.layers.normalization import FrozenBatchNorm2d


@torch.no_grad()
def fold_batch_norms(module: nn.Module, example: Any) -> int:
    """Folds every batch norm of `module` that directly follows a convolution into it, in place, and returns how many were folded.

    `example`, whatever `module` takes, is sent through it once to see what follows what, so only what this call runs is folded; a norm whose
    convolution has another reader as well is left alone. The module must be in eval mode: afterwards its running statistics are part of the weights
    and it must not be trained. Results differ by rounding alone.
    """
    if module.training:
        raise ValueError("fold_batch_norms: the module is in train mode; its batch norms would still change. Call eval() first.")
    pairs = _follow(module, example)
    for norm, convolution in pairs.items():
        _absorb(convolution, norm)
    for name, child in list(module.named_modules()):
        if child in pairs:
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, _what_follows(child))
    return len(pairs)


def fold_at_first_call(module: nn.Module) -> None:
    """As `fold_batch_norms`, with what `module` is called with first."""

    def fold(called: nn.Module, inputs: tuple[Any, ...]) -> None:
        handle.remove()
        fold_batch_norms(called, *inputs)

    handle = module.register_forward_pre_hook(fold)


def _follow(module: nn.Module, example: Any) -> dict[nn.Module, nn.Conv2d]:
    """Norm -> the convolution whose output it alone reads; both called once."""
    made: dict[int, nn.Conv2d] = {}
    read: dict[nn.Module, nn.Conv2d] = {}
    readers: dict[nn.Conv2d, int] = {}
    calls: dict[nn.Module, int] = {}
    kept: list[Tensor] = []  # tensors stay alive, so that no two have the same id

    def before(child: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[child] = calls.get(child, 0) + 1
        source = made.get(id(inputs[0])) if inputs else None
        is_norm = isinstance(child, FrozenBatchNorm2d | _BatchNorm)
        if source is not None and (is_norm or not list(child.children())):  # a container reads nothing itself
            readers[source] = readers.get(source, 0) + 1
            if is_norm:
                read[child] = source

    def after(child: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(child, nn.Conv2d):
            made[id(output)] = child
            kept.append(output)

    handles = [h for child in module.modules() for h in (child.register_forward_pre_hook(before), child.register_forward_hook(after))]
    try:
        module(example)
    finally:
        for handle in handles:
            handle.remove()
    return {norm: source for norm, source in read.items() if readers[source] == 1 and calls[norm] == 1 and calls[source] == 1}


def _absorb(convolution: nn.Conv2d, norm: Any) -> None:
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    shift = torch.zeros_like(scale)
    if norm.weight is not None:
        scale, shift = scale * norm.weight.double(), norm.bias.double()
    bias = convolution.bias.double() if convolution.bias is not None else torch.zeros_like(shift)
    convolution.weight.copy_(convolution.weight.double() * scale[:, None, None, None])
    folded = (bias - mean) * scale + shift
    convolution.bias = nn.Parameter(folded.to(convolution.weight.dtype), requires_grad=False)


def _what_follows(norm: nn.Module) -> nn.Module:
    """The activation that a fused norm layer ends with; timm's has a dropout before it, which does nothing in eval mode."""
    after = getattr(norm, "after", None) if isinstance(norm, FrozenBatchNorm2d) else getattr(norm, "act", None)
    return after if isinstance(after, nn.Module) else nn.Identity()
