"""DACS (Tranheden et al. 2021, arXiv:2007.08702): pictures of the target with things of the source in them, labelled by truth and teacher.

The pixels of half of the classes of a source image are pasted onto a target image, their labels onto the teacher's. Left out: the other ways of
mixing (CutMix, CowMix) that the paper compares with, and the rows that DAFormer leaves out for the car's bonnet and for lens distortion.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from saccade.adaptation.context import RAW, SOURCE, Context, Network
from saccade.adaptation.label_losses import label_cross_entropy
from saccade.adaptation.labels import LabelMaps, OnlineLabels, sure_shares
from saccade.adaptation.term import Term
from saccade.adaptation.warping import enlarged, shown
from saccade.errors import InputError
from saccade.structures import IGNORE, Annotations, Batch, Sample, collate, make_sample
from saccade.structures.ranges import NonNegativeFloat, Probability

MIXED = "class_mix"  # the view that the term adds


class ClassMix(Term):
    """`class_mix_loss`: cross-entropy of the student's `logits` on mixed images, at the size of the images.

    Reads `logits` of the student, and of `network` for what it `looks_at`: its labels are those of the pixels of `view`. Pixels of the source count
    1, those of a target image the share of its pixels whose label is at least `threshold` sure. `source_view` and `view` have one size. `transforms`
    act on the mixed images (in the paper colour jitter and blur), and move their labels along where they move pixels.
    """

    def __init__(
        self, *, weight: NonNegativeFloat = 1.0, view: str = RAW, source_view: str = SOURCE, network: Network = "teacher", looks_at: str = RAW,
        threshold: Probability = 0.968, transforms: list[Callable[[Sample], Sample]] | None = None,
    ) -> None:
        self.weight, self.view, self.source_view, self.threshold = weight, view, source_view, threshold
        self.labels = OnlineLabels(network=network, looks_at=looks_at)
        self.transforms = transforms or []

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The loss. Raises InputError where the images of the two domains have different sizes, or those of the source no labels."""
        batch, source = context.view(self.view), context.view(self.source_view)
        size = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
        if tuple(source.images.shape[-2:]) != size:
            raise InputError(
                f"ClassMix pastes images of {self.source_view!r}, {tuple(source.images.shape[-2:])} pixels, onto those of {self.view!r}, {size}; let "
                "the transforms of both end with a crop to the same size"
            )
        found = self.labels.read(context, self.view, size)
        found = replace(found, labels=found.labels.masked_fill(~shown(batch, size), IGNORE))
        mixed, weights = self._mixed(batch, source, found)
        context.views[MIXED] = mixed
        context.read(self, "student", MIXED, "logits")
        labels = torch.stack([_labels(target) for target in mixed.targets]).to(batch.images.device)
        logits = enlarged(context.outputs("student", MIXED), "logits", mixed, (labels.shape[-2], labels.shape[-1]))
        return {"class_mix_loss": self.weight * label_cross_entropy(logits, labels, weights)}

    def _mixed(self, batch: Batch, source: Batch, found: LabelMaps) -> tuple[Batch, Tensor]:
        """The mixed images with their labels, and (N, H, W) how much each pixel counts."""
        shares = sure_shares(found, self.threshold)
        samples, weights = [], []
        for index, share in enumerate(shares):
            other = index % len(source)
            truth = _padded(_labels(source.targets[other]).to(batch.images.device), found.labels.shape[1:])
            pasted = chosen_classes(truth)
            image = torch.where(pasted, source.images[other], batch.images[index])
            labels = torch.where(pasted, truth, found.labels[index])
            sample = make_sample(image, Annotations(segmentation=labels, masks=pasted[None]))
            for transform in self.transforms:
                sample = transform(sample)
            assert sample.masks is not None
            samples.append(sample)
            weights.append(torch.where(sample.masks.as_subclass(Tensor)[0], 1.0, share))
        return collate(samples), torch.stack(weights)


def chosen_classes(labels: Tensor) -> Tensor:
    """(H, W) bool: the pixels of half of the classes (rounded up) that `labels` (H, W) has, drawn from torch's global random numbers."""
    present = labels.unique()
    present = present[present != IGNORE]
    chosen = present[torch.randperm(len(present))[: (len(present) + 1) // 2].to(present.device)]
    return torch.isin(labels, chosen)


def _labels(target: Annotations) -> Tensor:
    if target.segmentation is None:
        raise InputError("ClassMix pastes what the labels of the source say; its images need label maps (data.source)")
    return target.segmentation.as_subclass(Tensor).to(torch.int64)


def _padded(labels: Tensor, size: Sequence[int]) -> Tensor:
    """`labels` (h, w) at the size of the batch, 255 on the right and below."""
    whole = labels.new_full(tuple(size), IGNORE)
    whole[: labels.shape[0], : labels.shape[1]] = labels
    return whole
