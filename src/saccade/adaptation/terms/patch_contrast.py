"""Patch contrast of DARTH (Segu et al. 2023, arXiv:2310.01926, section 4.2): a tracker knows its objects again in another view of the same image.

The pseudo objects of an image take the part of instances, two views that of the key and the reference frame; the losses are the tracker's own
(tracking.md, sections 4 and 8.3). Gradients reach the track head and what it shares with the detector, through both views.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from saccade.adaptation.context import Context, method_of
from saccade.adaptation.term import Term
from saccade.errors import InputError
from saccade.structures.ranges import NonNegativeFloat


class PatchContrast(Term):
    """The losses of the student's `contrast` (of QDTrack: `loss_track` and `loss_track_aux`) between its view and another, times `weight`.

    Reads `features`, `proposals` and `sizes` of the student on both views. Images without a pseudo object in either of them are left out, with
    everything that is theirs; where none remains the losses are 0. `reference_quirks`: as in the original, images leave when they have no object at
    all, and their features and proposals in the student's view stay, so that boxes of the others are read from the wrong image (12.1 a).
    """

    def __init__(
        self, *, weight: NonNegativeFloat = 1.0, view: str = "student", other_view: str = "contrastive", reference_quirks: bool = False
    ) -> None:
        self.weight, self.view, self.other_view, self.reference_quirks = weight, view, other_view, reference_quirks

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The losses of this step."""
        contrast = method_of(self, context.student, "contrast")
        keys, others = context.view(self.view), context.view(self.other_view)
        if any(target.boxes is None for target in keys.targets):
            raise InputError("PatchContrast needs pseudo objects; give the learner `objects: {type: ConfidentDetections}`")
        kept = [i for i, (key, other) in enumerate(zip(keys.targets, others.targets, strict=True)) if key.num_objects and other.num_objects]
        # Where nothing is left the losses are still computed, times 0, so that the log and the gradients of all processes have the same entries.
        weight, chosen = (self.weight, kept) if kept else (0.0, list(range(len(keys))))
        other = context.part(self.other_view, chosen)
        key_outputs = dict(zip(_READ, context.read(self, "student", self.view, *_READ), strict=True))
        other_outputs = dict(zip(_READ, context.read(self, "student", other, *_READ), strict=True))
        if not self.reference_quirks:
            key_outputs = _of_images(key_outputs, chosen)
        else:
            key_outputs = {name: value[: len(chosen)] if name != "features" else value for name, value in key_outputs.items()}
        losses = contrast(key_outputs, [keys.targets[i] for i in chosen], other_outputs, context.view(other).targets)
        return {name: weight * value for name, value in losses.items()}


_READ = ("features", "proposals", "sizes")


def _of_images(outputs: Mapping[str, Any], indices: Sequence[int]) -> dict[str, Any]:
    """The outputs of the images `indices` alone."""
    if list(indices) == list(range(len(outputs["proposals"]))):
        return dict(outputs)
    rows = list(indices)
    features, proposals = [level[rows] for level in outputs["features"]], [outputs["proposals"][i] for i in rows]
    return {"features": features, "proposals": proposals, "sizes": outputs["sizes"][rows]}
