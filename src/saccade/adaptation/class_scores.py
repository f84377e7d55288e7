"""What any model of the house says about classes, in one form: log probabilities of each of its predictions, for terms that act on class scores."""
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from saccade.adaptation.context import Context, Network, method_of
from saccade.errors import InputError


@dataclass(frozen=True)
class ClassScores:
    """`logits` (n, C) float32 of the n predictions of a view; `background`: the column that means "nothing", None where there is none.

    `independent`: each class has a probability of its own (sigmoid), else they sum to one (softmax).
    """

    logits: Tensor
    background: int | None
    independent: bool = False

    def entropy(self) -> Tensor:
        """(n,) the Shannon entropy of each prediction in nats; of independent classes the sum of theirs."""
        if self.independent:
            positive, negative = F.logsigmoid(self.logits), F.logsigmoid(-self.logits)
            return -(positive.exp() * positive + negative.exp() * negative).sum(1)
        logs = self.logits.log_softmax(1)
        return -(logs.exp() * logs).sum(1)

    def foreground(self) -> Tensor:
        """(n,) the probability that a prediction is of any class, detached; 1 where there is no background."""
        if self.background is None:
            return self.logits.new_ones(len(self.logits))
        return 1 - self.logits.detach().softmax(1)[:, self.background]


def class_scores(term: object, context: Context, which: Network, view: str) -> ClassScores:
    """The class scores of a network for a view.

    Reads `logits` (image classifiers, set predictors with their no-object class last, and maps (N, C, h, w), of which each place is a prediction,
    but for `padding` (N, h, w)), or `class_logits` with the background first (SSD), or the second stage of a two-stage detector on its own proposals,
    background last. Raises InputError for models that give none of these.
    """
    outputs, model = context.outputs(which, view), context.network(which)
    if "class_logits" in outputs:
        return ClassScores(outputs["class_logits"].flatten(0, -2).float(), 0)
    if "logits" in outputs:
        logits = outputs["logits"]
        logits = (_places(logits, outputs.get("padding")) if logits.ndim == 4 else logits.flatten(0, -2)).float()
        background = logits.shape[1] - 1 if logits.shape[1] > len(model.classes) else None
        return ClassScores(logits, background, bool(getattr(model, "multi_label", False)))
    if "proposals" in outputs:
        logits, _ = method_of(term, model, "box_outputs")(outputs["features"], outputs["proposals"])
        return ClassScores(logits.float(), logits.shape[1] - 1)
    raise InputError(
        f"{type(term).__name__} reads class scores: logits, class_logits, or proposals with box_outputs(); {type(model).__name__} gives "
        f"{', '.join(outputs)}"
    )


def _places(logits: Tensor, padding: Tensor | None) -> Tensor:
    """(n, C) the scores of all places of maps (N, C, h, w) that show the picture; `padding` (N, h, w) bool: those that do not."""
    rows = logits.movedim(1, -1)  # (N, h, w, C)
    return rows.flatten(0, 2) if padding is None else rows[~padding]
