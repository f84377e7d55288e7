"""Several segmentation networks as one, as ADVENT's "AdvEnt+MinEnt" is (Vu et al. 2019, arXiv:1811.12833, section 4.2): their logits are averaged.

Its members are trained by themselves; an ensemble is evaluated and used for predictions.
"""
from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from saccade.errors import InputError
from saccade.models.contract import Model
from saccade.ops.class_maps import resize_maps
from saccade.structures import Batch, Outputs, Prediction


class SegmentationEnsemble(Model):
    """The sum of the logit maps of `members`, each times its weight (equal ones that sum to 1 where `weights` is None).

    Every member normalises pixels as it was trained to. Maps of other sizes are brought to that of the first member's, corners aligned, and
    predictions are made as the first one makes them. Raises InputError for members of other classes, and for weights that are not one a member.
    """

    def __init__(self, *, classes: Sequence[str], members: list[Model], weights: list[float] | None = None) -> None:
        if not members or any(member.classes != tuple(classes) for member in members):
            raise InputError(f"SegmentationEnsemble needs members of the same classes as itself; it has {len(classes)}, they "
                             f"{', '.join(str(len(member.classes)) for member in members) or 'are missing'}")
        if weights is not None and len(weights) != len(members):
            raise InputError(f"SegmentationEnsemble has {len(members)} members and {len(weights)} weights; give each its own, or leave `weights` out")
        super().__init__(classes, members[0].pixel_norm)
        self.members = nn.ModuleList(members)
        self.weights = [1 / len(members)] * len(members) if weights is None else list(weights)

    def forward(self, batch: Batch) -> Outputs:
        """`logits` (N, K, h, w) at the resolution of the first member; of padded batches its `padding`."""
        first, *others = ({"logits": made["logits"].float(), "padding": made.get("padding")} for made in (m(batch) for m in self.members))
        size = (int(first["logits"].shape[-2]), int(first["logits"].shape[-1]))
        logits = self.weights[0] * first["logits"]
        for weight, made in zip(self.weights[1:], others, strict=True):
            if batch.padding is not None and made["logits"].shape != first["logits"].shape:
                raise InputError("SegmentationEnsemble: with maps of different sizes batches can't be padded; set data.evaluation_batch_size: 1")
            logits = logits + weight * resize_maps(made["logits"], size)
        return {"logits": logits} | ({} if first["padding"] is None else {"padding": first["padding"]})

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """One map an image, as the first member makes it of the common logits."""
        found: list[Prediction] = self.members[0].predictions(outputs, batch)  # type: ignore[operator]
        return found
