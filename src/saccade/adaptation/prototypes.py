"""Prototypes: what the features of each class are like on average, and how far those of a pixel are from them.

ProDA (Zhang et al. 2021, arXiv:2101.10979, sections 3.1 and 3.2; `models/adaptation_modelv2.py` and `calc_prototype.py` of the code). The vectors of
an image are found for all classes by one product of matrices; images come one after another, as the running means of the definition want it.
Left out: the mean over everything seen so far while a class has fewer than 100 vectors, which the code has and ProDA does not use.
"""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from saccade.errors import InputError

FILE = "prototypes.safetensors"

MOST_VECTORS = 3000  # beyond that many a mean goes on as a moving average
LEAST_PIXELS = 10  # of a class in an image for the image to have a vector of it


class ClassMeans(NamedTuple):
    """`vectors` (N, C, D) float32: the mean features of each class in each image; `found` (N, C) bool: where there is one."""

    vectors: Tensor
    found: Tensor


def class_means(
    features: Tensor, predicted: Tensor, num_classes: int, *, labels: Tensor | None = None, sure: Tensor | None = None,
    least_pixels: int = LEAST_PIXELS,
) -> ClassMeans:
    """The mean of `features` (N, D, h, w) over the pixels of each class, by image.

    `predicted` (N, h, w) int64: the class of each pixel; where `labels` of the same form are given only pixels for which they agree belong to it.
    `sure` (N, h, w) bool: the mean is over these alone; whether a class has `least_pixels` in an image is counted without it, as in the reference.
    Values that are no class (255) belong to none.
    """
    classes = torch.arange(num_classes, device=features.device)
    members = predicted.flatten(1)[:, None] == classes[:, None]  # (N, C, P)
    if labels is not None:
        members &= (labels == predicted).flatten(1)[:, None]
    enough = members.sum(2) >= least_pixels
    if sure is not None:
        members &= sure.flatten(1)[:, None]
    sizes = members.sum(2)
    sums = members.to(torch.float32) @ features.detach().float().flatten(2).transpose(1, 2)  # (N, C, D)
    return ClassMeans(sums / sizes.clamp(min=1)[..., None], enough & (sizes > 0))


@dataclass(frozen=True)
class PrototypeBank:
    """`vectors` (C, D) float32, one a class, and `counts` (C,) float32: from how many images each was made, at most `MOST_VECTORS`.

    A class whose count is 0 has no prototype yet.
    """

    vectors: Tensor
    counts: Tensor

    @classmethod
    def empty(cls, num_classes: int, dimensions: int, device: torch.device | str = "cpu") -> PrototypeBank:
        """Without any prototype."""
        return cls(torch.zeros(num_classes, dimensions, device=device), torch.zeros(num_classes, device=device))

    @property
    def known(self) -> Tensor:
        """(C,) bool: which classes have a prototype."""
        return self.counts > 0

    def to(self, device: torch.device | str) -> PrototypeBank:
        """The same on `device`."""
        return PrototypeBank(self.vectors.to(device), self.counts.to(device))

    def averaged(self, means: ClassMeans) -> PrototypeBank:
        """Each prototype as the mean of all vectors so far: (n p + v) / (n + 1), image after image, n at most `MOST_VECTORS`."""
        bank = self
        for vectors, found in zip(*means, strict=True):
            bank = bank._with((bank.vectors * bank.counts[:, None] + vectors) / (bank.counts + 1)[:, None], found)
        return bank

    def moved(self, means: ClassMeans, momentum: float) -> PrototypeBank:
        """Each prototype gone towards the vectors of its class: (1 - momentum) p + momentum v, image after image; the first is taken as it is."""
        bank = self
        for vectors, found in zip(*means, strict=True):
            bank = bank._with(torch.where(bank.known[:, None], bank.vectors.lerp(vectors, momentum), vectors), found)
        return bank

    def _with(self, vectors: Tensor, found: Tensor) -> PrototypeBank:
        counts = torch.where(found, self.counts + 1, self.counts).clamp(max=MOST_VECTORS)
        return PrototypeBank(torch.where(found[:, None], vectors, self.vectors), counts)

    def state_dict(self) -> dict[str, Tensor]:
        """Both tensors, on the CPU."""
        return {"vectors": self.vectors.detach().cpu(), "counts": self.counts.cpu()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> PrototypeBank:
        """The bank of which `state` is the `state_dict`."""
        return cls(state["vectors"], state["counts"])

    def as_bytes(self, classes: Sequence[str]) -> bytes:
        """The content of a file for `read_prototypes`."""
        return save(self.state_dict(), {"classes": json.dumps(list(classes))})

    def distances(self, features: Tensor) -> Tensor:
        """(N, C, h, w) float32: the Euclidean distance of each pixel's features (N, D, h, w) to each prototype; infinite where there is none."""
        number, _, height, width = features.shape
        pixels = features.float().permute(0, 2, 3, 1).flatten(0, 2)  # (N h w, D)
        found = torch.cdist(pixels, self.vectors).masked_fill(~self.known, float("inf"))
        return found.reshape(number, height, width, -1).permute(0, 3, 1, 2)


def assignment(distances: Tensor, temperature: float = 1.0) -> Tensor:
    """(N, C, h, w) softmax over the classes of -temperature * distance, from `distances` of that form: 0 where they are infinite."""
    return (-temperature * (distances - distances.amin(1, keepdim=True))).softmax(1)


class Denoised(NamedTuple):
    """`labels` (N, h, w) int64 and `confidence` (N, h, w): the best class and its probability."""

    labels: Tensor
    confidence: Tensor


def denoised(weights: Tensor, probabilities: Tensor) -> Denoised:
    """Soft labels (N, C, h, w) put right by `weights` of that form (from `assignment`): the argmax of their product, normalised over the classes.

    Equation 4 of the paper; where the product vanishes everywhere the confidence is 0.
    """
    product = weights * probabilities
    best, labels = product.max(1)
    return Denoised(labels, best / product.sum(1).clamp(min=torch.finfo(product.dtype).tiny))


def read_prototypes(path: Path, classes: Sequence[str]) -> PrototypeBank:
    """The prototypes in a file of the task `ComputePrototypes`, or in its folder. Raises InputError for others, and for those of other classes."""
    file = path / FILE if path.is_dir() else path
    try:
        with safe_open(file, "pt") as content:
            named, bank = json.loads(content.metadata()["classes"]), PrototypeBank(content.get_tensor("vectors"), content.get_tensor("counts"))
    except FileNotFoundError:
        raise InputError(f"there are no prototypes {file}; the task ComputePrototypes makes them") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} holds no prototypes of saccade ({type(error).__name__}: {error}); compute them again") from None
    if tuple(named) != tuple(classes):
        raise InputError(f"the prototypes {file} are those of {', '.join(named)}; the network has the classes {', '.join(classes)}")
    return bank
