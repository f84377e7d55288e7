"""What keeps a student a classifier while it adapts: the labels of the source domain, seen beside the target."""
from __future__ import annotations

from torch import Tensor

from saccade.adaptation.context import SOURCE, Context
from saccade.adaptation.term import Term
from saccade.structures.ranges import NonNegativeFloat


class Supervision(Term):
    """The student's own losses on the labelled images of the source domain (`data.source`), under their own names, times `weight`.

    `view`: "source", or a view after it. Works with every model. Raises InputError where the data has no source.
    """

    def __init__(self, *, weight: NonNegativeFloat = 1.0, view: str = SOURCE) -> None:
        self.weight, self.view = weight, view

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The losses."""
        batch = context.view(self.view)
        return {name: self.weight * value for name, value in context.student.losses(context.outputs("student", self.view), batch).items()}
