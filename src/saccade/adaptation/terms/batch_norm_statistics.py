"""Batch normalisation with the statistics of the target domain (AdaBN, Li et al. 2017; the first half of TENT).

While the student adapts, its batch norms normalise with the statistics of each batch, and their running statistics, with which the student predicts,
move towards these. TENT as published predicts with the statistics of the batch at hand, so its predictions depend on which images come together; a
moving average makes the adapted student a network like any other. Works with no gradient at all (`trainable: nothing`).
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from saccade.adaptation.context import RAW, Context
from saccade.adaptation.term import Term
from saccade.errors import InputError
from saccade.layers.normalization import batch_norms
from saccade.models.contract import Model
from saccade.structures.ranges import Probability


class BatchNormStatistics(Term):
    """Moves the running statistics of the student's batch norms by `momentum` towards those of every view that it sees; no loss.

    It makes the student look at `view`, in case no other term does. Batch norms that a model keeps in evaluation mode count; layers that were
    replaced by frozen ones (`norm: frozen`) have nothing to move, and a model with these alone is refused. Maps of one cell in
    a batch of one image keep the running statistics, for they have no others. `momentum` 0: batch statistics, none kept.
    """

    def __init__(self, *, momentum: Probability = 0.1, view: str = RAW) -> None:
        self.momentum, self.view = momentum, view

    def prepare(self, student: Model) -> None:
        """Raises InputError for a model without batch norms."""
        if not batch_norms(student):
            raise InputError(
                f"BatchNormStatistics: {type(student).__name__} has no batch norm with statistics to move; they are frozen layers or other norms. "
                "Leave this term out, or train the source model with `norm: eval` instead of `frozen`"
            )

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """No losses; the student's forward pass is what counts."""
        context.outputs("student", self.view)
        return {}

    @contextmanager
    def around(self, student: Model) -> Iterator[None]:
        """Within, batch norms use and move as described."""
        norms = list(batch_norms(student).values())
        before = [(norm.training, norm.momentum) for norm in norms]
        hooks = [norm.register_forward_pre_hook(_use_batch_statistics) for norm in norms]
        for norm in norms:
            norm.momentum = self.momentum
        try:
            yield
        finally:
            for norm, hook, (training, momentum) in zip(norms, hooks, before, strict=True):
                hook.remove()
                norm.training, norm.momentum = training, momentum


def _use_batch_statistics(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Normalise with the statistics of the input, unless it has a single value a channel, which has no variance."""
    norm.training = inputs[0].numel() > inputs[0].shape[1]
