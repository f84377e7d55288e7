"""Entropy minimisation on maps: MinEnt of ADVENT (Vu et al. 2019, arXiv:1811.12833, section 3.1), with its variant on an entropy range, "+ER"
(segmentation_adaptation.md 3.2). `Entropy` is the plain term for any class scores, in nats and at the network's own resolution.
"""
from __future__ import annotations

import torch
from torch import Tensor

from saccade.adaptation.context import RAW, Context
from saccade.adaptation.maps import Output, level_name, logit_maps, pixels_of
from saccade.adaptation.term import Term
from saccade.ops.class_maps import entropy_map
from saccade.structures.ranges import NonNegativeFloat, Probability


class MapEntropy(Term):
    """`entropy_loss` ("aux_entropy_loss" for `aux_logits`): the mean entropy of the student's pixels at the size of the images, between 0 and 1.

    `share`: of the pixels of each image, only this fraction counts, those of the highest entropy (at least one); MinEnt+ER has 0.3. Padding does not
    count.
    """

    def __init__(
        self, *, weight: NonNegativeFloat = 1e-3, share: Probability = 1.0, output: Output = "logits", view: str = RAW,
    ) -> None:
        self.weight, self.share, self.output, self.view = weight, share, output, view

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The loss."""
        probabilities = logit_maps(self, context, "student", self.view, self.output).softmax(1)
        images = pixels_of(entropy_map(probabilities), context.view(self.view))
        if self.share < 1:
            images = [entropies.topk(max(1, int(self.share * len(entropies))), sorted=False).values for entropies in images]
        return {level_name("entropy_loss", self.output): self.weight * torch.cat(images).mean()}
