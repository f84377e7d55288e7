"""Translation between a foreign checkpoint's key names and ours, both ways."""
from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class KeyMap:
    """How one origin names and lays out its tensors.

    `to_saccade(tensors, module)` gives the state dict that `module` loads strictly; `from_saccade` is its inverse. `recognises(keys)` tells from the
    key names alone whether a file is of this origin. Both directions may reorder rows (class order), but they never drop a tensor silently.
    """

    name: str
    recognises: Callable[[Collection[str]], bool]
    to_saccade: Callable[[Tensors, nn.Module], dict[str, Tensor]]
    from_saccade: Callable[[Tensors, nn.Module], dict[str, Tensor]]
