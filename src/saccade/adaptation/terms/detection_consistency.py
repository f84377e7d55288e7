"""Detection consistency of DARTH (Segu et al. 2023, arXiv:2310.01926, section 4.1): the student of a two-stage detector agrees with its teacher
in both stages, on the same geometry seen through another appearance (tracking.md, section 8.4).

The first stage is compared densely, over all anchors and padding too; the second on the teacher's proposals. Gradients reach everything of the
student but its track head. Left out: consistency of masks.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saccade.adaptation.context import Context, method_of
from saccade.adaptation.term import Term
from saccade.errors import InputError
from saccade.structures.ranges import NonNegativeFloat


class DetectionConsistency(Term):
    """`rpn_distillation_loss` and `roi_distillation_loss` between the teacher's view and the student's, which share one geometry.

    Reads `rpn_logits` and `rpn_deltas` of both networks, `features` of both and the teacher's `proposals`, and calls `box_outputs` of both. `rpn` and
    `roi` weigh the stages; a stage of weight 0 is not computed. `threshold`: boxes of the first stage are compared where the teacher's logit exceeds
    the student's by more.
    """

    def __init__(
        self, *, rpn: NonNegativeFloat = 0.1, roi: NonNegativeFloat = 0.1, threshold: float = 0.1, student_view: str = "student",
        teacher_view: str = "teacher",
    ) -> None:
        self.rpn, self.roi, self.threshold = rpn, roi, threshold
        self.student_view, self.teacher_view = student_view, teacher_view

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """Both losses. Raises InputError where the two views have different sizes."""
        self._check_geometry(context)
        losses = {}
        if self.rpn:
            student = context.read(self, "student", self.student_view, "rpn_logits", "rpn_deltas")
            teacher = context.read(self, "teacher", self.teacher_view, "rpn_logits", "rpn_deltas")
            losses["rpn_distillation_loss"] = self.rpn * rpn_consistency(*student, *teacher, threshold=self.threshold)
        if self.roi:
            losses["roi_distillation_loss"] = self.roi * self._second_stage(context)
        return losses

    def _second_stage(self, context: Context) -> Tensor:
        features, proposals = context.read(self, "teacher", self.teacher_view, "features", "proposals")
        (own_features,) = context.read(self, "student", self.student_view, "features")
        with torch.no_grad():
            teacher = method_of(self, context.network("teacher"), "box_outputs")(features, proposals)
        student = method_of(self, context.student, "box_outputs")(own_features, proposals)
        return roi_consistency(*student, *teacher)

    def _check_geometry(self, context: Context) -> None:
        sizes = [tuple(context.view(view).images.shape[-2:]) for view in (self.student_view, self.teacher_view)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"DetectionConsistency compares the views {self.student_view!r} and {self.teacher_view!r} place by place, but they are "
                f"{sizes[0]} and {sizes[1]} pixels; let one come `after` the other, with transforms that leave the geometry as it is"
            )


def rpn_consistency(
    student_logits: Sequence[Tensor], student_deltas: Sequence[Tensor], teacher_logits: Sequence[Tensor], teacher_deltas: Sequence[Tensor], *,
    threshold: float,
) -> Tensor:
    """[sum of squared logit differences + sum of squared delta differences of the anchors where teacher - student > threshold] / number of logits.

    Lists a level: logits (N, A, h, w), deltas (N, 4A, h, w), channel a of the logits with channels 4a..4a+3 of the deltas. No sigmoid.
    """
    total = student_logits[0].new_zeros((), dtype=torch.float32)
    count = 0
    for own_logits, own_deltas, logits, deltas in zip(student_logits, student_deltas, teacher_logits, teacher_deltas, strict=True):
        difference = logits.detach().float() - own_logits.float()
        chosen = (difference.detach() > threshold).repeat_interleave(4, 1)  # (N, 4A, h, w)
        apart = deltas.detach().float() - own_deltas.float()
        total = total + difference.square().sum() + apart.masked_fill(~chosen, 0.0).square().sum()
        count += difference.numel()
    return total / max(count, 1)


def roi_consistency(student_logits: Tensor, student_deltas: Tensor, teacher_logits: Tensor, teacher_deltas: Tensor) -> Tensor:
    """[sum of squared differences of the logits, each row less its mean, + sum of squared delta differences] / number of logits.

    Logits (R, K + 1) with the background, deltas (R, 4K) of all classes. 0 without rows.
    """
    logits = _centred(teacher_logits.detach()) - _centred(student_logits)
    deltas = teacher_deltas.detach().float() - student_deltas.float()
    return (logits.square().sum() + deltas.square().sum()) / max(logits.numel(), 1)


def _centred(logits: Tensor) -> Tensor:
    values = logits.float()
    return values - values.mean(1, keepdim=True)
