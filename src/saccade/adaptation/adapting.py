"""The adapting learner: a method as the terms it adds up, the views it shows, its teacher, and what of the student may change.

A step: the teacher (or student) finds pseudo objects in the batch, views are made and carry them, every term reads what it needs, the sum of the
losses moves the student, opponents learn from the same passes, the teacher follows. Optimiser, precision, processes, gradient checks and schedules
are those of supervised learning, to which the whole step looks like one model: its forward pass gives the losses. So one pass of gradients over the
processes covers all views.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from saccade.adaptation.context import Network
from saccade.adaptation.fixed import FixedSource, frozen, frozen_copy
from saccade.adaptation.objective import Objective
from saccade.adaptation.objects import ObjectSource
from saccade.adaptation.opponents import Opponent
from saccade.adaptation.term import Term
from saccade.adaptation.trainable import set_trainable
from saccade.adaptation.views import View, ordered_views
from saccade.errors import InputError
from saccade.learning.ema import MovingAverage
from saccade.learning.groups import ParameterGroup
from saccade.learning.layout import channels_last
from saccade.learning.optimizers import OptimizerSpec
from saccade.learning.schedules import Schedule
from saccade.learning.supervised import Supervised
from saccade.learning.wrapping import is_sharded
from saccade.models.contract import Model
from saccade.structures import Batch
from saccade.structures.ranges import PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Adapting:
    """Adapts `model` (the student, with the weights of the source domain) to unlabelled batches, with labelled ones of the source beside them or not.

    `terms` are added up. `views`: what each network sees, by name; terms name the views that they read, "raw" is the batch itself, "source" that of
    the source domain. `teacher`: how a copy of the student follows it; none where None. `fixed`: a network that stays as it is. `objects`: who finds
    pseudo objects. `trainable`: "all" that the model trains, the scales and shifts of its "norms", "nothing", or a list of parameter groups and parts
    of parameter names. `groups`: multipliers of rate and weight decay, see `GroupRules`. `mode`: the student learns as it is evaluated (dropout off,
    batch norms with running statistics), or as it was trained ("train"); `teacher_mode` is the teacher's (in ProDA's code "train"). `evaluates`: the
    network that is scored and saved as the run's model; the other one is kept in the checkpoint's training state. `size_divisor`: of the views, as in
    `data`.
    """

    def __init__(
        self, *, model: Model, terms: list[Term], optimizer: OptimizerSpec, views: dict[str, View] | None = None,
        teacher: MovingAverage | None = None, fixed: FixedSource | None = None, objects: ObjectSource | None = None,
        trainable: Literal["all", "norms", "nothing"] | list[str] = "all", groups: dict[str, dict[str, float]] | None = None,
        mode: Literal["evaluate", "train"] = "evaluate", teacher_mode: Literal["evaluate", "train"] = "evaluate",
        evaluates: Literal["student", "teacher"] = "student", schedule: Schedule | None = None, clip_norm: PositiveFloat | None = None,
        size_divisor: PositiveInt = 1,
    ) -> None:
        ordered_views(views or {})
        if evaluates == "teacher" and teacher is None:
            raise InputError("learner.evaluates is teacher, but there is no teacher; give one, or evaluate the student")
        if teacher_mode == "train" and teacher is None:
            raise InputError("learner.teacher_mode is train, but there is no teacher; give one, or leave teacher_mode out")
        if objects is not None and objects.network == "teacher" and teacher is None:
            raise InputError(f"learner.objects: {type(objects).__name__} asks the teacher, but there is none; give one, or set `network: student`")
        self.student = model
        self.follows, self.evaluates = teacher, evaluates
        self.teacher: Model | None = None if teacher is None else frozen_copy(model)
        self.fixed, self._keeps_fixed = _fixed_network(fixed, model)
        set_trainable(model, trainable)
        for term in terms:
            term.prepare(model)
        self.opponents = _opponents(terms)
        self.objective = Objective(
            model, self.teacher, terms, views or {}, objects, size_divisor, fixed=self.fixed, mode=mode, teacher_mode=teacher_mode
        )
        self.optimizer = optimizer
        self._learns = any(p.requires_grad for p in model.parameters())
        if self.opponents and not self._learns:
            raise InputError(f"learner.trainable: nothing of the student learns, so {self.opponents[0].name} has nobody to play against")
        self._inner = Supervised(model=self.objective, optimizer=optimizer, schedule=schedule, groups=groups, clip_norm=clip_norm)
        self.schedule = self._inner.schedule

    @property
    def model(self) -> Model:
        """The network to evaluate and to save."""
        return self.network(self.evaluates)

    def network(self, which: Network) -> Model:
        """The student, the teacher or the fixed network. Raises InputError where there is none of that kind."""
        found = {"student": self.student, "teacher": self.teacher, "fixed": self.fixed}[which]
        if found is None:
            raise InputError(f"this adaptation has no {'teacher' if which == 'teacher' else 'fixed network'}")
        return found

    @property
    def steps(self) -> int:
        """How many steps were done."""
        return self._inner.steps

    def parameter_groups(self) -> list[ParameterGroup]:
        """What is trained, the opponents' groups last, for `explain` and the announcement of a run."""
        own = self._inner.parameter_groups() if self._learns else []
        return own + [group for opponent in self.opponents for group in opponent.parameter_groups()]

    def setup(self, fabric: Fabric, total_steps: int, steps_per_epoch: int) -> None:
        """Put all networks on their device. Raises InputError for sharded networks, which have no teacher of their own yet."""
        if self._learns:
            self._inner.setup(fabric, total_steps, steps_per_epoch)
        else:
            channels_last(self.student).to(fabric.device)
        if is_sharded(self.student):
            raise InputError("adaptation runs on copies of the whole network (run.strategy: ddp), not on sharded ones (fsdp)")
        for opponent in self.opponents:
            opponent.setup(fabric, total_steps, steps_per_epoch)
        for network in (self.teacher, self.fixed):
            if network is not None:
                channels_last(network).to(fabric.device)

    def step(self, *parts: Batch) -> dict[str, float]:
        """One step from `parts`, this process's pieces of one batch; raises NotFiniteError before any update, on every process."""
        number = self.objective.step = self.steps
        figures = self._learn(parts) if self._learns else self._look(parts)
        if self.follows is not None and self.teacher is not None:
            self.follows.update(self.teacher, self.student, number)
        return figures

    def _learn(self, parts: Sequence[Batch]) -> dict[str, float]:
        """Gradients of the student, then of its opponents from the same passes, then all updates."""
        for opponent in self.opponents:
            opponent.forget()
        figures = self._inner.gradients(*parts)
        for opponent in self.opponents:
            figures |= opponent.gradients(*parts)
        self._inner.update(*(opponent.learner for opponent in self.opponents))
        return figures

    def _look(self, parts: Sequence[Batch]) -> dict[str, float]:
        """A step in which nothing has a gradient: only layers that move by themselves do."""
        with torch.no_grad():
            losses = [self.objective.losses(self.objective(part), part) for part in parts]
        self._inner.steps += 1
        terms = {name: sum(float(loss[name]) for loss in losses) / len(losses) for name in losses[0]}
        return {"loss": sum(terms.values()), **terms}

    def state_dict(self) -> dict[str, Any]:
        """Optimisers, counters, opponents, what terms and finders of objects keep, and the weights of the networks that are not `model`."""
        inner = self._inner.state_dict() if self._learns else {"steps": self.steps}
        state: dict[str, Any] = {"learner": inner, "objects": {} if self.objective.objects is None else self.objective.objects.state_dict()}
        state["terms"] = [term.state_dict() for term in self.objective.terms]
        state["opponents"] = {opponent.name: opponent.state_dict() for opponent in self.opponents}
        for name, network in self._kept_networks().items():
            state[name] = {key: value.detach().cpu() for key, value in network.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; after `setup`."""
        if self._learns:
            self._inner.load_state_dict(state["learner"])
        else:
            self._inner.steps = state["learner"]["steps"]
        if self.objective.objects is not None:
            self.objective.objects.load_state_dict(state["objects"])
        for term, own in zip(self.objective.terms, state["terms"], strict=True):
            term.load_state_dict(own)
        for opponent in self.opponents:
            opponent.load_state_dict(state["opponents"][opponent.name])
        for name, network in self._kept_networks().items():
            network.load_state_dict(state[name])

    def _kept_networks(self) -> dict[str, Model]:
        """The networks whose weights only the training state has: "other" of student and teacher, and a "fixed" one that no file holds."""
        other = self.student if self.evaluates == "teacher" else self.teacher
        kept = {"other": other, "fixed": self.fixed if self._keeps_fixed else None}
        return {name: network for name, network in kept.items() if network is not None}


def _fixed_network(source: FixedSource | None, student: Model) -> tuple[Model | None, bool]:
    """The fixed network, and whether it is the student as it began. Raises InputError where it has other classes."""
    if source is None:
        return None, False
    opened = source.opens()
    if opened is None:
        return frozen_copy(student), True
    if opened.classes != student.classes:
        raise InputError(f"learner.fixed has other classes than the student: {', '.join(opened.classes)} against {', '.join(student.classes)}")
    return frozen(opened), False


def _opponents(terms: Sequence[Term]) -> list[Opponent]:
    """Those of `terms`. Raises InputError for two of one name."""
    found: dict[str, Opponent] = {}
    for term in terms:
        opponent = term.opponent()
        if opponent is not None and opponent.name in found:
            raise InputError(f"learner.terms: two terms have the opponent {opponent.name}; let them judge different outputs")
        if opponent is not None:
            found[opponent.name] = opponent
    return list(found.values())
