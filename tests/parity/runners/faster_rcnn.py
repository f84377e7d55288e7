"""Runs the cases of mmdetection's Faster R-CNN: pyramid, proposals, box head, detections, assignment, sampling, losses and gradient norms."""
from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import fill
import numpy as np
import torch
from inputs import make
from torch import Tensor
from torch.nn import functional as F

from saccade.layers.anchors import cell_anchors
from saccade.layers.assigning import NEGATIVE, Assignment
from saccade.layers.backbone import TimmBackbone
from saccade.layers.rpn import clip_to_sizes
from saccade.layers.sampling import choose_evenly
from saccade.layers.two_stage import Truth, TwoStage, TwoStageSettings
from saccade.weights.load import load_into
from saccade.weights.maps.mmdet import mmdet_name

Case = dict[str, Any]
_DIVISOR = 32  # what the original fills pictures up to a multiple of


def build_detector(architecture: Case) -> TwoStage:
    """The detector of an `architecture` block, in eval mode, with even spacing instead of chance."""
    backbone = architecture["backbone"]
    body = TimmBackbone(
        name=f"resnet{backbone['depth']}", norm="eval", norm_eps=backbone["norm_eps"], out_indices=backbone["out_stages"],
        frozen_stages=backbone["frozen_stages"], stride_in="1x1" if backbone["style"] == "caffe" and backbone["depth"] >= 50 else "3x3",
    )
    assert body.channels == architecture["neck"]["in_channels"]
    settings = build_settings(architecture)
    return TwoStage(num_classes=architecture["num_classes"], backbone=body, settings=settings, choose=choose_evenly).eval()


def build_settings(architecture: Case) -> TwoStageSettings:
    """The settings that an `architecture` block says."""
    rpn, roi, test = architecture["rpn"], architecture["roi"], architecture["test"]
    assert rpn["anchors"]["centre_offset"] == 0 and rpn["assigner"]["low_quality"] and not roi["assigner"]["low_quality"]
    assert not rpn["sampler"]["add_gts"] and roi["sampler"]["add_gts"] and rpn["stds"] == [1.0] * 4
    assert rpn["train_proposals"]["nms"] == rpn["test_proposals"]["nms"]
    return TwoStageSettings(
        channels=architecture["neck"]["out_channels"], levels=architecture["neck"]["levels"], hidden=tuple(roi["shared_fcs"]),
        class_agnostic=roi["class_agnostic"], clip_boxes=architecture["box_clipping"],
        roi_size=roi["align"]["size"], roi_points=0 if roi["align"]["sampling"] == "adaptive" else roi["align"]["sampling"],
        roi_aligned=roi["align"]["aligned"], roi_finest_scale=roi["align"]["finest_scale"], roi_stds=tuple(roi["stds"]),
        anchor_scale=rpn["anchors"]["scale"], anchor_ratios=tuple(rpn["anchors"]["ratios"]),
        train_per_level=rpn["train_proposals"]["per_level"], train_proposals=rpn["train_proposals"]["total"],
        test_per_level=rpn["test_proposals"]["per_level"], test_proposals=rpn["test_proposals"]["total"], proposal_nms=rpn["test_proposals"]["nms"],
        score_threshold=test["score_threshold"], nms_threshold=test["nms"], max_detections=test["max_detections"],
        rpn_positive=rpn["assigner"]["positive"], rpn_negative=rpn["assigner"]["negative"], rpn_minimum=rpn["assigner"]["minimum"],
        rpn_samples=rpn["sampler"]["number"], rpn_positive_fraction=rpn["sampler"]["positive_fraction"], rpn_box_beta=_beta(rpn["losses"]["box"]),
        roi_positive=roi["assigner"]["positive"], roi_negative=roi["assigner"]["negative"],
        roi_samples=roi["sampler"]["number"], roi_positive_fraction=roi["sampler"]["positive_fraction"],
        roi_box_beta=_beta(roi["losses"]["box"]),
    )


def _beta(loss: str) -> float:
    """The beta that a loss named "l1" or "smooth l1, beta 1/9" has; 0 for L1."""
    if loss == "l1":
        return 0.0
    name, _, beta = loss.partition(", beta ")
    assert name == "smooth l1", loss
    return float(Fraction(beta or 1))


def pad_images(images: Tensor) -> tuple[Tensor, Tensor]:
    """`images` (N, 3, H, W) filled up with zeros on the right and below to multiples of 32, and where that is (N, H', W')."""
    height, width = images.shape[-2:]
    extra = (0, -width % _DIVISOR, 0, -height % _DIVISOR)
    return F.pad(images, extra), F.pad(images.new_zeros(len(images), height, width, dtype=torch.bool), extra, value=True)


def assigned_numbers(assignment: Assignment) -> Tensor:
    """The original's numbers: 0 negative, -1 ignored, k for the k-th object."""
    return torch.where(assignment.matched == NEGATIVE, 0, torch.where(assignment.matched < 0, -1, assignment.matched + 1))


def run(folder: Path, case: Case) -> dict[str, np.ndarray]:
    """All outputs of the case in `folder`."""
    detector = build_detector(case["architecture"])
    load_into(detector, {key: torch.from_numpy(value) for key, value in fill.state_dict_from(folder / "manifest.json").items()}, origin="mmdet")
    given = {name: torch.from_numpy(make(spec)) for name, spec in case["inputs"].items()}
    outputs = detector(*pad_images(given["image"]))
    truth = Truth(given["gt_boxes"], given["gt_labels"], torch.arange(len(given["gt_boxes"])))
    kept = case.get("kept_rows", {}).get("proposals", [None])[0]  # of the proposals; their scores have as many
    results = _maps(detector, outputs) | _second_stage(detector, outputs, given["roi_boxes"])
    results |= _detections(detector, outputs, given["roi_boxes"], kept)
    results |= _training(detector, outputs, truth, _training_proposals(outputs, given), case)
    return {name: value.detach().numpy() for name, value in results.items()}


def _maps(detector: TwoStage, outputs: Case) -> dict[str, Tensor]:
    results = {f"fpn{level}": value for level, value in enumerate(outputs["features"])}
    results |= {f"rpn_cls{level}": value for level, value in enumerate(outputs["rpn_logits"])}
    results |= {f"rpn_reg{level}": value for level, value in enumerate(outputs["rpn_deltas"])}
    settings = detector.settings
    cells = [cell_anchors(settings.anchor_scale * stride, settings.anchor_ratios) for stride in detector.strides]
    return results | {"base_anchors": torch.stack(cells), "anchors": torch.cat(detector.anchors(outputs))}


def _second_stage(detector: TwoStage, outputs: Case, rois: Tensor) -> dict[str, Tensor]:
    logits, deltas = detector.box_outputs(outputs["features"], [rois])
    boxes = detector.class_boxes(deltas, [rois], outputs["sizes"])
    return {
        "roi_levels": detector.roi_align.levels(rois), "roi_features": detector.roi_align(outputs["features"], [rois]), "roi_cls": logits,
        "roi_reg": deltas, "roi_boxes_decoded": boxes / 0.5, "roi_probabilities": logits.softmax(1),
    }


def _detections(detector: TwoStage, outputs: Case, rois: Tensor, kept: int | None) -> dict[str, Tensor]:
    (proposals, scores), = detector.scored_proposals(outputs, training=False)
    results = {"proposals": proposals, "proposal_scores": scores[:kept]}
    for name, own in (("fixed", rois), ("det", proposals)):
        (boxes, found, labels), = detector.detect(outputs | {"proposals": [own]})
        results |= {f"{name}_boxes": boxes / 0.5, f"{name}_scores": found, f"{name}_labels": labels}
    return results


def _training_proposals(outputs: Case, given: dict[str, Tensor]) -> Tensor:
    proposals, jitter, objects = given["train_proposals"].clone(), given["proposal_jitter"], given["gt_boxes"]
    proposals[: len(jitter)] = objects[torch.arange(len(jitter)) % len(objects)] + jitter
    return clip_to_sizes(proposals[None], outputs["sizes"])[0]


def _training(detector: TwoStage, outputs: Case, truth: Truth, proposals: Tensor, case: Case) -> dict[str, Tensor]:
    cls, box = detector.first_stage_losses(outputs, [truth])
    regions = detector.sample_regions(proposals, truth)
    fixed = detector.second_stage_losses(outputs["features"], [regions])
    full = detector.losses(outputs | {"proposals": detector.propose(outputs, training=True)}, [truth])
    sampled = detector.roi_sampler(detector.roi_assigner(torch.cat([truth.boxes, proposals]), truth.boxes))
    anchors = detector.anchors(outputs)
    targets = detector.anchor_targets(outputs, [truth], anchors)
    results = {
        "loss_rpn_cls": cls, "loss_rpn_bbox": box, "assigned": assigned_numbers(detector.roi_assigner(proposals, truth.boxes)),
        "sampled": torch.cat(sampled), "sampled_positive": torch.tensor([len(sampled.positive)]), "target_labels": regions.labels,
        "target_boxes": regions.deltas, "anchor_assigned": assigned_numbers(detector.rpn_assigner(torch.cat(anchors), truth.boxes)),
        "anchor_positive": targets.positive[0].nonzero().squeeze(1), "anchor_negative": targets.negative[0].nonzero().squeeze(1),
        **{f"fixed_{name}": value.reshape(1) for name, value in fixed.items()},
        **{f"full_{name}": value.reshape(1) for name, value in full.items() if not name.startswith("loss_rpn")},
    }
    total = cls.sum() + box.sum() + sum(fixed.values())
    return results | {"gradient_norms": _gradient_norms(detector, total, case)}


def _gradient_norms(detector: TwoStage, loss: Tensor, case: Case) -> Tensor:
    """Norms of the gradients of the parameters that the case's notes name."""
    note = next(note for note in case["notes"] if note.startswith("gradient_norms"))
    wanted = [name.strip(" '") for name in note[note.index("[") + 1:note.index("]")].split(",")]
    ours = {mmdet_name(key): parameter for key, parameter in detector.named_parameters()}
    return torch.stack([gradient.norm() for gradient in torch.autograd.grad(loss, [ours[name] for name in wanted])])


RUNNERS = [(lambda case: case["case"].startswith("faster_rcnn") and case.get("architecture", {}).get("detector") == "faster_rcnn", run)]
