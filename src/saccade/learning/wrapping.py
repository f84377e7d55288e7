"""A model on its device, wrapped for the processes of a run by Fabric's strategy and precision.

Fabric's own wrapper looks through every input and output for tensors, which costs a small network a tenth of its step and copies whole batches;
here its parts are called directly. The model itself stays unwrapped, with its own key names.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saccade.learning.layout import channels_last
from saccade.models.contract import Model
from saccade.structures import Batch, Outputs

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class WrappedModel:
    """Calls `model` as the run's strategy (one process, DDP, FSDP) and precision ask for. Making one moves the model to its device."""

    def __init__(self, model: Model, fabric: Fabric) -> None:
        self.model, self._strategy = model, fabric.strategy
        self._precision = fabric.strategy.precision
        module: nn.Module = self._precision.convert_module(_Forwarding(channels_last(model)))
        self._strategy.module_to_device(module)
        self._module: Any = self._strategy.setup_module(module)

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loss scale of fp16, else None."""
        return getattr(self._precision, "scaler", None)

    def __call__(self, batch: Batch) -> Outputs:
        """The model's outputs, in float32 whatever the precision of the forward pass."""
        with self._precision.forward_context():
            outputs: Outputs = self._module(_Held(batch))
        converted: Outputs = self._precision.convert_output(outputs)
        return converted

    def backward(self, loss: Tensor) -> None:
        """Gradients of `loss`, scaled where the precision needs it."""
        self._strategy.backward(loss, None)

    def update(self, *optimizers: torch.optim.Optimizer) -> None:
        """One step of each of `optimizers`, in this order; with a loss scale, which is theirs together, left out after an overflow."""
        if self.scaler is None:
            for optimizer in optimizers:
                self._strategy.optimizer_step(optimizer)
            return
        for optimizer in optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()

    @contextlib.contextmanager
    def accumulating(self) -> Iterator[None]:
        """Within the block gradients are added up in each process and not yet averaged over them."""
        if hasattr(self._module, "no_sync"):  # DDP
            with self._module.no_sync():
                yield
        elif is_sharded(self.model):
            self._set_sync(False)
            yield
            self._set_sync(True)
        else:
            yield

    def _set_sync(self, value: bool) -> None:
        for part in self._module.children():
            part.set_requires_gradient_sync(value)


class _Held:
    """A batch on its way into a wrapped network. DDP looks into dataclasses and would copy them; this it passes on as it is."""

    __slots__ = ("batch",)

    def __init__(self, batch: Batch) -> None:
        self.batch = batch


class _Forwarding(nn.Module):
    """The module that is wrapped."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, held: _Held) -> Outputs:
        outputs: Outputs = self.model(held.batch)
        return outputs


def is_sharded(module: nn.Module) -> bool:
    """Whether the parameters of `module` are spread over the processes (FSDP)."""
    return any(hasattr(p, "full_tensor") for p in module.parameters())
