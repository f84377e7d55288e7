"""Batch normalisation with the statistics of the target domain (AdaBN, Li et al. 2017; the first half of TENT).

The running statistics, with which a network predicts, move towards those of the target's images. TENT as published predicts with the statistics of
the batch at hand, so its predictions depend on which images come together; a moving average makes the adapted student a network like any other. Works
with no gradient at all (`trainable: nothing`).
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from saccade.adaptation.context import RAW, Context
from saccade.adaptation.term import Term
from saccade.errors import InputError
from saccade.layers.normalization import batch_norms
from saccade.models.contract import Model
from saccade.structures.ranges import PositiveInt, Probability


class BatchNormStatistics(Term):
    """Lets batch norms take over the statistics of the target's images, and says what they normalise with while the student learns; no loss.

    `momentum`: how far running statistics move in a pass. `moved_by`: "all" passes of a step; or a pass of its "own" over `view`, without gradient,
    so that views with distorted colours leave no trace in the statistics. `normalise`: with the statistics of the "batch" in the passes of a step,
    through which gradients then go; or with the "running" ones, which a network that was trained with batch norms rarely bears, for nothing rescales
    what its changing weights give. `of`: the student's alone, or also the teacher's ("both"), so that what it says fits the target soon; where the
    pass is its own the teacher's other passes use its running statistics. `steps`: how long statistics move; None is throughout.

    Batch norms that a model keeps in evaluation mode count; layers that were replaced by frozen ones (`norm: frozen`) have nothing to move, and a
    model with these alone is refused. Maps of one cell in a batch of one image keep the running statistics, for they have no others.
    """

    def __init__(
        self, *, momentum: Probability = 0.1, moved_by: Literal["all", "own"] = "all", normalise: Literal["batch", "running"] = "batch",
        of: Literal["student", "both"] = "student", view: str = RAW, steps: PositiveInt | None = None,
    ) -> None:
        if moved_by == "all" and normalise == "running":
            raise InputError("BatchNormStatistics: passes that normalise with running statistics can't move them; set moved_by: own")
        self.momentum, self.moved_by, self.normalise, self.of, self.view, self.steps = momentum, moved_by, normalise, of, view, steps

    def prepare(self, student: Model) -> None:
        """Raises InputError for a model without batch norms."""
        if not batch_norms(student):
            raise InputError(
                f"BatchNormStatistics: {type(student).__name__} has no batch norm with statistics to move; they are frozen layers or other norms. "
                "Leave this term out, or train the source model with `norm: eval` instead of `frozen`"
            )

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """No losses; what counts is that the networks look."""
        if self.moved_by == "own" and self._moves(context.step):
            networks = self._networks(context.student, context.teacher)
            with torch.no_grad(), batch_statistics(networks, self.momentum):
                for network in networks:
                    network(context.view(self.view))
        return {}

    @contextmanager
    def around(self, student: Model, teacher: Model | None, step: int) -> Iterator[None]:
        """Within, batch norms normalise, and where all passes do so move, as described."""
        if self.normalise == "running":
            yield
            return
        every_pass = self.moved_by == "all"
        with batch_statistics(self._networks(student, teacher if every_pass else None), self.momentum if every_pass and self._moves(step) else 0.0):
            yield

    def _moves(self, step: int) -> bool:
        return self.steps is None or step < self.steps

    def _networks(self, student: Model, teacher: Model | None) -> list[Model]:
        return [student, *([teacher] if teacher is not None and self.of == "both" else [])]


@contextmanager
def batch_statistics(networks: Sequence[nn.Module], momentum: float) -> Iterator[None]:
    """Within, the batch norms of `networks` use the statistics of their inputs and move their running ones towards these by `momentum`."""
    norms = [norm for network in networks for norm in batch_norms(network).values()]
    before = [(norm.training, norm.momentum) for norm in norms]
    hooks = [norm.register_forward_pre_hook(_use_batch_statistics) for norm in norms]
    for norm in norms:
        norm.momentum = momentum
    try:
        yield
    finally:
        for norm, hook, (training, old) in zip(norms, hooks, before, strict=True):
            hook.remove()
            norm.training, norm.momentum = training, old


def _use_batch_statistics(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Normalise with the statistics of the input, unless it has a single value a channel, which has no variance."""
    norm.training = inputs[0].numel() > inputs[0].shape[1]
