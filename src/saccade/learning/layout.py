"""How weights lie in memory."""
from __future__ import annotations

import torch
from torch import nn


def channels_last(module: nn.Module) -> nn.Module:
    """Let two-dimensional convolutions of `module` work channel by channel of each pixel, in place; returns it.

    They train up to four times as fast so on CPUs, and gain on GPUs, too. `Module.to(memory_format=...)` would fail on weights of three-dimensional
    convolutions.
    """
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
