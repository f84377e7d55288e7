"""Prototypical denoising of ProDA (Zhang et al. 2021, arXiv:2101.10979, section 3.1): pseudo labels put right by where features lie among prototypes.

Soft labels of a network that no longer changes are weighed by how near each pixel's features, now, are to the prototypes of the classes; these move
along with the features. So labels get better while the student learns from them.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from saccade.adaptation.context import RAW, Context, Network
from saccade.adaptation.label_losses import label_cross_entropy, symmetric_cross_entropy
from saccade.adaptation.labels import LabelMaps, LabelSource
from saccade.adaptation.prototypes import LEAST_PIXELS, ClassMeans, PrototypeBank, assignment, class_means, denoised, read_prototypes
from saccade.adaptation.published_warps import in_weak_view
from saccade.adaptation.term import Term
from saccade.adaptation.terms.structure_consistency import PROTOTYPES
from saccade.adaptation.warping import bring, enlarged, maps_of, places_of, reduced_size, shown
from saccade.errors import InputError
from saccade.models.contract import Model
from saccade.ops.class_maps import resize_maps
from saccade.ops.distributed import gathered
from saccade.structures import IGNORE
from saccade.structures.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Probability


class Prototypes(Term):
    """`prototype_loss` of the student's `logits` on `view`, against denoised soft labels, on maps with a cell for every `stride` pixels.

    Reads `embeddings` and `logits` of `network` for what it `looks_at` ("raw": the whole picture). The label of a pixel is the argmax of the soft
    label that `labels` has for it times its assignment to the prototypes, a softmax of -`temperature` * distance; it counts where its share of the
    product is at least `threshold`. `loss`: "sce" (`alpha` and `beta` weigh its halves), or "ce". After each step prototypes go by `momentum` towards
    the mean features of the class in each image, where `network` finds at least `least_pixels` of it.

    `prototypes`: a file of the task `ComputePrototypes`, or its folder; None begins with the means of the first batch. They belong to the state of
    the run. `reference_quirks`: features reach the view by the published warp (see `published_warps`).
    """

    def __init__(
        self, *, labels: LabelSource, prototypes: str | None = None, network: Network = "teacher", looks_at: str = RAW, view: str = "weak",
        loss: Literal["sce", "ce"] = "sce", alpha: NonNegativeFloat = 0.1, beta: NonNegativeFloat = 1.0, weight: NonNegativeFloat = 1.0,
        threshold: Probability = 0.0, temperature: PositiveFloat = 1.0, momentum: Probability = 1e-4, least_pixels: PositiveInt = LEAST_PIXELS,
        stride: PositiveInt = 4, reference_quirks: bool = False,
    ) -> None:
        self.labels, self.prototypes, self.network, self.looks_at, self.view = labels, prototypes, network, looks_at, view
        self.loss, self.alpha, self.beta, self.weight = loss, alpha, beta, weight
        self.threshold, self.temperature, self.momentum, self.least_pixels = threshold, temperature, momentum, least_pixels
        self.stride, self.reference_quirks = stride, reference_quirks
        self.bank: PrototypeBank | None = None

    def prepare(self, student: Model) -> None:
        """Read the prototypes. Raises InputError where they are of other classes."""
        self.bank = None if self.prototypes is None else read_prototypes(Path(self.prototypes), student.classes)

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The loss. Leaves the prototypes as they are in this step for the terms behind it."""
        context.read(self, self.network, self.looks_at, "embeddings", "logits")
        context.read(self, "student", self.view, "logits")
        means = self._means(context)
        bank = self._bank(means)
        context.notes[PROTOTYPES] = bank
        batch = context.view(self.view)
        size = reduced_size(batch, self.stride)
        labels = self._labels(context, bank, self.labels.read(context, self.view, size), size)
        logits = enlarged(context.outputs("student", self.view), "logits", batch, size)
        plain = self.loss == "ce"
        loss = label_cross_entropy(logits, labels) if plain else symmetric_cross_entropy(logits, labels, alpha=self.alpha, beta=self.beta)
        self.bank = bank.moved(means, self.momentum)
        return {"prototype_loss": self.weight * loss}

    @torch.no_grad()
    def _means(self, context: Context) -> ClassMeans:
        """The mean features of every class in the images of all processes, found picture by picture, for their features are large."""
        outputs, batch = context.outputs(self.network, self.looks_at), context.view(self.looks_at)
        size, found = reduced_size(batch, self.stride), []
        maps = zip(*(maps_of(outputs, name, batch)[0] for name in ("embeddings", "logits")), strict=True)
        for features, logits in maps:
            predicted = resize_maps(logits[None].float(), size).argmax(1)
            found.append(class_means(resize_maps(features[None].float(), size), predicted, logits.shape[0], least_pixels=self.least_pixels))
        return ClassMeans(*(gathered(torch.cat(parts)) for parts in zip(*found, strict=True)))

    def _bank(self, means: ClassMeans) -> PrototypeBank:
        """The prototypes, on the device of the features. Raises InputError where they are of another size."""
        if self.bank is None:
            _, classes, dimensions = means.vectors.shape
            return PrototypeBank.empty(classes, dimensions, means.vectors.device).averaged(means)
        bank = self.bank.to(means.vectors.device)
        if bank.vectors.shape != means.vectors.shape[1:]:
            raise InputError(
                f"Prototypes: those of {self.prototypes} have {bank.vectors.shape[1]} numbers a class, the embeddings of the {self.network} "
                f"{means.vectors.shape[2]}; compute them with this network (task ComputePrototypes)"
            )
        return bank

    @torch.no_grad()
    def _labels(self, context: Context, bank: PrototypeBank, soft: LabelMaps, size: tuple[int, int]) -> Tensor:
        """(N, h, w) int64 the denoised `soft` labels of the view, 255 where nothing is known or the label is not sure enough."""
        if soft.probabilities is None:
            raise InputError(f"Prototypes puts soft labels right, and {type(self.labels).__name__} has hard ones alone; take soft labels")
        features, known = self._features(context, size)
        found = denoised(assignment(bank.distances(features), self.temperature), soft.probabilities)
        known = known & soft.known & shown(context.view(self.view), size) & (found.confidence >= self.threshold) & (found.confidence > 0)
        return found.labels.masked_fill(~known, IGNORE)

    def _features(self, context: Context, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(N, D, h, w) the features of the network at the places of the view, and (N, h, w) where they are known."""
        outputs, picture, batch = context.outputs(self.network, self.looks_at), context.view(self.looks_at), context.view(self.view)
        if self.reference_quirks:
            features = in_weak_view(outputs["embeddings"], picture, batch)
            return features, torch.ones_like(features[:, 0], dtype=torch.bool)
        maps, places = maps_of(outputs, "embeddings", picture)
        return bring(maps, places, places_of(batch), size)

    def state_dict(self) -> dict[str, Any]:
        """The prototypes."""
        return {} if self.bank is None else dict(self.bank.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the prototypes of `state`."""
        self.bank = PrototypeBank.from_state(state) if state else None
