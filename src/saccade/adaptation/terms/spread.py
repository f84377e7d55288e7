"""Confidence regularisation (Zou et al. 2019, arXiv:1908.09822): predictions are kept from growing too sure of labels that may be wrong."""
from __future__ import annotations

from typing import Literal

from torch import Tensor

from saccade.adaptation.context import RAW, Context
from saccade.adaptation.term import Term
from saccade.structures.ranges import NonNegativeFloat

Kind = Literal["kld", "entropy"]


class Spread(Term):
    """`spread_loss`: how far the class probabilities of the student's pixels are from being spread evenly over the classes.

    Reads `logits` (N, C, h, w). `kind`: "kld" is the divergence from even probabilities, up to a constant (MRKLD; ProDA's, weight 0.1), "entropy" the
    negative entropy (MRENT). `view`: the one that the student learns from.
    """

    def __init__(self, *, weight: NonNegativeFloat = 0.1, kind: Kind = "kld", view: str = RAW) -> None:
        self.weight, self.kind, self.view = weight, kind, view

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The loss."""
        (logits,) = context.read(self, "student", self.view, "logits")
        return {"spread_loss": self.weight * spread(logits, self.kind)}


def spread(logits: Tensor, kind: Kind) -> Tensor:
    """Of logits (N, C, h, w), in nats: "kld" -mean over pixels and classes of log p, "entropy" the mean over pixels of the sum of p log p."""
    logs = logits.float().log_softmax(1)
    return -logs.mean() if kind == "kld" else (logs.exp() * logs).sum(1).mean()
