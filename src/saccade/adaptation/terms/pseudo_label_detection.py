"""Self-training of detectors: pseudo objects as truth (SFOD, Li et al. 2021; mean teachers for detection).

Which objects, and from which network, is said by the learner's `objects`; as the views carry them, the student can learn from another view than the
one they were found in.
"""
from __future__ import annotations

from torch import Tensor

from saccade.adaptation.context import Context
from saccade.adaptation.term import Term
from saccade.errors import InputError
from saccade.structures.ranges import NonNegativeFloat


class PseudoLabelDetection(Term):
    """The detector's own losses on a view with its pseudo objects as targets, each named `pseudo_...`.

    Calls `detection_losses(outputs, batch)` of the student where it has that (trackers, whose other losses need pairs of frames), else `losses`.
    Images without any pseudo object are left out, for nobody said that they are empty.
    """

    def __init__(self, *, weight: NonNegativeFloat = 1.0, view: str = "student") -> None:
        self.weight, self.view = weight, view

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The losses; 0 where no image has a pseudo object."""
        targets = context.view(self.view).targets
        if any(target.boxes is None for target in targets):
            raise InputError("PseudoLabelDetection needs pseudo objects; give the learner `objects: {type: ConfidentDetections}`")
        indices = [i for i, target in enumerate(targets) if target.num_objects]
        # Without any, the losses are still computed: several processes count objects together, so each has to take part.
        view = context.part(self.view, indices or range(len(targets)))
        weight = self.weight if indices else 0.0
        losses = getattr(context.student, "detection_losses", context.student.losses)(context.outputs("student", view), context.view(view))
        return {f"pseudo_{name}": weight * value for name, value in losses.items()}
