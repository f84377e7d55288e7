"""Entropy minimisation (TENT, Wang et al. 2021, arXiv:2006.10726): the student grows surer of what it predicts for the target domain.

TENT itself is this term with `BatchNormStatistics` and `trainable: norms`. Left out: entropy maps of segmentation, which are another reading.
"""
from __future__ import annotations

from torch import Tensor

from saccade.adaptation.class_scores import class_scores
from saccade.adaptation.context import RAW, Context
from saccade.adaptation.term import Term
from saccade.structures.ranges import NonNegativeFloat, Probability


class Entropy(Term):
    """`entropy_loss`: the mean Shannon entropy (nats) of the student's class scores on a view.

    Reads the class scores of any classifier or detector (see `class_scores`; for two-stage detectors those of the second stage on the student's own
    proposals). `min_foreground`: of a detector's predictions only those count that are an object with more than this probability, for most of them
    are certain background.
    """

    def __init__(self, *, weight: NonNegativeFloat = 1.0, min_foreground: Probability = 0.0, view: str = RAW) -> None:
        self.weight, self.min_foreground, self.view = weight, min_foreground, view

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The loss; 0 where no prediction counts."""
        scores = class_scores(self, context, "student", self.view)
        entropy = scores.entropy()
        counts = (scores.foreground() > self.min_foreground).to(entropy.dtype)
        if self.min_foreground == 0 or scores.background is None:
            counts = counts.new_ones(len(counts))
        return {"entropy_loss": self.weight * (entropy * counts).sum() / counts.sum().clamp(min=1)}
