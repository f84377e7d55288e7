"""Runs the DARTH cases: the two distillation losses, the teacher's moving average, the transforms of its views, and the whole step."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import fill
import numpy as np
import torch
from inputs import make
from torch import Tensor, nn

from saccade.adaptation.terms.detection_consistency import roi_consistency, rpn_consistency
from saccade.learning.ema import MovingAverage

Outputs = dict[str, np.ndarray]
_LEVELS = 5


def run_distillation(folder: Path, case: dict[str, Any]) -> Outputs:
    """`darth_distillation`: both losses at every weight and threshold, with gradients."""
    given = {name: torch.from_numpy(make(spec)) for name, spec in case["inputs"].items()}
    levels = {key: [given[f"{key}{i}"] for i in range(_LEVELS)] for key in ("student_cls", "student_reg", "teacher_cls", "teacher_reg")}
    outputs: dict[str, Tensor] = {}
    for threshold in case["settings"]["thresholds"]:
        loss = rpn_consistency(*levels.values(), threshold=threshold)
        outputs |= {f"rpn_thr{threshold}_w{weight}": weight * loss for weight in case["settings"]["weights"]}
    own = [value.requires_grad_() for key in ("student_cls", "student_reg") for value in levels[key]]
    gradients = torch.autograd.grad(0.1 * rpn_consistency(*levels.values(), threshold=0.1), own)
    names = [f"rpn_gradient_{kind}{i}" for kind in ("cls", "reg") for i in range(_LEVELS)]
    outputs |= dict(zip(names, gradients, strict=True))

    boxes = [given[f"{who}_roi_{what}"] for who in ("student", "teacher") for what in ("cls", "reg")]
    outputs |= {f"roi_w{weight}": weight * roi_consistency(*boxes) for weight in case["settings"]["weights"]}
    gradients = torch.autograd.grad(0.1 * roi_consistency(*[v.requires_grad_() for v in boxes[:2]], *boxes[2:]), boxes[:2])
    outputs |= {"roi_gradient_cls": gradients[0], "roi_gradient_reg": gradients[1]}
    outputs["roi_one_class"] = roi_consistency(boxes[0][:, :2], boxes[1][:, :4], boxes[2][:, :2], boxes[3][:, :4])
    return {name: value.detach().numpy() for name, value in outputs.items()}


def run_ema(folder: Path, case: dict[str, Any]) -> Outputs:
    """`darth_ema`: the teacher's entries after three updates by each setting."""
    start = {key: torch.from_numpy(np.array(value)) for key, value in fill.state_dict_from(folder / "manifest.json").items()}
    students = {key: value for key, value in start.items() if not key.startswith("teacher_")}
    outputs: Outputs = {}
    for name, setting in case["settings"].items():
        teacher, student = _Tensors({key: start[f"teacher_{key}"] for key in students}), _Tensors(students)
        average = MovingAverage(
            momentum=setting["momentum"], interval=setting["interval"], warm_up=setting["warm_up"], reference_quirks=True,
            follows=lambda key: "bn" in key and "running" in key,
        )
        for number, step in enumerate(setting["iterations"], 1):
            for key, value in {**student.named()}.items():
                value.data.copy_(torch.from_numpy(fill.tensor_for(f"step{number}/{key}", tuple(value.shape), str(value.dtype).partition(".")[2])))
            average.update(teacher, student, step)
        outputs |= {f"{name}/teacher_{key}": value.detach().numpy().copy() for key, value in teacher.named().items() if value.is_floating_point()}
    return outputs


class _Tensors(nn.Module):
    """A module whose parameters and buffers have the dotted names of a state dict."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for key, value in tensors.items():
            *path, leaf = key.split(".")
            parent: nn.Module = self
            for part in path:
                if not hasattr(parent, part):
                    parent.add_module(part, nn.Module())
                parent = getattr(parent, part)
            if "running" in leaf or "num_batches" in leaf:
                parent.register_buffer(leaf, value.clone())
            else:
                parent.register_parameter(leaf, nn.Parameter(value.clone()))

    def named(self) -> dict[str, Tensor]:
        """Every tensor by name."""
        return dict(self.named_parameters()) | dict(self.named_buffers())


RUNNERS = [
    (lambda case: case["case"].startswith("darth_distillation"), run_distillation),
    (lambda case: case["case"].startswith("darth_ema"), run_ema),
]
