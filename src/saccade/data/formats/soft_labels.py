"""Class probabilities of a picture at a network's resolution, a file each: what one stage of a pipeline leaves for the next (ProDA's soft labels).

    FOLDER/<id>.safetensors   probabilities (C, h, w) float16; frame, canvas, geometry and class names as text beside them

The map covers `frame` pixels of the picture that the network saw with corners aligned (see `adaptation.warping`), and `geometry` leads from these to
the original, so it fits any transform of the picture. A file is read without executing anything.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from saccade.data.formats.stored import file_of
from saccade.errors import DataError
from saccade.structures import Geometry

_NAME = "probabilities"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class SoftLabels:
    """`probabilities` (C, h, w) of `classes`, covering `frame` (height, width) pixels, of which `geometry` is the way back to the original."""

    probabilities: Tensor
    frame: tuple[int, int]
    geometry: Geometry
    classes: tuple[str, ...]

    def as_bytes(self) -> bytes:
        """The content of a file."""
        matrix = self.geometry.as_subclass(Tensor).flatten().tolist()
        known = {"frame": list(self.frame), "canvas": list(self.geometry.canvas_size), "geometry": matrix, "classes": list(self.classes)}
        return save({_NAME: self.probabilities.cpu().to(torch.float16).contiguous()}, {"soft_labels": json.dumps(known)})


def read_soft_labels(folder: Path, item: str | int, classes: Sequence[str]) -> SoftLabels:
    """Those of the sample `item`. Raises DataError where there are none, where the file is none of ours, and where its classes are others."""
    path = file_of(folder, item, SUFFIX)
    try:
        with safe_open(path, "pt") as file:
            known, probabilities = json.loads(file.metadata()["soft_labels"]), file.get_tensor(_NAME)
    except FileNotFoundError:
        raise DataError(f"there are no soft labels of {item} in {folder}; the task WriteLabels (kind: soft) writes them for these images") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} holds no soft labels of saccade ({type(error).__name__}: {error}); remove it and write it again") from None
    if tuple(known["classes"]) != tuple(classes):
        raise DataError(
            f"{path} is about {len(known['classes'])} classes ({', '.join(known['classes'][:3])}, ...), the network about {len(classes)} others; "
            "write the labels with a model of the same classes"
        )
    geometry = Geometry.from_matrix(torch.tensor(known["geometry"], dtype=torch.float64).reshape(3, 3), known["canvas"])
    return SoftLabels(probabilities, (known["frame"][0], known["frame"][1]), geometry, tuple(known["classes"]))
