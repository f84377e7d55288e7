"""Translation between a foreign checkpoint's key names and ours, both ways."""
from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
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


def renamed(key: str, renames: Sequence[tuple[str, str]], prefix: str) -> str:
    """`key` without `prefix`, renamed by the first of `renames` (pattern at its beginning, replacement) that fits; `key` itself where none does."""
    plain = key.removeprefix(prefix)
    for ours, theirs in renames:
        if re.match(ours, plain):
            return re.sub(f"^{ours}", theirs, plain)
    return key
