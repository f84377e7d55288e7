"""Parameter groups: which parameters learn with which rate and weight decay.

The rule is mmcv's `paramwise_cfg` with readable names. A key of `groups` is a group that the model offers (`model.parameter_groups()`, "backbone" at
least) or a part of parameter names ("absolute_pos_embed"). The longest key that fits a parameter wins, and its multipliers are then all that
counts; parameters without a key follow the rules for norms and biases. Leaves out mmcv's rules for deformable and depth-wise convolutions.
"""
from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from saccade.errors import InputError
from saccade.models.contract import Model

_MULTIPLIERS = ("lr", "weight_decay", "repeats")


@dataclass(frozen=True)
class GroupRules:
    """Multipliers of the recipe's learning rate and weight decay.

    `groups`: key -> {"lr": ..., "weight_decay": ..., "repeats": ...}, each 1 where it is not given; `repeats`, a whole number, is how often a step
    passes these parameters, which only `RepeatedSGD` can. For the parameters without a key: `norm_decay` for weights and biases of normalisation
    layers, `bias_decay` and `bias_lr` for the biases of all other layers.
    """

    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    norm_decay: float = 1.0
    bias_decay: float = 1.0
    bias_lr: float = 1.0

    def __post_init__(self) -> None:
        for key, multipliers in self.groups.items():
            unknown = sorted(set(multipliers) - set(_MULTIPLIERS))
            if unknown:
                raise InputError(f"learner.groups.{key}: unknown {', '.join(unknown)}; a group has multipliers {' and '.join(_MULTIPLIERS)}")
            if any(value < 0 for value in multipliers.values()):
                raise InputError(f"learner.groups.{key}: multipliers can't be negative; got {dict(multipliers)}")
            if (repeats := multipliers.get("repeats", 1)) != int(repeats) or repeats < 1:
                raise InputError(f"learner.groups.{key}: repeats is how often a step passes the parameters, a whole number from 1; got {repeats}")


@dataclass
class ParameterGroup:
    """Parameters that learn alike: why they are together, their rate and weight decay, the parameters by name, and how often a step passes them."""

    name: str
    lr: float
    weight_decay: float
    parameters: dict[str, nn.Parameter]
    repeats: int = 1

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return sum(p.numel() for p in self.parameters.values())

    @property
    def rate(self) -> str:
        """The learning rate as text, with the passes of a step where it makes several."""
        return f"{self.lr:g}" if self.repeats == 1 else f"{self.lr:g}, {self.repeats} times a step"

    def for_optimizer(self) -> dict[str, Any]:
        """As torch's optimisers take it; `name` and `base_lr`, and `repeats` where it is not 1, stay in the group."""
        values = list(self.parameters.values())
        group: dict[str, Any] = {"params": values, "lr": self.lr, "weight_decay": self.weight_decay, "base_lr": self.lr, "name": self.name}
        return group if self.repeats == 1 else group | {"repeats": self.repeats}


def parameter_groups(model: Model, lr: float, weight_decay: float, rules: GroupRules) -> list[ParameterGroup]:
    """The trainable parameters of `model` in groups, in the order of their first parameter.

    Raises InputError for a key that fits no parameter, and when nothing is trainable.
    """
    offered = {name: frozenset(members) for name, members in model.parameter_groups().items()}
    # Longest first; equally long ones in alphabetical order, as mmcv sorts them.
    keys = sorted(sorted(rules.groups), key=len, reverse=True)
    norm_parameters = _parameters_of_norms(model)
    groups: dict[tuple[str, float, float, int], ParameterGroup] = {}
    used: set[str] = set()
    for name, parameter in model.named_parameters():
        fitting = [key for key in keys if _fits(key, name, offered)]
        used.update(fitting)
        if not parameter.requires_grad:
            continue
        label, lr_factor, decay_factor = _multipliers(name, fitting, rules, norm_parameters)
        repeats = int(rules.groups[label].get("repeats", 1)) if fitting else 1
        key = (label, lr_factor, decay_factor, repeats)
        group = groups.setdefault(key, ParameterGroup(label, lr * lr_factor, weight_decay * decay_factor, {}, repeats))
        group.parameters[name] = parameter
    _check_used(keys, used, model, offered)
    if not groups:
        raise InputError(f"no parameter of {type(model).__name__} is trainable: everything is frozen, so there is nothing to learn")
    return list(groups.values())


def _multipliers(name: str, fitting: list[str], rules: GroupRules, norm_parameters: set[str]) -> tuple[str, float, float]:
    if fitting:
        chosen = rules.groups[fitting[0]]
        return fitting[0], chosen.get("lr", 1.0), chosen.get("weight_decay", 1.0)
    if name in norm_parameters and rules.norm_decay != 1.0:
        return "norms", 1.0, rules.norm_decay
    is_bias = name.rpartition(".")[2] == "bias" and name not in norm_parameters
    if is_bias and (rules.bias_decay, rules.bias_lr) != (1.0, 1.0):
        return "biases", rules.bias_lr, rules.bias_decay
    return "all others" if rules != GroupRules() else "all", 1.0, 1.0


def _fits(key: str, name: str, offered: Mapping[str, frozenset[str]]) -> bool:
    return name in offered[key] if key in offered else key in name


def _parameters_of_norms(model: nn.Module) -> set[str]:
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
    names: set[str] = set()
    for path, module in model.named_modules():
        # timm and others derive their own norms without torch's base class.
        if isinstance(module, kinds) or type(module).__name__.lower().rstrip("0123456789d").endswith("norm"):
            names.update(f"{path}.{own}" for own, _ in module.named_parameters(recurse=False))
    return names


def _check_used(keys: list[str], used: set[str], model: Model, offered: Mapping[str, frozenset[str]]) -> None:
    for key in keys:
        if key not in used:
            near = difflib.get_close_matches(key, [*offered, *(n for n, _ in model.named_parameters())], n=3, cutoff=0.4)
            hint = f"; near: {', '.join(near)}" if near else ""
            raise InputError(
                f"learner.groups.{key}: no parameter of {type(model).__name__} is in a group or has a name of that kind; "
                f"the groups are {', '.join(offered)}{hint}"
            )

