"""The class-ratio prior of ADVENT (Vu et al. 2019, arXiv:1811.12833, section 3.3), which the paper has and its code lacks (segmentation_adaptation.md
3.2): no class may all but vanish from the target's predictions that is frequent in the source.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from saccade.adaptation.class_shares import ClassShares, count_pixels, gta5_pixels
from saccade.adaptation.context import RAW, SOURCE, Context
from saccade.adaptation.maps import Output, level_name, logit_maps, pixels_of
from saccade.adaptation.term import Term
from saccade.errors import InputError
from saccade.models.contract import Model
from saccade.ops.distributed import sum_over_processes
from saccade.structures.ranges import NonNegativeFloat, Probability


class ClassPrior(Term):
    """`class_prior_loss` ("aux_..." for `aux_logits`): sum over the classes of max(0, slack * prior - mean probability), the mean over the images.

    `prior`: each class's share of the labelled pixels, as a list, the published one of "gta5", `ClassShares` of a data set, or "running", that of all
    source labels which the run has seen so far. `slack`: the part of it that an image's predictions must reach; predicting more of a class costs
    nothing.
    """

    def __init__(
        self, *, weight: NonNegativeFloat = 1.0, slack: Probability = 0.5,
        prior: Literal["gta5", "running"] | list[float] | ClassShares = "running", output: Output = "logits",
        view: str = RAW, source_view: str = SOURCE,
    ) -> None:
        self.weight, self.slack, self.prior, self.output, self.view, self.source_view = weight, slack, prior, output, view, source_view
        self._counts: Tensor | None = None

    def prepare(self, student: Model) -> None:
        """Raises InputError for a prior that does not fit the student's classes."""
        if isinstance(self.prior, list):
            if len(self.prior) != len(student.classes) or min(self.prior) < 0 or sum(self.prior) <= 0:
                raise InputError(f"ClassPrior: prior needs {len(student.classes)} shares, one a class, none negative; got {self.prior}")
            self._counts = torch.tensor(self.prior)
        elif self.prior == "gta5":
            self._counts = gta5_pixels(student.classes)

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The loss."""
        probabilities = logit_maps(self, context, "student", self.view, self.output).softmax(1)
        images = pixels_of(probabilities.movedim(1, -1), context.view(self.view))
        means = torch.stack([own.mean(0) for own in images])  # (N, C)
        missing = (self.slack * self._shares(context).to(means) - means).clamp(min=0)
        return {level_name("class_prior_loss", self.output): self.weight * missing.sum(1).mean()}

    def _shares(self, context: Context) -> Tensor:
        """(C,) summing to one."""
        if self.prior == "running":
            counts = self._counted(context)
        else:
            if self._counts is None and isinstance(self.prior, ClassShares):
                self._counts = self.prior.pixels(context.student.classes)
            assert self._counts is not None
            counts = self._counts
        return counts / counts.sum().clamp(min=1e-12)

    def _counted(self, context: Context) -> Tensor:
        """The pixels of each class of the source so far, this batch and those of the other processes included."""
        counts = sum_over_processes(count_pixels(context.view(self.source_view).targets, len(context.student.classes)))
        if self._counts is not None:
            counts = counts + self._counts.to(counts.device)
        if torch.is_grad_enabled():  # a step, and no look from outside
            self._counts = counts
        return counts

    def state_dict(self) -> dict[str, Any]:
        """The counts, so that a resumed run neither starts to count again nor measures again."""
        return {} if self._counts is None else {"counts": self._counts.cpu()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._counts = state.get("counts")
