"""Runs the DARTH cases: the two distillation losses, the teacher's moving average, the transforms of its views, and the whole step."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import fill
import numpy as np
import torch
from inputs import make
from torch import Tensor, nn
from torchvision.transforms.v2 import RandomHorizontalFlip

from saccade.adaptation.terms.detection_consistency import roi_consistency, rpn_consistency
from saccade.data.transforms.classification import Window
from saccade.data.transforms.clips import unclipped_crop
from saccade.data.transforms.sample_transform import clip_boxes, without_degenerate
from saccade.data.transforms.sizes import KeepRatioResize, padded_size
from saccade.data.transforms.ssd import Photometry, distort
from saccade.layers.contrastive import instance_targets
from saccade.learning.ema import MovingAverage
from saccade.structures import Annotations, make_sample

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


def run_transforms(folder: Path, case: dict[str, Any]) -> Outputs:
    """`darth_transforms`: what views are made of. The case has its pixels in blue, green, red; here they are red, green, blue."""
    given = {name: torch.from_numpy(make(spec)) for name, spec in case["inputs"].items()}
    known = Annotations(boxes=given["boxes"], labels=given["labels"], track_ids=given["ids"])
    sample, settings = make_sample(given["image"].flip(0), known), case["settings"]
    outputs = {f"jitter{i}": distort(sample.image, _photometry(spec)).flip(0) for i, spec in enumerate(settings["jitter"])}
    for i, spec in enumerate(settings["crops"]):
        sides = [min(whole, part) for whole, part in zip(sample.size, spec["crop_size_h_w"], strict=True)]
        window = Window(*spec["offset_h_w"], *sides)
        free = unclipped_crop(sample, window, keep_outside=True)
        clipped = without_degenerate(clip_boxes(free))
        for name, cut in (("free", free), ("clipped", clipped)):
            outputs |= {f"crop{i}_{name}_boxes": cut.boxes, f"crop{i}_{name}_ids": cut.track_ids}
        outputs[f"crop{i}_size"] = torch.tensor(free.size)
    flipped = RandomHorizontalFlip(p=1.0)(sample)
    outputs |= {"flip_boxes": flipped.boxes, "flip_image": flipped.image.flip(0)}
    for i, scale in enumerate(settings["resizes"]):
        resized = KeepRatioResize(scale=tuple(scale), clip=False)(sample)
        height, width = (new / old for new, old in zip(resized.size, sample.size, strict=True))
        outputs |= {
            f"resize{i}_image": resized.image.flip(0), f"resize{i}_boxes": resized.boxes,
            f"resize{i}_factor": torch.tensor([width, height, width, height]), f"resize{i}_padded": torch.tensor(padded_size(resized.size, 32)),
        }
    for i, (keys, references) in enumerate(settings["matches"]):
        outputs |= {f"match{i}": _matches(keys, references), f"match{i}_reverse": _matches(references, keys)}
    return {name: value.as_subclass(Tensor).detach().numpy() for name, value in outputs.items()}


def _photometry(spec: dict[str, Any]) -> Photometry:
    order = spec["permutation"]
    channels = None if order is None else tuple(2 - order[2 - c] for c in range(3))
    return Photometry(spec["delta"], spec["alpha"], spec["saturation"], spec["hue"], not spec["contrast_first"], channels)


def _matches(keys: list[int], references: list[int]) -> Tensor:
    """The index in `references` of every id of `keys`, -1 where it is absent; ids that are not positive match nothing in the reference."""
    positive = [torch.tensor([i if i > 0 else -1 for i in ids]) for ids in (keys, references)]
    same = instance_targets(*positive)
    return torch.where(same.any(1), same.int().argmax(1), -1)


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
    (lambda case: case["case"].startswith("darth_transforms"), run_transforms),
]
