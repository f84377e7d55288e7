"""Adversarial adaptation in the output space: AdaptSegNet (Tsai et al. 2018, arXiv:1802.10349, section 3) on softmax maps, ADVENT (Vu et al. 2019,
arXiv:1811.12833, section 3.2) on maps of self-information, and the warm-up of ProDA (segmentation_adaptation.md 3.1, 3.2, 4).

A discriminator tells maps of the source (0) from maps of the target (1), region by region; the student learns to make its target maps look like those
of the source. One term is one level: two with different outputs are the multi-level variants. Left out: adversaries in feature space.
"""
from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.adaptation.context import RAW, SOURCE, Context
from saccade.adaptation.maps import Output, level_name, logit_maps
from saccade.adaptation.opponents import Opponent
from saccade.adaptation.term import Term
from saccade.layers.discriminator import Discriminator
from saccade.learning.optimizers import OptimizerSpec
from saccade.learning.schedules import Schedule
from saccade.models.contract import Model
from saccade.ops.class_maps import self_information
from saccade.structures.ranges import NonNegativeFloat

SOURCE_DOMAIN, TARGET_DOMAIN = 0.0, 1.0


class Adversarial(Term):
    """`adversarial_loss` of the student, `discriminator_source_loss` and `discriminator_target_loss` of its opponent ("aux_..." for `aux_logits`).

    `maps`: what the discriminator sees of `output`, at the size of the images: probabilities, or their self-information. `loss`: "bce", cross-entropy
    of the domain, or "ls", the squared distance to 0 or 1. `weight`: of the student's loss. `optimizer` and `schedule` are the discriminator's.
    `halve`: its two losses count one half each; ProDA adds them up. Padding is 0 in every map.
    """

    def __init__(
        self, *, optimizer: OptimizerSpec, schedule: Schedule | None = None, discriminator: Discriminator | None = None,
        maps: Literal["softmax", "self_information"] = "softmax", loss: Literal["bce", "ls"] = "bce",
        output: Output = "logits", weight: NonNegativeFloat = 1e-3, halve: bool = True, view: str = RAW,
        source_view: str = SOURCE,
    ) -> None:
        self.optimizer, self.schedule, self.discriminator = optimizer, schedule, discriminator or Discriminator()
        self.maps, self.loss, self.output, self.weight, self.halve = maps, loss, output, weight, halve
        self.view, self.source_view = view, source_view

    def prepare(self, student: Model) -> None:
        """Make the discriminator for the student's classes."""
        network = self.discriminator.build(len(student.classes))
        name = level_name("discriminator", self.output)
        self._opponent = Opponent(name=name, network=network, losses=self._discriminate, optimizer=self.optimizer, schedule=self.schedule)

    def opponent(self) -> Opponent:
        """The discriminator."""
        return self._opponent

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """How far the discriminator is from taking the target's maps for the source's."""
        context.outputs("student", self.source_view)  # the source's pass first, as in the originals: batch norms that move see it before the target
        with torch.no_grad():
            source = self._seen(context, self.source_view)
        target = self._seen(context, self.view)
        self._opponent.keep(source, target)
        return {level_name("adversarial_loss", self.output): self.weight * self.distance(self._opponent.judge(target), SOURCE_DOMAIN)}

    def distance(self, answer: Tensor, domain: float) -> Tensor:
        """The loss of a discriminator's `answer` (N, 1, h, w), where `domain` would have been right: a mean over its places."""
        truth = torch.full_like(answer, domain, dtype=torch.float32)
        return F.binary_cross_entropy_with_logits(answer.float(), truth) if self.loss == "bce" else F.mse_loss(answer.float(), truth)

    def _seen(self, context: Context, view: str) -> Tensor:
        """(N, C, H, W) what the discriminator sees of a view."""
        probabilities = logit_maps(self, context, "student", view, self.output).softmax(1)
        maps = self_information(probabilities) if self.maps == "self_information" else probabilities
        padding = context.view(view).padding
        return maps if padding is None else maps.masked_fill(padding[:, None], 0.0)

    def _discriminate(self, network: nn.Module, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        share = 0.5 if self.halve else 1.0
        return {
            level_name("discriminator_source_loss", self.output): share * self.distance(network(source), SOURCE_DOMAIN),
            level_name("discriminator_target_loss", self.output): share * self.distance(network(target), TARGET_DOMAIN),
        }
