"""Networks that play against the student, as the discriminators of AdaptSegNet and ADVENT do: each with an optimiser, learning in the same step.

The order of a step is that of the published methods (Tsai et al. 2018, arXiv:1802.10349; segmentation_adaptation.md 4.1): the student's losses ask
the opponents, whose weights get no gradient from that; then each opponent learns from what its term kept of the same passes, detached; only then all
of them are updated, the student first. So nobody meets an opponent that has already moved.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from saccade.layers.pixels import PixelNorm
from saccade.learning.groups import ParameterGroup
from saccade.learning.optimizers import OptimizerSpec
from saccade.learning.schedules import Schedule
from saccade.learning.supervised import Supervised
from saccade.models.contract import Model
from saccade.structures import Batch, Outputs

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Losses = Callable[..., dict[str, Tensor]]


class Opponent:
    """A network that learns against the student, by the losses of the term that it belongs to.

    `losses(network, *kept)` gives its loss terms from the tensors that the term kept of one pass. `schedule`: constant where None. Gradients,
    processes, precision and the check for numbers that are not finite are those of supervised learning.
    """

    def __init__(self, *, name: str, network: nn.Module, losses: Losses, optimizer: OptimizerSpec, schedule: Schedule | None = None) -> None:
        self.name, self.network = name, network
        self._side = _Side(network, losses)
        self.learner = Supervised(model=self._side, optimizer=optimizer, schedule=schedule)

    def judge(self, maps: Tensor) -> Tensor:
        """What the network says of `maps`. Gradients reach them, but not its own weights."""
        weights = {name: value.detach() for name, value in self.network.named_parameters()}
        answer: Tensor = functional_call(self.network, weights, (maps,))
        return answer

    def keep(self, *tensors: Tensor) -> None:
        """Keep what it is to learn from in this pass, detached; nothing where no gradients are computed, for then nobody learns."""
        if torch.is_grad_enabled():
            self._side.kept.append(tuple(tensor.detach() for tensor in tensors))

    def parameter_groups(self) -> list[ParameterGroup]:
        """What of it is trained, under its name."""
        return [replace(group, name=self.name) for group in self.learner.parameter_groups()]

    def setup(self, fabric: Fabric, total_steps: int, steps_per_epoch: int) -> None:
        """Put the network on its device."""
        self.learner.setup(fabric, total_steps, steps_per_epoch)

    def forget(self) -> None:
        """Begin a step: nothing is kept of an earlier one that did not end."""
        self._side.kept.clear()

    def gradients(self, *parts: Batch) -> dict[str, float]:
        """Its gradients from what was kept of `parts`, and its figures, rate and norm under its name. Raises NotFiniteError."""
        figures = self.learner.gradients(*parts)
        del figures["loss"]
        return {f"{self.name}_{key}" if key in ("lr", "grad_norm") else key: value for key, value in figures.items()}

    def state_dict(self) -> dict[str, Any]:
        """Its weights, its optimiser and its counters."""
        weights = {name: value.detach().cpu() for name, value in self.network.state_dict().items()}
        return {"network": weights, "learner": self.learner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; after `setup`."""
        self.network.load_state_dict(state["network"])
        self.learner.load_state_dict(state["learner"])


class _Side(Model):
    """The opponent's half of a step as a model: its outputs are its losses on what was kept, pass by pass, whatever the batch."""

    def __init__(self, network: nn.Module, losses: Losses) -> None:
        super().__init__((), PixelNorm())
        self.network, self._losses = network, losses
        self.kept: deque[tuple[Tensor, ...]] = deque()

    def forward(self, batch: Batch) -> Outputs:
        """The losses on what was kept of the earliest pass."""
        return self._losses(self.network, *self.kept.popleft())

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The same."""
        return dict(outputs)
