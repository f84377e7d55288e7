"""Gradient descent that moves some parameters several times a step, as the published training of AdaptSegNet, ADVENT and ProDA does unknowingly.

Their optimisers list a parameter of the backbone once for each module around it, so torch's one-by-one SGD of their time passed it three or four
times in a step: with the same gradient, weight decay on the value as it has become, and one momentum buffer for all passes. In the first step, where
there is no buffer yet, each pass begins with its own gradient. So the backbone learns about three times as fast as the settings say. torch's present
default for such a list (`foreach`) computes something else again. Spec: segmentation_adaptation.md 4.1.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class RepeatedSteps(torch.optim.Optimizer):
    """SGD with momentum; a group's `repeats` says how many passes a step makes over its parameters, 1 by default. Equal to torch's SGD then."""

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "repeats": 1})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of all parameters that have a gradient; returns what `closure` returns, which is called first."""
        with torch.enable_grad():
            result = None if closure is None else closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            fresh = [p for p in parameters if "momentum_buffer" not in self.state[p]]
            known = [p for p in parameters if "momentum_buffer" in self.state[p]]
            for some, begins in ((fresh, True), (known, False)):
                for _ in range(group["repeats"] if some else 0):
                    self._pass(some, group, begins)
        return result

    def _pass(self, parameters: list[Tensor], group: dict[str, Any], begins: bool) -> None:
        """One pass over distinct parameters; in the step with which they begin, the momentum is the gradient."""
        moves: Any = [p.grad for p in parameters]
        if group["weight_decay"]:
            moves = torch._foreach_add(moves, parameters, alpha=group["weight_decay"])
        if group["momentum"]:
            if begins:
                for parameter, move in zip(parameters, moves, strict=True):
                    self.state[parameter]["momentum_buffer"] = move.clone()
            else:
                buffers = [self.state[p]["momentum_buffer"] for p in parameters]
                torch._foreach_mul_(buffers, group["momentum"])
                torch._foreach_add_(buffers, moves)
                moves = buffers
        torch._foreach_add_(parameters, moves, alpha=-group["lr"])
