"""What of a student may change while it adapts."""
from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal

from torch import nn

from saccade.errors import InputError
from saccade.models.contract import Model

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def set_trainable(model: Model, trainable: Literal["all", "norms", "nothing"] | Sequence[str]) -> None:
    """Let gradients reach only what `trainable` names (see `Adapting`). Raises InputError for a name that fits nothing, and where nothing is left."""
    if trainable == "all":
        chosen = [name for name, p in model.named_parameters() if p.requires_grad]
    elif trainable == "nothing":
        chosen = []
    elif trainable == "norms":
        norms = {path: module for path, module in model.named_modules() if isinstance(module, _NORMS)}
        chosen = [f"{path}.{own}" for path, module in norms.items() for own, _ in module.named_parameters(recurse=False)]
    else:
        chosen = _named(model, trainable)
    if trainable != "nothing" and not chosen:
        raise InputError(f"learner.trainable: {trainable} leaves nothing of {type(model).__name__} to train; its norms may be frozen layers")
    wanted = set(chosen)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in wanted)


def _named(model: Model, names: Sequence[str]) -> list[str]:
    groups = model.parameter_groups()
    parameters = [name for name, p in model.named_parameters() if p.requires_grad]
    chosen: list[str] = []
    for name in names:
        found = [p for p in parameters if p in groups[name]] if name in groups else [p for p in parameters if name in p]
        if not found:
            near = difflib.get_close_matches(name, [*groups, *parameters], n=3, cutoff=0.4)
            raise InputError(
                f"learner.trainable: {name!r} is neither a group of {type(model).__name__} ({', '.join(groups)}) nor part of the name of a parameter "
                f"that it trains{'; near: ' + ', '.join(near) if near else ''}"
            )
        chosen += found
    return chosen
