"""Plain supervised learning: one network, one optimiser, the model's own losses.

The step: forward and losses of every part, backward, gradient norm, one check over all processes that everything is finite, clipping, update.
"""
from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saccade.learning.gradients import all_finite, not_finite_error, parameters_not_finite, sample_names, total_norm
from saccade.learning.groups import GroupRules, ParameterGroup, parameter_groups
from saccade.learning.optimizers import OptimizerSpec
from saccade.learning.schedules import Constant, Schedule
from saccade.learning.wrapping import WrappedModel, is_sharded
from saccade.models.contract import Model
from saccade.structures import Batch
from saccade.structures.ranges import NonNegativeFloat, PositiveFloat

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_MAX_SKIPPED = 25  # fp16: overflows in a row after which the loss scale is not what is wrong


class Supervised:
    """Learns from labelled batches by the model's losses.

    `groups`: learning rate and weight decay multipliers by parameter group or part of a name, see `GroupRules`, as are `norm_decay`, `bias_decay` and
    `bias_lr`. `clip_norm`: gradients are scaled down to this Euclidean norm. `schedule`: constant where None.
    """

    def __init__(
        self, *, model: Model, optimizer: OptimizerSpec, schedule: Schedule | None = None, groups: dict[str, dict[str, float]] | None = None,
        norm_decay: NonNegativeFloat = 1.0, bias_decay: NonNegativeFloat = 1.0, bias_lr: NonNegativeFloat = 1.0,
        clip_norm: PositiveFloat | None = None,
    ) -> None:
        self.model, self.optimizer, self.clip_norm = model, optimizer, clip_norm
        self.schedule: Schedule = Constant() if schedule is None else schedule
        self.rules = GroupRules(groups or {}, norm_decay, bias_decay, bias_lr)
        self.steps = 0

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups with their base rates, for the optimiser and for `explain`."""
        return parameter_groups(self.model, self.optimizer.lr, self.optimizer.weight_decay, self.rules)

    def setup(self, fabric: Fabric, total_steps: int, steps_per_epoch: int) -> None:
        """Put the network on its device, wrapped for the run's processes, and make the optimiser."""
        self._fabric, self._total_steps, self._steps_per_epoch = fabric, total_steps, steps_per_epoch
        self._wrapped = WrappedModel(self.model, fabric)
        self._scaler = self._wrapped.scaler
        groups = [group.for_optimizer() for group in self.parameter_groups()]
        self._optimizer = self.optimizer.build(groups, fused=self._scaler is None)
        self._parameters = [p for group in groups for p in group["params"]]
        self._skipped = 0

    def step(self, *parts: Batch) -> dict[str, float]:
        """One update from `parts`, this process's pieces of one batch. Raises NotFiniteError before it, on every process."""
        figures = self.gradients(*parts)
        self.update()
        return figures

    def gradients(self, *parts: Batch) -> dict[str, float]:
        """The first half of a step: every parameter's gradient, averaged and clipped, and the figures. Raises NotFiniteError, on every process."""
        lr = self._set_rates()
        terms, watched = self._gradients(parts)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        norm = total_norm(gradients)
        numbers = self._averaged([*terms.values(), norm, *watched.values()])
        values, norm_value = numbers[: len(terms)], numbers[len(terms)]
        finite = all_finite(values) and self._gradient_is_usable(norm_value)
        if not finite:
            raise self._not_finite(terms, norm_value, parts)
        if self.clip_norm is not None and norm_value > self.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self.clip_norm, norm)
        beside = dict(zip(watched, numbers[len(terms) + 1 :], strict=True))
        return {"loss": sum(values), **dict(zip(terms, values, strict=True)), "lr": lr, "grad_norm": norm_value, **beside}

    def update(self, *others: Supervised) -> None:
        """The second half of a step: move the weights by their gradients, then those of `others`, which share the loss scale; clear the gradients."""
        self._wrapped.update(self._optimizer, *(other._optimizer for other in others))
        for learner in (self, *others):
            for parameter in learner._parameters:
                parameter.grad = None
            learner.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and loss scale; the schedule needs only the step."""
        state: dict[str, Any] = {"steps": self.steps, "optimizer": self._optimizer_state()}
        if self._scaler is not None:
            state["scaler"] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; after `setup`."""
        self.steps = state["steps"]
        self._load_optimizer_state(state["optimizer"])
        if self._scaler is not None and "scaler" in state:
            self._scaler.load_state_dict(state["scaler"])

    def _set_rates(self) -> float:
        """Every group's rate for this step; returns the rate of a group without multiplier."""
        rates = {self.optimizer.lr: self.schedule.lr(self.steps, self.optimizer.lr, self._total_steps, self._steps_per_epoch)}
        for group in self._optimizer.param_groups:
            base = group["base_lr"]
            if base not in rates:
                rates[base] = self.schedule.lr(self.steps, base, self._total_steps, self._steps_per_epoch)
            group["lr"] = rates[base]
        return rates[self.optimizer.lr]

    def _gradients(self, parts: tuple[Batch, ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Backward through all parts; returns the loss terms, each the mean over the parts, and what the model wants watched of the last part."""
        terms: dict[str, Tensor] = {}
        for number, batch in enumerate(parts, 1):
            with self._wrapped.accumulating() if number < len(parts) else contextlib.nullcontext():
                outputs = self._wrapped(batch)
                own = self.model.losses(outputs, batch)
                if len(parts) > 1:
                    own = {name: term / len(parts) for name, term in own.items()}
                self._wrapped.backward(_sum(own))
            terms = {name: term.detach() + terms.get(name, 0.0) for name, term in own.items()} if terms else _detached(own)
        with torch.no_grad():
            return terms, self.model.figures(outputs, batch)

    def _averaged(self, figures: Sequence[Tensor]) -> list[float]:
        """Loss terms, gradient norm and what is watched as numbers, means over the processes: the step's only wait for the device."""
        numbers = torch.stack([figure.float() for figure in figures])
        if self._fabric.world_size > 1:
            # What is not finite anywhere is not finite in the mean, so this is also the check over all processes.
            torch.distributed.all_reduce(numbers)
            numbers = numbers / self._fabric.world_size
        result: list[float] = numbers.tolist()
        return result

    def _gradient_is_usable(self, norm: float) -> bool:
        """With loss scaling an overflow now and then is how the scale is found: the update is left out and the scale lowered."""
        if all_finite([norm]):
            self._skipped = 0
            return True
        self._skipped += 1
        return self._scaler is not None and self._skipped < _MAX_SKIPPED

    def _not_finite(self, terms: Mapping[str, Tensor], norm: float, parts: tuple[Batch, ...]) -> Exception:
        record = {
            "rank": self._fabric.global_rank, "terms": {name: float(term) for name, term in terms.items()}, "grad_norm": norm,
            "parameters": parameters_not_finite(self.model), "samples": sample_names(parts),
        }
        records = [record]
        if self._fabric.world_size > 1:
            records = [{} for _ in range(self._fabric.world_size)]
            torch.distributed.all_gather_object(records, record)
        return not_finite_error(self.steps, records)

    def _optimizer_state(self) -> dict[str, Any]:
        if is_sharded(self.model):
            from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

            return get_optimizer_state_dict(self.model, self._optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        return self._optimizer.state_dict()

    def _load_optimizer_state(self, state: dict[str, Any]) -> None:
        if is_sharded(self.model):
            from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

            set_optimizer_state_dict(self.model, self._optimizer, state, options=StateDictOptions(full_state_dict=True))
        else:
            self._optimizer.load_state_dict(state)


def _sum(terms: Mapping[str, Tensor]) -> Tensor:
    first, *others = terms.values()
    for term in others:
        first = first + term
    return first


def _detached(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: term.detach() for name, term in terms.items()}
