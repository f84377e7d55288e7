"""Maximum squares (Chen et al. 2019, arXiv:1909.13247): an entropy whose gradient does not grow with certainty, with image-wise class weights or
without (segmentation_adaptation.md 3.2). Left out: the multi-level guidance of the paper.
"""
from __future__ import annotations

import torch
from torch import Tensor

from saccade.adaptation.context import RAW, Context
from saccade.adaptation.maps import Output, level_name, logit_maps, pixels_of
from saccade.adaptation.term import Term
from saccade.structures.ranges import NonNegativeFloat, Probability


class MaxSquare(Term):
    """`max_square_loss` ("aux_..." for `aux_logits`): minus half the mean squared probability, over pixels and classes, at the size of the images.

    `image_weights`: an exponent (0.2 in the paper) lets rare classes of an image count more: - (sum of p^2 w) / (images * classes), each pixel with
    w = 1 / max(1, h^exponent * H^(1 - exponent)), h the pixels of the image that have its most probable class and H all of them. None: all pixels
    alike. Padding does not count.
    """

    def __init__(
        self, *, weight: NonNegativeFloat = 0.1, image_weights: Probability | None = None, output: Output = "logits",
        view: str = RAW,
    ) -> None:
        self.weight, self.image_weights, self.output, self.view = weight, image_weights, output, view

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The loss."""
        probabilities = logit_maps(self, context, "student", self.view, self.output).softmax(1)
        images = pixels_of(probabilities.movedim(1, -1), context.view(self.view))  # each (pixels, C)
        if self.image_weights is None:
            loss = -torch.cat(images).square().mean() / 2
        else:
            loss = -torch.stack([self._weighted(own, self.image_weights) for own in images]).mean()
        return {level_name("max_square_loss", self.output): self.weight * loss}

    def _weighted(self, probabilities: Tensor, exponent: float) -> Tensor:
        """The weighted sum of squares of one image (pixels, C), over the number of classes."""
        labels = probabilities.detach().argmax(1)
        pixels = torch.bincount(labels, minlength=probabilities.shape[1]).float()
        weights = 1 / (pixels**exponent * pixels.sum() ** (1 - exponent)).clamp(min=1)
        return (probabilities.square().sum(1) * weights[labels]).sum() / probabilities.shape[1]
