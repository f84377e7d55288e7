"""Our own names: nothing to translate."""
from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from saccade.weights.key_map import KeyMap, Tensors


def recognises(keys: Collection[str]) -> bool:
    """Whether these are names of ours, which those of timm's networks inside a model betray."""
    return any(key.startswith(("backbone.body.", "body.")) for key in keys)


def _unchanged(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    return dict(tensors)


KEY_MAP = KeyMap("saccade", recognises, _unchanged, _unchanged)
