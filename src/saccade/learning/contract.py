"""What a learner is: how networks learn from a batch. The loop does not know which one it runs."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import nn

from saccade.structures import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@runtime_checkable
class Learner(Protocol):
    """Owns the networks and optimisers, and knows one step.

    `setup` is called once, with the number of steps of the whole run and of one epoch (for schedules); `step` takes one batch, does everything up to
    and including the optimiser step and returns named figures (the loss terms, "loss", "lr", "grad_norm"); it raises `NumericError` *before* the
    update when a loss or gradient is not finite on any rank.
    """

    model: nn.Module

    def setup(self, fabric: Fabric, total_steps: int, steps_per_epoch: int) -> None: ...
    def step(self, batch: Batch) -> dict[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
