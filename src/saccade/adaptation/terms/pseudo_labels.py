"""Self-training of segmentation networks: labels that a network gave, now or before, as truth for a view (Zou et al. 2018, arXiv:1810.07911)."""
from __future__ import annotations

from typing import Literal

from torch import Tensor

from saccade.adaptation.context import RAW, Context
from saccade.adaptation.label_losses import label_cross_entropy, soft_cross_entropy, symmetric_cross_entropy
from saccade.adaptation.labels import LabelSource
from saccade.adaptation.term import Term
from saccade.adaptation.warping import enlarged, reduced_size, shown
from saccade.errors import InputError
from saccade.structures import IGNORE
from saccade.structures.ranges import NonNegativeFloat, PositiveInt


class PseudoLabels(Term):
    """`pseudo_label_loss` of the student's `logits` on `view`, against what `labels` says, on maps with a cell for every `stride` pixels.

    `loss`: "ce" is cross-entropy, "sce" the symmetric one (`alpha` and `beta` weigh its halves), "soft" cross-entropy against the probabilities.
    What `labels` holds for unsure does not count, nor do padding and holes (`View.holes`).
    """

    def __init__(
        self, *, labels: LabelSource, loss: Literal["ce", "sce", "soft"] = "ce", weight: NonNegativeFloat = 1.0, view: str = RAW,
        stride: PositiveInt = 4, alpha: NonNegativeFloat = 0.1, beta: NonNegativeFloat = 1.0,
    ) -> None:
        self.labels, self.loss, self.weight, self.view, self.stride, self.alpha, self.beta = labels, loss, weight, view, stride, alpha, beta

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The loss; 0 where no label is sure enough. Raises InputError where probabilities are asked for that nobody kept."""
        context.read(self, "student", self.view, "logits")
        batch = context.view(self.view)
        size = reduced_size(batch, self.stride)
        found, seen = self.labels.read(context, self.view, size), shown(batch, size)
        logits = enlarged(context.outputs("student", self.view), "logits", batch, size)
        if self.loss == "soft":
            if found.probabilities is None:
                raise InputError(f"PseudoLabels with `loss: soft` needs probabilities, and {type(self.labels).__name__} has none; take soft labels")
            loss = soft_cross_entropy(logits, found.probabilities, found.known & seen)
        else:
            labels = found.labels.masked_fill(~seen, IGNORE)
            plain = self.loss == "ce"
            loss = label_cross_entropy(logits, labels) if plain else symmetric_cross_entropy(logits, labels, alpha=self.alpha, beta=self.beta)
        return {"pseudo_label_loss": self.weight * loss}
