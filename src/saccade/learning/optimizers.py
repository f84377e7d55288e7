"""Optimisers as small typed records that build torch's own: SGD, Adam, AdamW; and RepeatedSGD, which published training needs.

The fused versions are taken where torch has them (CPU and CUDA) and the multi-tensor versions elsewhere; both give torch's plain results up to
rounding. `fused=False` also serves loss scaling (fp16), whose gradients must be unscaled before they are clipped.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from saccade.errors import InputError
from saccade.learning.repeated_sgd import RepeatedSteps
from saccade.structures.ranges import NonNegativeFloat, PositiveFloat, Probability

ParameterGroups = Sequence[dict[str, Any]]  # torch's: {"params": [...], "lr": ..., "weight_decay": ...}


class OptimizerSpec(Protocol):
    """What a recipe names: the kind of optimiser and its numbers, without parameters."""

    lr: float
    weight_decay: float

    def build(self, groups: ParameterGroups, fused: bool = True) -> torch.optim.Optimizer: ...


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Gradient descent with momentum; `nesterov` needs a momentum."""

    lr: PositiveFloat
    momentum: Probability = 0.0
    weight_decay: NonNegativeFloat = 0.0
    nesterov: bool = False

    def build(self, groups: ParameterGroups, fused: bool = True) -> torch.optim.Optimizer:
        """The optimiser of those parameters."""
        if self.nesterov and not self.momentum:
            raise InputError("SGD: nesterov needs a momentum above 0")
        return torch.optim.SGD(
            list(groups), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov, **_version(groups, fused)
        )


@dataclass(frozen=True, kw_only=True)
class RepeatedSGD:
    """Gradient descent with momentum that passes parameters as often in a step as their group's `repeats` says (`learning/repeated_sgd.py`)."""

    lr: PositiveFloat
    momentum: Probability = 0.0
    weight_decay: NonNegativeFloat = 0.0

    def build(self, groups: ParameterGroups, fused: bool = True) -> torch.optim.Optimizer:
        """The optimiser of those parameters; there is one version."""
        return RepeatedSteps(list(groups), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba 2015); its weight decay is added to the gradient, as in the paper's successors before AdamW."""

    lr: PositiveFloat
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0

    def build(self, groups: ParameterGroups, fused: bool = True) -> torch.optim.Optimizer:
        """The optimiser of those parameters."""
        return torch.optim.Adam(
            list(groups), lr=self.lr, betas=self.betas, eps=self.epsilon, weight_decay=self.weight_decay, **_version(groups, fused)
        )


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    lr: PositiveFloat
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.01

    def build(self, groups: ParameterGroups, fused: bool = True) -> torch.optim.Optimizer:
        """The optimiser of those parameters."""
        return torch.optim.AdamW(
            list(groups), lr=self.lr, betas=self.betas, eps=self.epsilon, weight_decay=self.weight_decay, **_version(groups, fused)
        )


def _version(groups: ParameterGroups, fused: bool) -> dict[str, bool]:
    """Arguments that choose torch's version. Raises InputError for groups that want several passes a step, which none of them makes."""
    repeated = next((group for group in groups if group.get("repeats", 1) != 1), None)
    if repeated is not None:
        raise InputError(f"learner.groups.{repeated['name']}: repeats needs the optimizer RepeatedSGD; take that one, or leave repeats out")
    parameters = [p for group in groups for p in group["params"]]
    if fused and all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters):
        return {"fused": True}
    return {"foreach": True}
