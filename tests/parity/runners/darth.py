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

from runners.qdtrack import annotations, build_qdtrack, fixed_proposals, gradient_names
from saccade.adaptation.context import RAW, Context
from saccade.adaptation.objects import ConfidentDetections
from saccade.adaptation.term import Term
from saccade.adaptation.terms.detection_consistency import DetectionConsistency, roi_consistency, rpn_consistency
from saccade.adaptation.terms.patch_contrast import PatchContrast
from saccade.adaptation.views import View, make_views
from saccade.data.transforms.classification import Window
from saccade.data.transforms.clips import unclipped_crop
from saccade.data.transforms.sample_transform import clip_boxes, without_degenerate
from saccade.data.transforms.sizes import KeepRatioResize, padded_size
from saccade.data.transforms.ssd import Photometry, distort
from saccade.layers.contrastive import instance_targets
from saccade.layers.pixels import PixelNorm
from saccade.learning.ema import MovingAverage
from saccade.models.qdtrack import QDTrack
from saccade.structures import Annotations, Batch, collate, make_sample
from saccade.weights.maps import qdtrack, qdtrack_teacher

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


def run_step(folder: Path, case: dict[str, Any]) -> Outputs:
    """`darth_step`: both networks on a fixed triple of views, and on views that are made of raw images, with all losses."""
    given = {name: torch.from_numpy(make(spec)) for name, spec in case["inputs"].items()}
    student, teacher = _networks(folder, case)
    settings = case["architecture"]["distillation"]
    terms = [
        DetectionConsistency(rpn=settings["rpn"]["weight"], roi=settings["roi"]["weight"], threshold=settings["rpn"]["threshold"]),
        PatchContrast(reference_quirks=True),
    ]
    outputs = _fixed_views(student, teacher, terms, given, case) | _prepared_views(student, teacher, terms, given, case)
    return {name: value.detach().numpy() for name, value in outputs.items()}


def _networks(folder: Path, case: dict[str, Any]) -> tuple[QDTrack, QDTrack]:
    """Student and teacher, filled from the case's names, some tensors scaled as it says."""
    weights = {key: torch.from_numpy(np.array(value)) for key, value in fill.state_dict_from(folder / "manifest.json").items()}
    for key, factor in case["scaled_weights"]["entries"].items():
        weights[key] *= factor
    networks = []
    for key_map in (qdtrack.KEY_MAP, qdtrack_teacher.KEY_MAP):
        network = build_qdtrack(case["architecture"])
        renamed = key_map.to_saccade(weights, network)
        network.load_state_dict({key: renamed[key] for key in network.state_dict()}, strict=True)
        networks.append(network)
    return networks[0], networks[1]


def _fixed_views(student: QDTrack, teacher: QDTrack, terms: list[Term], given: dict[str, Tensor], case: dict[str, Any]) -> dict[str, Tensor]:
    """The outputs `step_*`, and the parts of the networks on the same views. Their images are normalised already."""
    statistics = student.pixel_norm
    student.pixel_norm = teacher.pixel_norm = PixelNorm(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    keys, references = (annotations(given, name) for name in ("key", "ref"))
    pixels = {"teacher": given["teacher_view"], "student": given["teacher_view"] + given["student_noise"], "contrastive": given["contrastive_view"]}
    context = Context(student, teacher, {n: Batch(p, references if n == "contrastive" else keys, []) for n, p in pixels.items()}, 0)
    losses = {name: value for term in terms for name, value in term(context).items()}
    total = torch.stack(list(losses.values())).sum()
    outputs = {f"step_{name}": value[None] for name, value in losses.items()} | {"step_total": total[None]}
    named = dict(student.named_parameters())
    ours = qdtrack.KEY_MAP.to_saccade({name: torch.zeros(()) for name in gradient_names(case)}, student)
    outputs["gradient_norms"] = torch.stack([g.norm() for g in torch.autograd.grad(total, [named[name] for name in ours])])
    with torch.no_grad():
        outputs |= _parts(context, given, case["architecture"]["distillation"]["roi"]["weight"])
    student.pixel_norm = teacher.pixel_norm = statistics
    return outputs


def _parts(context: Context, given: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
    seen = {"teacher": context.outputs("teacher", "teacher"), "student": context.outputs("student", "student")}
    outputs = {f"{name}_fpn2": found["features"][2] for name, found in seen.items()}
    outputs["contrastive_fpn2"] = context.outputs("student", "contrastive")["features"][2]
    outputs |= {f"{name}_rpn_cls1": found["rpn_logits"][1] for name, found in seen.items()}
    boxes, scores = context.network("teacher").detector.scored_proposals(seen["teacher"], False)[0]
    outputs |= {"teacher_proposals": boxes, "teacher_proposal_scores": scores}
    fixed = [fixed_proposals(given, "key", n) for n in range(2)]
    for name, found in seen.items():
        logits, deltas = context.network(name).box_outputs(found["features"], fixed)
        outputs |= {f"{name}_roi_cls": logits, f"{name}_roi_reg": deltas}
    both = [outputs[f"{name}_roi_{kind}"] for name in ("student", "teacher") for kind in ("cls", "reg")]
    outputs["fixed_roi_distillation_loss"] = weight * roi_consistency(*both)[None]
    return outputs


def _prepared_views(student: QDTrack, teacher: QDTrack, terms: list[Term], given: dict[str, Tensor], case: dict[str, Any]) -> dict[str, Tensor]:
    """The outputs `view_*` and `prepared_*`: what the learner makes of raw images (blue, green, red in the case) without chance."""
    batch = collate([make_sample(image.flip(0)) for image in given["raw"]], 32)
    context = Context(student, teacher, {RAW: batch}, 0)
    objects = ConfidentDetections(threshold=case["architecture"]["conf_thr"]).find(context)
    views = {"teacher": View(transforms=[RandomHorizontalFlip(p=1.0)]), "student": View(after="teacher"), "contrastive": View()}
    context.views.update(make_views(views, batch, objects, 32))
    outputs = {}
    for name in views:
        view = context.view(name)
        outputs[f"view_{name}"] = student.pixel_norm(view.images, view.padding)
        outputs |= {f"view_{name}_boxes{n}": target.boxes for n, target in enumerate(view.targets)}
    for n, (key, other) in enumerate(zip(context.view("student").targets, context.view("contrastive").targets, strict=True)):
        same = instance_targets(key.track_ids, other.track_ids)
        outputs |= {f"view_match{n}": same.int().argmax(1).int(), f"view_contrastive_match{n}": same.T.int().argmax(1).int()}
    losses = {name: value for term in terms for name, value in term(context).items()}
    total = torch.stack(list(losses.values())).sum()[None]
    return outputs | {f"prepared_{name}": value[None] for name, value in losses.items()} | {"prepared_total": total}


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
    (lambda case: case["case"].startswith("darth_step"), run_step),
]
