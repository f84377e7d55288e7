"""Runs the QDTrack cases: its two losses, its samplers, and the whole network with its training step."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inputs import make
from torch import Tensor

from saccade.layers.contrastive import cosine_loss, multi_positive_loss

Case = dict[str, Any]
Outputs = dict[str, np.ndarray]


def run_losses(folder: Path, case: Case) -> Outputs:
    """Both losses with their gradients on every target pattern of the case."""
    given = {name: torch.from_numpy(make(spec)) for name, spec in case["inputs"].items()}
    track, aux = case["settings"]["track"], case["settings"]["aux"]
    outputs: dict[str, Tensor] = {}
    for number in range(sum(name.startswith("dot") for name in given)):
        targets = given[f"targets{number}"]
        dots, cosines = given[f"dot{number}"].requires_grad_(), given[f"cosine{number}"].requires_grad_()
        outputs[f"track{number}"] = track["loss_weight"] * multi_positive_loss(dots, targets)
        outputs[f"aux{number}"] = aux["loss_weight"] * cosine_loss(
            cosines, targets, negatives_per_positive=aux["neg_pos_ub"], positive_margin=aux["pos_margin"], negative_margin=aux["neg_margin"]
        )
        for name, leaf in (("track", dots), ("aux", cosines)):
            outputs[f"{name}_gradient{number}"], = torch.autograd.grad(outputs[f"{name}{number}"], leaf)
    return _as_arrays(outputs)


def _as_arrays(outputs: dict[str, Tensor]) -> Outputs:
    return {name: value.detach().numpy() for name, value in outputs.items()}


RUNNERS: list[tuple[Callable[[Case], bool], Callable[[Path, Case], Outputs]]] = [
    (lambda case: case["case"].startswith("qdtrack_losses"), run_losses),
]
