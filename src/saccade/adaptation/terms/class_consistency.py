"""Consistency with a slow teacher: the mean teacher (Tarvainen and Valpola 2017, arXiv:1703.01780), for any class scores.

The student's class probabilities on one view follow the teacher's on another. Left out: the ramp of the weight over the first epochs, which the paper
needs because its student starts from nothing, and the model with two heads.
"""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from saccade.adaptation.class_scores import ClassScores, class_scores
from saccade.adaptation.context import Context
from saccade.adaptation.term import Term
from saccade.errors import InputError
from saccade.structures.ranges import NonNegativeFloat


class ClassConsistency(Term):
    """`consistency_loss`: the mean squared difference of the class probabilities of student and teacher, over predictions and classes.

    Reads the class scores (see `class_scores`) of classifiers, of maps and of one-stage and set-predicting detectors, whose predictions stand in a
    fixed order; for maps and detectors the two views must share one geometry. Two-stage detectors, whose proposals differ, are refused.
    """

    def __init__(self, *, weight: NonNegativeFloat = 1.0, student_view: str = "student", teacher_view: str = "teacher") -> None:
        self.weight, self.student_view, self.teacher_view = weight, student_view, teacher_view

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The loss. Raises InputError where the predictions of the two networks do not correspond."""
        if "proposals" in context.outputs("student", self.student_view):
            raise InputError("ClassConsistency compares predictions in a fixed order, and proposals have none; use DetectionConsistency")
        student = class_scores(self, context, "student", self.student_view)
        teacher = class_scores(self, context, "teacher", self.teacher_view)
        if student.logits.shape != teacher.logits.shape:
            raise InputError(
                f"ClassConsistency compares the views {self.student_view!r} and {self.teacher_view!r} prediction by prediction, but the student has "
                f"{tuple(student.logits.shape)} scores and the teacher {tuple(teacher.logits.shape)}; let one view come `after` the other"
            )
        return {"consistency_loss": self.weight * F.mse_loss(_probabilities(student), _probabilities(teacher).detach())}


def _probabilities(scores: ClassScores) -> Tensor:
    return scores.logits.sigmoid() if scores.independent else scores.logits.softmax(1)
