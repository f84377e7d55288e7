"""Figures that need no labels, to choose a checkpoint or a setting of an adaptation by, when nobody has labelled the target.

Mean entropy: how unsure the model is (lower is better; methods that minimise it win it without being right). Soft neighbourhood density (Saito et al.
2021, arXiv:2108.10860, section 3): how many others each prediction is close to (higher is better). Of images of one class each it compares all with
all; of label maps some pixels of each image with each other, and takes the mean over the images, as the paper's segmentation experiments do.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.errors import InputError, NumericError
from saccade.metrics.images import ImageKey, check_lengths, in_order, key_of, named
from saccade.ops.class_maps import entropy_map
from saccade.structures import Annotations, Classification, Meta, Prediction, SegmentationMap
from saccade.structures.ranges import PositiveFloat, PositiveInt

PREFIX = "unlabelled/"
_ROWS = 1024  # of the similarities that are in memory at a time
_SEED = 0


class MeanEntropy:
    """The figure `unlabelled/entropy`: the mean over the images of the mean entropy of their class probabilities (of all places of a label map, at
    the network's own resolution), divided by that of equal ones, so 0..1; nan without images."""

    def __init__(self) -> None:
        self._images: dict[ImageKey, float] = {}

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Annotations], metas: Sequence[Meta]) -> None:
        """Adds images; labels are not looked at. Raises InputError for predictions without class probabilities, NumericError for broken ones."""
        check_lengths(len(predictions), len(targets), len(metas))
        for prediction, meta in zip(predictions, metas, strict=True):
            if key_of(meta) not in self._images:
                probabilities = class_probabilities(prediction, meta, type(self).__name__)
                self._images[key_of(meta)] = float(entropy_map(probabilities[None]).mean())

    def merge(self, other: Self) -> None:
        """Adds another process's images that are not here yet."""
        self._images = other._images | self._images

    def reset(self) -> None:
        """Forgets everything."""
        self._images = {}

    def compute(self) -> dict[str, float]:
        """The figure by its name."""
        return {f"{PREFIX}entropy": _mean(self._images)}

    def details(self) -> dict[str, Any]:
        """Nothing beyond the figure."""
        return {}


class SoftNeighborhoodDensity:
    """The figure `unlabelled/snd`: the mean entropy (in nats) of how similar a prediction is to each of the others, from 0 to the logarithm of their
    number; nan where there are no two to compare.

    Similarities are cosines of class probabilities, through a softmax of `temperature`. `pixels`: how many places of each label map are compared, the
    same in all maps of one size, drawn once.
    """

    def __init__(self, *, temperature: PositiveFloat = 0.05, pixels: PositiveInt = 100) -> None:
        self.temperature, self.pixels = temperature, pixels
        self._maps: dict[ImageKey, float] = {}
        self._scores: dict[ImageKey, Tensor] = {}

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Annotations], metas: Sequence[Meta]) -> None:
        """Adds images; labels are not looked at. Raises InputError for predictions without class probabilities, NumericError for broken ones."""
        check_lengths(len(predictions), len(targets), len(metas))
        for prediction, meta in zip(predictions, metas, strict=True):
            key = key_of(meta)
            if key in self._maps or key in self._scores:
                continue
            probabilities = class_probabilities(prediction, meta, type(self).__name__)
            if isinstance(prediction, Classification):
                self._scores[key] = probabilities.flatten().clone()
            else:
                places = torch.randperm(probabilities[0].numel(), generator=torch.Generator().manual_seed(_SEED))[: self.pixels]
                self._maps[key] = neighborhood_density(probabilities.flatten(1).T[places], self.temperature)

    def merge(self, other: Self) -> None:
        """Adds another process's images that are not here yet."""
        self._maps, self._scores = other._maps | self._maps, other._scores | self._scores

    def reset(self) -> None:
        """Forgets everything."""
        self._maps, self._scores = {}, {}

    def compute(self) -> dict[str, float]:
        """The figure by its name."""
        if self._scores:
            value = neighborhood_density(torch.stack([self._scores[key] for key in in_order(self._scores)]), self.temperature)
        else:
            value = _mean(self._maps)
        return {f"{PREFIX}snd": value}

    def details(self) -> dict[str, Any]:
        """Nothing beyond the figure."""
        return {}


def neighborhood_density(probabilities: Tensor, temperature: float) -> float:
    """The soft neighbourhood density of `probabilities` (n, K), a prediction a row; nan for fewer than two."""
    count = len(probabilities)
    if count < 2:
        return math.nan
    directions = F.normalize(probabilities.float(), dim=1)
    total = 0.0
    for start in range(0, count, _ROWS):
        similarity = directions[start : start + _ROWS] @ directions.T / temperature
        rows = torch.arange(len(similarity), device=similarity.device)
        similarity[rows, start + rows] = -torch.inf  # a prediction is not its own neighbour
        shares = similarity.softmax(1)
        total -= float(torch.xlogy(shares, shares).double().sum())
    return total / count


def class_probabilities(prediction: Prediction, meta: Meta, metric: str) -> Tensor:
    """(K, h, w) float32 on the CPU: of a label map at the network's resolution, of a classification with h = w = 1.

    Raises InputError, which names `metric`, where the prediction has none; NumericError where they are not finite.
    """
    if isinstance(prediction, Classification):
        probabilities = prediction.scores[:, None, None]
    elif isinstance(prediction, SegmentationMap):
        if prediction.coarse is None:
            raise InputError(f"{metric} needs class probabilities, and the label map of {named(meta)} has none (`coarse`); leave the metric out")
        probabilities = prediction.coarse
    else:
        raise InputError(f"{metric} needs class probabilities of images or pixels; this model gives {type(prediction).__name__}, so leave it out")
    plain = probabilities.detach().float().cpu()
    if not bool(plain.isfinite().all()):
        raise NumericError(f"The class probabilities of {named(meta)} are not finite; no figure can be computed. Look at the model's outputs.")
    return plain


def _mean(values: dict[ImageKey, float]) -> float:
    known = [values[key] for key in in_order(values)]
    return math.fsum(known) / len(known) if known else math.nan
