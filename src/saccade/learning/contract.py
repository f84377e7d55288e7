"""What a learner is: how networks learn from a batch. The loop does not know which one it runs."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from saccade.models.contract import Model
from saccade.structures import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@runtime_checkable
class Learner(Protocol):
    """Owns the networks and optimisers, and knows one step.

    `model` is the network to evaluate and to save. `setup` is called once, with the number of steps of the whole run and of one epoch (for
    schedules). `step` takes this process's part of a batch, in pieces where the run accumulates gradients (usually one), does everything up to and
    including the optimiser step and returns named figures: the loss terms, "loss" (their sum), "lr", "grad_norm", averaged over the processes. It
    raises `NumericError` *before* the update, on every process, when a loss or gradient is not finite on any of them. `state_dict` holds tensors,
    numbers, text, lists and dicts only, and not the weights of `model`; with sharded networks every process must call it.
    """

    model: Model

    def setup(self, fabric: Fabric, total_steps: int, steps_per_epoch: int) -> None: ...
    def step(self, *parts: Batch) -> dict[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
