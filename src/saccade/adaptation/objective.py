"""A step of an adaptation as a model whose outputs are losses, so that the learner of supervised learning trains it like any other.

The student is its only part: nothing wraps, trains or saves the teacher, the fixed network or the opponents here.
"""
from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor

from saccade.adaptation.context import Context
from saccade.adaptation.objects import ObjectSource
from saccade.adaptation.term import Term
from saccade.adaptation.views import View, make_views
from saccade.errors import InputError
from saccade.models.contract import Model
from saccade.structures import Annotations, Batch, Outputs


class Objective(Model):
    """The losses of `terms` on the views of a batch. `mode` and `teacher_mode`: whether student and teacher are in evaluation or in training mode."""

    def __init__(
        self, student: Model, teacher: Model | None, terms: Sequence[Term], views: dict[str, View], objects: ObjectSource | None, size_divisor: int,
        *, fixed: Model | None = None, mode: Literal["evaluate", "train"] = "evaluate", teacher_mode: Literal["evaluate", "train"] = "evaluate",
    ) -> None:
        super().__init__(student.classes, student.pixel_norm)
        self.student = student
        self._others = (teacher, fixed)  # in a tuple, for torch registers modules that are attributes
        self.terms, self.views, self.objects, self.size_divisor = list(terms), dict(views), objects, size_divisor
        self.mode, self.teacher_mode = mode, teacher_mode
        self.step = 0

    def forward(self, batch: Batch) -> Outputs:
        """`losses`: name -> scalar, and `objects`: pseudo objects an image (None without)."""
        teacher, fixed = self._others
        self._set_modes()
        context = Context(self.student, teacher, make_views({}, batch, None), self.step, fixed)
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

    def _set_modes(self) -> None:
        """Student and teacher as they are to be, the fixed network in evaluation mode: no dropout, proposals as in tests. Terms turn on what they
        need beyond that."""
        teacher, fixed = self._others
        wanted = ((self.student, self.mode == "train"), (teacher, self.teacher_mode == "train"), (fixed, False))
        for network, trains in wanted:
            if network is not None and network.training != trains:
                network.train(trains)

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
