"""A third network, beside student and teacher, that never changes: the source model as it was, or another run's.

ProDA's stages learn from such a network; so does any distillation. The class that recipes name, `FixedNetwork`, opens checkpoints and lives in the
engine.
"""
from __future__ import annotations

import copy
from typing import Protocol, cast

from torch import nn

from saccade.models.contract import Model


class FixedSource(Protocol):
    """Says which network stays fixed. `opens` gives it, or None where it is the student as it began, whose weights a run then has to keep."""

    def opens(self) -> Model | None: ...


def frozen(model: Model) -> Model:
    """`model` itself without gradients, in evaluation mode."""
    module = cast("nn.Module", model)
    return cast("Model", module.requires_grad_(False).eval())


def frozen_copy(model: Model) -> Model:
    """A copy of `model` without gradients, in evaluation mode."""
    return frozen(copy.deepcopy(model))
