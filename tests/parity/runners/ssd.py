"""Runs the SSD cases: whole networks of lufficc/SSD, post-processing, target assignment and losses."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fill
import numpy as np
import torch
from inputs import make
from torch import Tensor, nn
from torchvision.ops import box_convert

from saccade.layers.box_coder import decode_boxes, encode_boxes
from saccade.layers.multibox import Match, Truth, match_priors, mine_hard_negatives, multibox_losses
from saccade.layers.priors import make_priors
from saccade.models.ssd import REFERENCE_EPSILON, SSD
from saccade.models.ssd_backbones.efficientnet import SSDEfficientNetB3
from saccade.models.ssd_backbones.mobilenet_v2 import SSDMobileNetV2
from saccade.models.ssd_backbones.mobilenet_v3 import SSDMobileNetV3
from saccade.models.ssd_backbones.vgg import SSDVGG16
from saccade.structures import Batch, Geometry, Meta
from saccade.weights.maps import lufficc_ssd

Case = dict[str, Any]
Outputs = dict[str, np.ndarray]


def build_backbone(settings: Case) -> nn.Module:
    """The backbone that `settings["backbone"]` names."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "vgg": lambda: SSDVGG16(size=settings["image_size"]),
        "mobilenet_v2": SSDMobileNetV2,
        "mobilenet_v3": SSDMobileNetV3,
        "efficient_net-b3": SSDEfficientNetB3,
    }
    return makers[settings["backbone"]]()


def build_ssd(settings: Case, **changes: Any) -> SSD:
    """The model of an `architecture` (or `settings`) block, checked against what that block says of channels, maps and boxes a cell."""
    priors = settings["priors"]
    arguments: Case = {
        "classes": [f"class {k}" for k in range(settings["num_classes"] - 1)],
        "backbone": build_backbone(settings),
        "image_size": settings["image_size"],
        "predictor": {"SSDBoxPredictor": "ssd", "SSDLiteBoxPredictor": "ssdlite"}[settings["predictor"]],
        "clip_priors": priors["clip"],
        "match_threshold": settings["threshold"],
        "negative_ratio": settings["neg_pos_ratio"],
        "score_threshold": settings["confidence_threshold"],
        "max_detections": settings["max_per_image"],
        "reference_quirks": True,
        **{name: priors[name] for name in ("min_sizes", "max_sizes", "aspect_ratios", "strides")},
        **{name: settings[name] for name in ("center_variance", "size_variance", "nms_threshold")},
    }
    model = SSD(**{**arguments, **changes}).eval()
    assert [rows for rows, _ in model.grids] == priors["feature_maps"]
    assert model.backbone.channels == settings["out_channels"]
    assert [2 + 2 * len(ratios) for ratios in model.aspect_ratios] == priors["boxes_per_location"]
    return model


@torch.inference_mode()
def run_network(folder: Path, case: Case) -> Outputs:
    """Features, raw outputs, priors and the detections of the first image, with the filled weights through the lufficc key map."""
    model = build_ssd(case["architecture"])
    weights = {key: torch.from_numpy(value) for key, value in fill.state_dict_from(folder / "manifest.json").items()}
    model.load_state_dict(lufficc_ssd.to_saccade(weights, model), strict=True)
    raw: dict[str, Any] = model.forward_pixels(torch.from_numpy(make(case["inputs"]["images"])))
    boxes, scores, labels = model.detect(raw["class_logits"], raw["box_offsets"])[0]
    outputs = {"cls_logits": raw["class_logits"], "bbox_pred": raw["box_offsets"], "priors": model.priors}
    outputs |= {"det_scores": scores, "det_labels": labels + 1, "det_boxes": boxes}  # the reference counts the background
    outputs |= {f"feature{level}": feature for level, feature in enumerate(raw["features"])}
    return _as_arrays(outputs)


@torch.inference_mode()
def run_postprocess(folder: Path, case: Case) -> Outputs:
    """Detections from given logits and offsets at two score thresholds, in the square image and in a picture of 500 x 375."""
    logits, offsets = (torch.from_numpy(make(case["inputs"][name])) for name in ("cls_logits", "bbox_pred"))
    settings, outputs = case["settings"], {}
    size = settings["image_size"]
    to_picture = torch.diag(torch.tensor([500 / size, 375 / size, 1.0], dtype=torch.float64))
    meta = Meta(original_size=(375, 500), geometry=Geometry.from_matrix(to_picture, (size, size)))
    batch = Batch(torch.zeros(len(logits), 3, size, size, dtype=torch.uint8), [], [meta] * len(logits))
    for prefix, threshold in (("", settings["confidence_threshold"]), ("high_", 0.9)):
        model = build_ssd(settings, score_threshold=threshold)
        raw = {"class_logits": logits, "box_offsets": offsets}
        for number, ((boxes, scores, labels), found) in enumerate(zip(model.detect(logits, offsets), model.predictions(raw, batch), strict=True)):
            resized = f"{prefix}resized_boxes{number}"
            # The reference resizes a picture's boxes in place, so where the case asks for resized ones it has stored them under both names.
            outputs |= {f"{prefix}boxes{number}": found.boxes if resized in case["outputs"] else boxes, resized: found.boxes}
            outputs |= {f"{prefix}scores{number}": scores, f"{prefix}labels{number}": labels + 1}
    centers = decode_boxes(offsets, model.priors, settings["center_variance"], settings["size_variance"])
    return _as_arrays({**outputs, "decoded": box_convert(centers, "cxcywh", "xyxy")})


# The priors that `ssd_targets_loss` names in words.
_SSD300_PRIORS = {
    "image_size": 300, "grids": [(n, n) for n in (38, 19, 10, 5, 3, 1)], "strides": (8, 16, 32, 64, 100, 300),
    "min_sizes": (30, 60, 111, 162, 213, 264), "max_sizes": (60, 111, 162, 213, 264, 315),
    "aspect_ratios": ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
}


def run_targets(folder: Path, case: Case) -> Outputs:
    """Assignment, encoded offsets, mined negatives, both losses with their gradients, and the losses of the last image alone."""
    settings = case["settings"]
    center_variance, size_variance = settings["variances"]
    given = {name: torch.from_numpy(make(spec)) for name, spec in case["inputs"].items()}
    images = sum(name.startswith("boxes") for name in given)
    priors = make_priors(**_SSD300_PRIORS)  # type: ignore[arg-type]
    truth = _truth([given[f"boxes{n}"] for n in range(images)], [given[f"labels{n}"] - 1 for n in range(images)])
    match = match_priors(truth, priors, settings["iou_threshold"], REFERENCE_EPSILON)
    locations = encode_boxes(box_convert(match.boxes, "xyxy", "cxcywh"), priors, center_variance, size_variance)
    outputs: dict[str, Tensor] = {}
    for number in range(images):
        positive = match.labels[number].nonzero().squeeze(1)
        outputs |= {
            f"positive{number}": positive, f"positive_labels{number}": match.labels[number][positive],
            f"positive_locations{number}": locations[number][positive], f"locations{number}_every_97": locations[number][::97],
        }
    logits, offsets = given["cls_logits"].requires_grad_(), given["bbox_pred"].requires_grad_()
    arguments = {"center_variance": center_variance, "size_variance": size_variance, "negative_ratio": settings["neg_pos_ratio"]}
    losses = multibox_losses(logits, offsets, match, priors, **arguments)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    last = Match(match.labels[-1:], match.boxes[-1:])
    alone = multibox_losses(logits[-1:], offsets[-1:], last, priors, **arguments)
    background_loss = -logits.log_softmax(-1)[..., 0]
    outputs |= {
        **losses, "mined_mask": mine_hard_negatives(background_loss, match.labels > 0, settings["neg_pos_ratio"]),
        "grad_norm_cls": logits.grad.norm(), "grad_norm_box": offsets.grad.norm(),  # type: ignore[union-attr]
        **{f"image{images - 1}_{name}": value for name, value in alone.items()},
    }
    return _as_arrays(outputs)


def _truth(boxes: list[Tensor], labels: list[Tensor]) -> Truth:
    pad = nn.utils.rnn.pad_sequence
    real = pad([torch.ones(len(b), dtype=torch.bool) for b in boxes], batch_first=True)
    return Truth(pad(boxes, batch_first=True), pad(labels, batch_first=True), real)


def _as_arrays(outputs: dict[str, Tensor]) -> Outputs:
    return {name: value.detach().numpy() for name, value in outputs.items()}


RUNNERS: list[tuple[Callable[[Case], bool], Callable[[Path, Case], Outputs]]] = [
    (lambda case: case["case"].startswith("ssd") and "predictor" in case.get("architecture", {}), run_network),
    (lambda case: case["case"].startswith("ssd_postprocess"), run_postprocess),
    (lambda case: case["case"].startswith("ssd_targets_loss"), run_targets),
]
