"""The adapting learner: a method as the terms it adds up, the views it shows, its teacher, and what of the student may change.

A step: the teacher (or student) finds pseudo objects in the batch, views are made and carry them, every term reads what it needs, the sum of the
losses moves the student, the teacher follows. Optimiser, precision, processes, gradient checks and schedules are those of supervised learning, to
which the whole step looks like one model: its forward pass gives the losses. So one pass of gradients over the processes covers all views.
"""
from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from saccade.adaptation.context import RAW, Context, Network
from saccade.adaptation.objects import ObjectSource
from saccade.adaptation.term import Term
from saccade.adaptation.trainable import set_trainable
from saccade.adaptation.views import View, make_views, ordered_views
from saccade.errors import InputError
from saccade.learning.ema import MovingAverage
from saccade.learning.groups import ParameterGroup
from saccade.learning.layout import channels_last
from saccade.learning.optimizers import OptimizerSpec
from saccade.learning.schedules import Schedule
from saccade.learning.supervised import Supervised
from saccade.learning.wrapping import is_sharded
from saccade.models.contract import Model
from saccade.structures import Annotations, Batch, Outputs
from saccade.structures.ranges import PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Adapting:
    """Adapts `model` (the student, with the weights of the source domain) to unlabelled batches.

    `terms` are added up. `views`: what each network sees, by name; terms name the views that they read, "raw" is the batch itself. `teacher`: how a
    copy of the student follows it; none where None. `objects`: who finds pseudo objects. `trainable`: "all" that the model trains, the scales and
    shifts of its "norms", "nothing", or a list of parameter groups and parts of parameter names. `evaluates`: the network that is scored and saved as
    the run's model; the other one is kept in the checkpoint's training state. `size_divisor`: of the views, as in `data`.
    """

    def __init__(
        self, *, model: Model, terms: list[Term], optimizer: OptimizerSpec, views: dict[str, View] | None = None,
        teacher: MovingAverage | None = None, objects: ObjectSource | None = None, trainable: Literal["all", "norms", "nothing"] | list[str] = "all",
        evaluates: Literal["student", "teacher"] = "student", schedule: Schedule | None = None, clip_norm: PositiveFloat | None = None,
        size_divisor: PositiveInt = 1,
    ) -> None:
        ordered_views(views or {})
        if evaluates == "teacher" and teacher is None:
            raise InputError("learner.evaluates is teacher, but there is no teacher; give one, or evaluate the student")
        if objects is not None and objects.network == "teacher" and teacher is None:
            raise InputError(f"learner.objects: {type(objects).__name__} asks the teacher, but there is none; give one, or set `network: student`")
        self.student = model
        self.follows, self.evaluates = teacher, evaluates
        self.teacher: Model | None = None if teacher is None else _frozen_copy(model)
        set_trainable(model, trainable)
        for term in terms:
            term.prepare(model)
        self.objective = Objective(model, self.teacher, terms, views or {}, objects, size_divisor)
        self.optimizer = optimizer
        self._learns = any(p.requires_grad for p in model.parameters())
        self._inner = Supervised(model=self.objective, optimizer=optimizer, schedule=schedule, clip_norm=clip_norm)
        self.schedule = self._inner.schedule

    @property
    def model(self) -> Model:
        """The network to evaluate and to save."""
        return self.network(self.evaluates)

    def network(self, which: Network) -> Model:
        """The student or the teacher. Raises InputError where there is no teacher."""
        if which == "student":
            return self.student
        if self.teacher is None:
            raise InputError("this adaptation has no teacher")
        return self.teacher

    @property
    def steps(self) -> int:
        """How many steps were done."""
        return self._inner.steps

    def parameter_groups(self) -> list[ParameterGroup]:
        """What is trained, for `explain` and the announcement of a run."""
        return self._inner.parameter_groups() if self._learns else []

    def setup(self, fabric: Fabric, total_steps: int, steps_per_epoch: int) -> None:
        """Put both networks on their device. Raises InputError for sharded networks, which have no teacher of their own yet."""
        if self._learns:
            self._inner.setup(fabric, total_steps, steps_per_epoch)
        else:
            channels_last(self.student).to(fabric.device)
        if is_sharded(self.student):
            raise InputError("adaptation runs on copies of the whole network (run.strategy: ddp), not on sharded ones (fsdp)")
        if self.teacher is not None:
            channels_last(self.teacher).to(fabric.device)

    def step(self, *parts: Batch) -> dict[str, float]:
        """One step from `parts`, this process's pieces of one batch; raises NotFiniteError before the update, on every process."""
        number = self.objective.step = self.steps
        figures = self._inner.step(*parts) if self._learns else self._look(parts)
        if self.follows is not None and self.teacher is not None:
            self.follows.update(self.teacher, self.student, number)
        return figures

    def _look(self, parts: Sequence[Batch]) -> dict[str, float]:
        """A step in which nothing has a gradient: only layers that move by themselves do."""
        with torch.no_grad():
            losses = [self.objective.losses(self.objective(part), part) for part in parts]
        self._inner.steps += 1
        terms = {name: sum(float(loss[name]) for loss in losses) / len(losses) for name in losses[0]}
        return {"loss": sum(terms.values()), **terms}

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, counters, the state of what finds objects, and the weights of the network that is not `model`."""
        inner = self._inner.state_dict() if self._learns else {"steps": self.steps}
        state: dict[str, Any] = {"learner": inner, "objects": {} if self.objective.objects is None else self.objective.objects.state_dict()}
        other = self._other()
        if other is not None:
            state["other"] = {name: value.detach().cpu() for name, value in other.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; after `setup`."""
        if self._learns:
            self._inner.load_state_dict(state["learner"])
        else:
            self._inner.steps = state["learner"]["steps"]
        if self.objective.objects is not None:
            self.objective.objects.load_state_dict(state["objects"])
        other = self._other()
        if other is not None:
            other.load_state_dict(state["other"])

    def _other(self) -> Model | None:
        return self.student if self.evaluates == "teacher" else self.teacher


class Objective(Model):
    """A step of an adaptation as a model whose outputs are losses. The teacher is no part of it, so nothing wraps, trains or saves it here."""

    def __init__(
        self, student: Model, teacher: Model | None, terms: Sequence[Term], views: dict[str, View], objects: ObjectSource | None, size_divisor: int,
    ) -> None:
        super().__init__(student.classes, student.pixel_norm)
        self.student = student
        self._teacher = (teacher,)  # in a tuple, for torch registers modules that are attributes
        self.terms, self.views, self.objects, self.size_divisor = list(terms), dict(views), objects, size_divisor
        self.step = 0

    def forward(self, batch: Batch) -> Outputs:
        """`losses`: name -> scalar, and `objects`: pseudo objects an image (None without)."""
        (teacher,) = self._teacher
        for network in (self.student, teacher):
            if network is not None and network.training:
                network.eval()  # dropout off, proposals as in tests; terms turn on what they need
        context = Context(self.student, teacher, {RAW: make_views({}, batch, None)[RAW]}, self.step)
        with ExitStack() as stack:
            for term in self.terms:
                stack.enter_context(term.around(self.student, teacher, self.step))
            found = self._find(context)
            context.views.update(make_views(self.views, batch, found, self.size_divisor))
            losses = self._losses(context)
        if self.objects is not None and torch.is_grad_enabled():
            self.objects.watch(context)
        if torch.is_grad_enabled():
            losses = _with_gradient(losses)
        return {"losses": losses, "objects": None if found is None else sum(len(f) for f in map(_boxes, found)) / max(len(found), 1)}

    def _losses(self, context: Context) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for term in self.terms:
            own = term(context)
            if double := sorted(own.keys() & losses.keys()):
                raise InputError(f"learner.terms: two terms give the loss {', '.join(double)}; use one of them")
            losses |= own
        return losses

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The terms of this step."""
        return dict(outputs["losses"])

    def figures(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`pseudo_objects`: how many an image had."""
        return {} if outputs["objects"] is None else {"pseudo_objects": torch.tensor(float(outputs["objects"]), device=batch.images.device)}

    def parameter_groups(self) -> dict[str, list[str]]:
        """Those of the student."""
        return {name: [f"student.{own}" for own in members] for name, members in self.student.parameter_groups().items()}

    def _find(self, context: Context) -> list[Annotations] | None:
        if self.objects is None:
            return None
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.objects.network == "student"):
            return self.objects.find(context)


def _with_gradient(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """`losses`, of which at least one has a gradient: a step in which no term finds anything to do changes nothing."""
    if not losses:
        raise InputError("no term of this adaptation gives a loss, so there is nothing to train; set learner.trainable: nothing, or add a term")
    return losses if any(value.requires_grad for value in losses.values()) else {name: value.requires_grad_() for name, value in losses.items()}


def _boxes(target: Annotations) -> Tensor:
    return torch.zeros(0, 4) if target.boxes is None else target.boxes


def _frozen_copy(model: Model) -> Model:
    teacher = cast("nn.Module", copy.deepcopy(model))
    return cast("Model", teacher.requires_grad_(False).eval())
