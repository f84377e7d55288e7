"""Runs the QDTrack cases: its two losses, its samplers, and the whole network with its training step."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fill
import numpy as np
import torch
from inputs import make
from torch import Tensor
from torch.nn import functional as F

from saccade.layers.assigning import IGNORED, NEGATIVE, MaxIoUAssigner
from saccade.layers.backbone import TimmBackbone
from saccade.layers.contrastive import cosine_loss, instance_targets, multi_positive_loss, pairwise_cosines
from saccade.layers.sampling import Sampler, choose_evenly
from saccade.layers.track_head import TrackHead
from saccade.layers.two_stage import SMOOTH_L1, TwoStageSettings
from saccade.models.qdtrack import QDTrack
from saccade.structures import Annotations, Batch
from saccade.weights.maps import qdtrack

Case = dict[str, Any]
Outputs = dict[str, np.ndarray]


def run_losses(folder: Path, case: Case) -> Outputs:
    """Both losses with their gradients on every target pattern of the case."""
    given = _inputs(case)
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


def run_samplers(folder: Path, case: Case) -> Outputs:
    """Assignment and two calls of both samplers on the four sets of boxes that the case describes in words."""
    given = _inputs(case)
    objects, extra = given["gts"], given["extra"]
    jitter = given["jitter"].view(3, 60, 4)
    near = objects[:, None] + jitter
    sets = {
        "few": torch.cat([near[:, :6].flatten(0, 1), extra]),
        "many": torch.cat([near.flatten(0, 1), extra]),
        "uneven": torch.cat([objects[0] + 0.8 * given["jitter"][:150], near[1, :5], near[2, :3], extra[:300]]),
        "only_far": torch.cat([near[:, :2].flatten(0, 1), extra[:60]]),
    }
    outputs: dict[str, Tensor] = {}
    for setting, parts in case["settings"].items():
        assigner = build_assigner(parts["assigner"])
        for name, boxes in sets.items():
            key = f"{name}_{setting}"
            outputs[f"{key}_assigned"] = reference_numbers(assigner(boxes, objects).matched)
            assigned = assigner(torch.cat([objects, boxes]) if parts["sampler"]["add_gt_as_proposals"] else boxes, objects)
            for call in (1, 2):  # only the original's second call knows boxes without overlap
                chosen = build_sampler(parts["sampler"], zeros_apart=call == 2)(assigned)
                outputs |= {f"{key}_positive{call}": chosen.positive.int(), f"{key}_negative{call}": chosen.negative.int()}
    return _as_arrays(outputs)


def build_assigner(settings: Case) -> MaxIoUAssigner:
    """The assigner of an mmdetection block of settings."""
    return MaxIoUAssigner(
        positive=settings["pos_iou_thr"], negative=settings["neg_iou_thr"], minimum=settings["min_pos_iou"],
        low_quality=settings["match_low_quality"], ignore_share=None if settings["ignore_iof_thr"] < 0 else settings["ignore_iof_thr"],
    )


def build_sampler(settings: Case, *, zeros_apart: bool) -> Sampler:
    """The sampler of an mmdetection block of settings, with even spacing for chance."""
    return Sampler(
        settings["num"], settings["pos_fraction"], negatives_per_positive=settings["neg_pos_ub"], choose=choose_evenly, reference_quirks=True,
        positives={"InstanceBalancedPosSampler": "instance_balanced", "RandomSampler": "random"}[settings["pos_sampler"]["type"]],  # type: ignore[arg-type]
        negatives={"IoUBalancedNegSampler": "iou_balanced", "RandomSampler": "random"}[settings["neg_sampler"]["type"]],  # type: ignore[arg-type]
        zeros_apart=zeros_apart,
    )


def reference_numbers(matched: Tensor) -> Tensor:
    """Assignments as mmdetection counts them: 0 background, -1 ignored, objects from 1."""
    return torch.where(matched == NEGATIVE, 0, torch.where(matched == IGNORED, -1, matched + 1)).int()


def build_qdtrack(architecture: Case, **changes: Any) -> QDTrack:
    """The model of an `architecture` block, with even spacing for chance and the original's quirks."""
    rpn, roi, test, track = (architecture[key] for key in ("rpn", "roi", "test", "track_head"))
    trunk, neck = architecture["backbone"], architecture["neck"]
    backbone = TimmBackbone(
        name=f"resnet{trunk['depth']}", out_indices=list(trunk["out_stages"]), frozen_stages=trunk["frozen_stages"], norm="eval", norm_affine=False,
        norm_eps=trunk["norm_eps"], stride_in={"caffe": "1x1", "pytorch": "3x3"}[trunk["style"]],  # type: ignore[arg-type]
    )
    assert backbone.channels == neck["in_channels"]
    betas = {"smooth l1, beta 1/9": SMOOTH_L1, "l1": 0.0}
    settings = TwoStageSettings(
        channels=neck["out_channels"], levels=neck["levels"], hidden=tuple(roi["shared_fcs"]), class_agnostic=roi["class_agnostic"],
        roi_size=roi["align"]["size"], roi_points=0, roi_aligned=roi["align"]["aligned"], roi_finest_scale=roi["align"]["finest_scale"],
        anchor_scale=rpn["anchors"]["scale"], anchor_ratios=tuple(rpn["anchors"]["ratios"]), clip_boxes=architecture["box_clipping"],
        roi_stds=tuple(roi["stds"]), train_per_level=rpn["train_proposals"]["per_level"], train_proposals=rpn["train_proposals"]["total"],
        test_per_level=rpn["test_proposals"]["per_level"], test_proposals=rpn["test_proposals"]["total"], proposal_nms=rpn["test_proposals"]["nms"],
        score_threshold=test["score_threshold"], nms_threshold=test["nms"], max_detections=test["max_detections"],
        rpn_positive=rpn["assigner"]["positive"], rpn_negative=rpn["assigner"]["negative"], rpn_minimum=rpn["assigner"]["minimum"],
        rpn_samples=rpn["sampler"]["number"], rpn_positive_fraction=rpn["sampler"]["positive_fraction"], rpn_box_beta=betas[rpn["losses"]["box"]],
        roi_positive=roi["assigner"]["positive"], roi_negative=roi["assigner"]["negative"], roi_samples=roi["sampler"]["number"],
        roi_positive_fraction=roi["sampler"]["positive_fraction"], roi_box_beta=betas[roi["losses"]["box"]],
    )
    head = TrackHead(
        in_channels=neck["out_channels"], convs=track["convs"], groups=track["norm"]["groups"], hidden=track["fcs"], embedding=track["embedding"],
        roi_size=track["roi_align"]["size"], strides=track["roi_align"]["strides"],
    )
    model = QDTrack(
        classes=[f"class {k}" for k in range(architecture["num_classes"])], backbone=backbone, settings=settings, track_head=head,
        track_samples=track["sampler"]["number"], track_negative=track["assigner"]["negative"],
        track_negatives="iou_balanced" if "iou" in track["sampler"]["negatives"].lower() else "random",
        track_weight=track["losses"]["track"]["weight"], aux_weight=track["losses"]["aux"]["weight"], reference_quirks=True, **changes,
    )
    for owner, name in ((model.detector, "rpn_sampler"), (model.detector, "roi_sampler"), (model, "track_sampler")):
        setattr(owner, name, replace(getattr(owner, name), choose=choose_evenly))
    return model.eval()


def load_filled(model: QDTrack, folder: Path) -> None:
    """Fill the model through its key map with the weights that the manifest's names stand for."""
    weights = {key: torch.from_numpy(np.asarray(value)) for key, value in fill.state_dict_from(folder / "manifest.json").items()}
    model.load_state_dict(qdtrack.KEY_MAP.to_saccade(weights, model), strict=True)


def run_network(folder: Path, case: Case) -> Outputs:
    """Features, proposals, detections, embeddings, the sampled pairs of fixed proposals with both losses, and the whole training step."""
    model = build_qdtrack(case["architecture"])
    load_filled(model, folder)
    given = _inputs(case)
    keys, references = (padded_batch(given[f"{name}_images"], annotations(given, name)) for name in ("key", "ref"))
    with torch.no_grad():
        key = see(model, keys)
        outputs = network_outputs(model, key, given)
    outputs |= assignments(model, given)
    key, reference = see(model, keys), see(model, references)
    outputs |= fixed_losses(model, key, reference, given, case, folder)
    outputs |= full_losses(model, key, keys, reference, references)
    return _as_arrays(outputs)


def annotations(given: dict[str, Tensor], name: str) -> list[Annotations]:
    """The objects of both pictures of the "key" or "ref" frames."""
    return [
        Annotations(boxes=given[f"{name}_boxes{n}"], labels=torch.zeros(len(given[f"{name}_boxes{n}"]), dtype=torch.int64),
                    track_ids=given[f"{name}_ids{n}"]) for n in range(2)
    ]


def padded_batch(images: Tensor, targets: list[Annotations], divisor: int = 32) -> Batch:
    """Normalised images filled up to a multiple of `divisor` on the right and below."""
    height, width = images.shape[-2:]
    right, below = -width % divisor, -height % divisor
    padding = F.pad(torch.zeros(len(images), height, width, dtype=torch.bool), (0, right, 0, below), value=True)
    return Batch(F.pad(images, (0, right, 0, below)), targets, [], padding)


def see(model: QDTrack, batch: Batch) -> dict[str, Any]:
    """What the detector says of images that are normalised already."""
    return model.detector(batch.images, batch.padding)


def network_outputs(model: QDTrack, key: dict[str, Any], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Features, the first picture's proposals, both pictures' detections in the original of twice the size, outputs for fixed boxes."""
    boxes, scores = model.detector.scored_proposals(key, False)[0]
    outputs = {"proposals": boxes, "proposal_scores": scores} | {f"fpn{level}": f for level, f in enumerate(key["features"])}
    for suffix, (found, found_scores, _) in zip(("", "1"), model.detect(key), strict=True):
        outputs |= {f"det_boxes{suffix}": 2 * found, f"det_scores{suffix}": found_scores}
    first = [feature[:1] for feature in key["features"]]
    outputs["roi_cls"], outputs["roi_reg"] = model.box_outputs(first, [given["embed_boxes"]])
    outputs["embeddings"], = model.embed(first, [given["embed_boxes"]])
    return outputs


def fixed_proposals(given: dict[str, Tensor], name: str, number: int) -> Tensor:
    """The proposals that the case makes of a picture's objects: 60 beside them, and 240 others."""
    boxes = given[f"{name}_boxes{number}"]
    return torch.cat([boxes[torch.arange(60) % len(boxes)] + given[f"{name}_jitter{number}"], given[f"{name}_extra{number}"]])


def assignments(model: QDTrack, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Which objects of a pair are the same, and what is sampled of the fixed proposals."""
    outputs = {}
    for n in range(2):
        same = instance_targets(given[f"key_ids{n}"], given[f"ref_ids{n}"])
        for key, table in ((f"match_indices{n}", same), (f"ref_match_indices{n}", same.T)):
            outputs[key] = torch.where(table.any(1), table.int().argmax(1), -1).int()
    sets = {f"{name}_{{}}{n}": (given[f"{name}_boxes{n}"], fixed_proposals(given, name, n)) for name in ("key", "ref") for n in range(2)}
    boxes = given["key_boxes0"]
    sets["big_{}"] = (boxes, torch.cat([boxes[torch.arange(200) % len(boxes)] + given["big_jitter"], given["key_extra0"]]))
    for key, (objects, proposals) in sets.items():
        outputs[key.format("assigned")] = reference_numbers(model.track_assigner(proposals, objects).matched)
        chosen = model.track_sampler(model.track_assigner(torch.cat([objects, proposals]), objects))
        outputs |= {key.format("positive"): chosen.positive.int(), key.format("negative"): chosen.negative.int()}
    return outputs


def fixed_losses(
    model: QDTrack, key: dict[str, Any], reference: dict[str, Any], given: dict[str, Tensor], case: Case, folder: Path
) -> dict[str, Tensor]:
    """Similarities, targets, both losses and the gradient norms for the fixed proposals."""
    sides = []
    for name, outputs in (("key", key), ("ref", reference)):
        sides.append(({**outputs, "proposals": [fixed_proposals(given, name, n) for n in range(2)]}, annotations(given, name)))
    (key, key_targets), (reference, reference_targets) = sides
    keys = model.sample_instances(key, key_targets, objects_only=True)
    references = model.sample_instances(reference, reference_targets, objects_only=False)
    outputs: dict[str, Tensor] = {}
    with torch.no_grad():
        left = model.embed(key["features"], [boxes for boxes, _ in keys])
        right = model.embed(reference["features"], [boxes for boxes, _ in references])
    for n in range(2):
        same = instance_targets(keys[n][1], references[n][1])
        outputs |= {f"targets{n}": same.int(), f"target_weights{n}": same.any(1).float()}
    outputs |= {"similarity0": left[0] @ right[0].T, "cosine0": pairwise_cosines(left[0], right[0])}
    losses = model.contrast(key, key_targets, reference, reference_targets)
    named = dict(model.named_parameters())
    theirs = gradient_names(case)
    ours = list(qdtrack.KEY_MAP.to_saccade({name: torch.zeros(()) for name in theirs}, model))
    gradients = torch.autograd.grad(losses["loss_track"] + losses["loss_track_aux"], [named[name] for name in ours], retain_graph=True)
    outputs["gradient_norms"] = torch.stack([g.norm() for g in gradients])
    return outputs | {f"fixed_{name}": value[None] for name, value in losses.items()}


def gradient_names(case: Case) -> list[str]:
    """The weights whose gradients the case's notes name."""
    note = next(note for note in case["notes"] if note.startswith("gradient_norms"))
    names: list[str] = [name.strip().strip("'") for name in note[note.rindex("[") + 1:note.rindex("]")].split(",")]
    return names


def full_losses(model: QDTrack, key: dict[str, Any], keys: Batch, reference: dict[str, Any], references: Batch) -> dict[str, Tensor]:
    """The losses of the training step on the network's own proposals, norms as in evaluation."""
    truths = model._truths(keys.targets, key)
    key = {**key, "proposals": model.propose(key, True)}
    cls, box = model.detector.first_stage_losses(key, truths)
    detection = model.detector.losses(key, truths)
    tracks = model.contrast(key, keys.targets, reference, references.targets)
    outputs = {"full_loss_rpn_cls": cls, "full_loss_rpn_bbox": box, "full_loss_cls": detection["loss_cls"][None]}
    return outputs | {"full_loss_bbox": detection["loss_bbox"][None]} | {f"full_{name}": value[None] for name, value in tracks.items()}


def _inputs(case: Case) -> dict[str, Tensor]:
    return {name: torch.from_numpy(make(spec)) for name, spec in case["inputs"].items()}


def _as_arrays(outputs: dict[str, Tensor]) -> Outputs:
    return {name: value.detach().numpy() for name, value in outputs.items()}


RUNNERS: list[tuple[Callable[[Case], bool], Callable[[Path, Case], Outputs]]] = [
    (lambda case: case["case"].startswith("qdtrack_losses"), run_losses),
    (lambda case: case["case"].startswith("qdtrack_samplers"), run_samplers),
    (lambda case: "track_head" in case.get("architecture", {}) and case["case"].startswith("qdtrack"), run_network),
]
