"""MIC (Hoyer et al. 2023, arXiv:2212.01322): what the teacher sees in a picture, the student is to see although most of it is hidden.

So it learns to use the context of a place. Works on top of any method with a teacher. Left out: masks on images of the source, which the paper tries.
"""
from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.adaptation.context import RAW, Context, Network
from saccade.adaptation.label_losses import label_cross_entropy
from saccade.adaptation.labels import OnlineLabels, sure_shares
from saccade.adaptation.term import Term
from saccade.adaptation.warping import enlarged, shown
from saccade.structures import IGNORE
from saccade.structures.ranges import NonNegativeFloat, PositiveInt, Probability

MASKED = "masked"  # the view that the term adds


class MaskedConsistency(Term):
    """`masked_loss`: cross-entropy of the student's `logits` on `view`, `ratio` of its squares of `patch` pixels hidden, at the size of the images.

    Reads `logits` of the student, and of `network` for what it `looks_at`, unmasked: its labels are those of all pixels of `view`, hidden ones too.
    An image counts by the share of its pixels whose label is at least `threshold` sure. What is hidden has the mean colour of the student's pixel
    statistics, which is 0 for the network.
    """

    def __init__(
        self, *, weight: NonNegativeFloat = 1.0, ratio: Probability = 0.7, patch: PositiveInt = 64, threshold: Probability = 0.968, view: str = RAW,
        network: Network = "teacher", looks_at: str = RAW,
    ) -> None:
        self.weight, self.ratio, self.patch, self.threshold, self.view = weight, ratio, patch, threshold, view
        self.labels = OnlineLabels(network=network, looks_at=looks_at)

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The loss."""
        batch = context.view(self.view)
        size = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
        found = self.labels.read(context, self.view, size)
        found = replace(found, labels=found.labels.masked_fill(~shown(batch, size), IGNORE))
        hidden = hidden_patches(len(batch), size, self.patch, self.ratio).to(batch.images.device)
        mean = batch.images.new_tensor(context.student.pixel_norm.mean, dtype=torch.float32).reshape(3, 1, 1)
        context.views[MASKED] = replace(batch, images=torch.where(hidden[:, None], mean, batch.images.float()))
        context.read(self, "student", MASKED, "logits")
        logits = enlarged(context.outputs("student", MASKED), "logits", context.view(MASKED), size)
        weights = sure_shares(found, self.threshold)[:, None, None].expand_as(found.confidence)
        return {"masked_loss": self.weight * label_cross_entropy(logits, found.labels, weights)}


def hidden_patches(number: int, size: tuple[int, int], patch: int, ratio: float) -> Tensor:
    """(N, H, W) bool: squares of `patch` pixels, each hidden with probability `ratio`, from torch's global random numbers."""
    rows, columns = (-(-side // patch) for side in size)
    drawn = (torch.rand(number, 1, rows, columns) < ratio).float()
    return F.interpolate(drawn, scale_factor=patch, mode="nearest")[:, 0, : size[0], : size[1]] > 0
