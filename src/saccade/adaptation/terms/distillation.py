"""Distillation (Hinton et al. 2015, arXiv:1503.02531): the student says what another network says, class by class, about the same pixels.

The last two stages of ProDA (Zhang et al. 2021, arXiv:2101.10979, section 3.3), with the best student of the stage before as the other network.
"""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from saccade.adaptation.context import RAW, Context, Network
from saccade.adaptation.label_losses import mean_where
from saccade.adaptation.term import Term
from saccade.errors import InputError
from saccade.structures.ranges import NonNegativeFloat, PositiveFloat


class Distillation(Term):
    """`distillation_loss`: the divergence of the student's class probabilities from those of `network` on one `view`, a mean over its places.

    Reads `logits` of both, (N, C) or maps (N, C, h, w) at the networks' resolution; padding does not count. `temperature` divides all logits.
    `reference_quirks`: ProDA's code, which takes the student's probability for its logarithm and divides by the number of classes, too; all that it
    learns from is then -sum t s.
    """

    def __init__(
        self, *, weight: NonNegativeFloat = 1.0, network: Network = "fixed", view: str = RAW, temperature: PositiveFloat = 1.0,
        reference_quirks: bool = False,
    ) -> None:
        self.weight, self.network, self.view, self.temperature, self.reference_quirks = weight, network, view, temperature, reference_quirks

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The loss. Raises InputError where the two networks have logits of different forms."""
        (student,), (teacher,) = (context.read(self, which, self.view, "logits") for which in ("student", self.network))
        if student.shape != teacher.shape:
            raise InputError(
                f"Distillation compares logits place by place; those of the student are {tuple(student.shape)}, of the {self.network} network "
                f"{tuple(teacher.shape)}"
            )
        divergence = distillation(student.float() / self.temperature, teacher.float() / self.temperature, reference_quirks=self.reference_quirks)
        hidden = context.outputs("student", self.view).get("padding")
        return {"distillation_loss": self.weight * (divergence.mean() if hidden is None else mean_where(divergence, ~hidden))}


def distillation(student: Tensor, teacher: Tensor, *, reference_quirks: bool = False) -> Tensor:
    """The sum over the classes, dimension 1 of both logits, of t (log t - log s); with `reference_quirks` the mean of t (log t - s)."""
    targets = teacher.detach().softmax(1)
    if reference_quirks:
        return F.kl_div(student.softmax(1), targets, reduction="none").mean(1)
    return F.kl_div(student.log_softmax(1), targets, reduction="none").sum(1)
