"""Runs the networks of AdaptSegNet, ADVENT and ProDA: DeepLabV2 with every head, VGG-16, and their discriminators with both losses."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fill
import numpy as np
import torch
from inputs import make
from torch import Tensor
from torch.nn import functional as F

from saccade.layers.backbone import TimmBackbone
from saccade.layers.deeplab_vgg import DeepLabVGG16
from saccade.layers.discriminator import Discriminator
from saccade.models.deeplab import DeepLabV2
from saccade.ops.class_maps import resize_maps, self_information
from saccade.structures import Batch, Geometry, Meta, SegmentationMap
from saccade.weights.load import load_into

Case = dict[str, Any]
Outputs = dict[str, np.ndarray]
Weights = dict[str, Tensor]
_HEADS = {"AdaptSegNet": "aspp2", "ADVENT": "aspp4", "ProDA": "aspp_gn_se"}
_FIRST_LAYER = {"AdaptSegNet": "conv1.weight", "ADVENT": "0.weight", "ProDA": "conv1.weight"}  # of the discriminators


def build_network(case: Case, weights: Weights) -> DeepLabV2:
    """The network of a case: its kind from the reference, its numbers from `architecture`; the list of weights says whether it has two heads."""
    architecture, repository = case["architecture"], case["reference"]["repository"]
    described = " ".join(map(str, architecture.values()))
    vgg = "VGG" in described
    return DeepLabV2(
        classes=[f"class {label}" for label in range(architecture["num_classes"])],
        backbone=DeepLabVGG16() if vgg else build_resnet(int(found[1]) if (found := re.search(r"ResNet-(\d+)", described)) else 101),
        head=_HEADS[repository],  # type: ignore[arg-type]
        rates=_rates(architecture, described),
        auxiliary=any(key.startswith("layer5.") for key in weights) and any(key.startswith("layer6.") for key in weights),
        feature_norm=bool(architecture.get("bn_clr", False)),
    )


def build_resnet(depth: int) -> TimmBackbone:
    """The dilated ResNet of all three, with the maps of all stages."""
    return TimmBackbone(
        name=f"resnet{depth}", out_indices=[1, 2, 3, 4], output_stride=8, first_block_dilation="own", stride_in="1x1", ceil_pooling=True,
    )


def _rates(architecture: Case, described: str) -> list[int]:
    stated = re.search(r"rates ([\d, ]+\d)", described)
    return [int(rate) for rate in architecture.get("rates") or (stated[1].split(",") if stated else (6, 12, 18, 24))]


@torch.no_grad()
def run_network(folder: Path, case: Case) -> Outputs:
    """Features, logits and labels of every picture of the case; those of another picture than `image` are called by its name."""
    weights = _weights(folder)
    model = build_network(case, weights)
    load_into(model, weights)
    model.train(case["mode"] == "train")
    results: dict[str, Tensor] = {}
    for name, spec in case["inputs"].items():
        prefix = "" if name == "image" else f"{name}_"
        results |= {f"{prefix}{key}": value for key, value in _look(model, torch.from_numpy(make(spec))).items()}
    return {name: value.numpy() for name, value in results.items()}


def _look(model: DeepLabV2, images: Tensor) -> dict[str, Tensor]:
    outputs = model.forward_pixels(images)
    size = (int(images.shape[-2]), int(images.shape[-1]))
    found = model.predictions(outputs, Batch(images, [], [Meta(original_size=size, geometry=Geometry.identity(size))] * len(images)))
    maps = [each for each in found if isinstance(each, SegmentationMap)]
    enlarged = resize_maps(torch.stack([m.coarse for m in maps]), size)  # type: ignore[misc]  # ProDA enlarges probabilities, not logits
    confidence, pseudo_label = enlarged.max(1)
    results = {f"layer{stage}": features for stage, features in enumerate(outputs["features"], 1)}
    results |= {"features": outputs["features"][-1], "feat": outputs["embeddings"], "prediction": torch.stack([m.labels for m in maps])}
    results |= {"pseudo_label": pseudo_label, "pseudo_confidence": confidence}
    results |= dict.fromkeys(("logits", "logits_main", "out"), outputs["logits"])
    return results | ({"logits_aux": outputs["aux_logits"]} if "aux_logits" in outputs else {})


@torch.no_grad()
def run_discriminator(folder: Path, case: Case) -> Outputs:
    """What the discriminator says of probabilities, logits and self-information, and its losses against source (0) and target (1)."""
    weights, repository = _weights(folder), case["reference"]["repository"]
    width, channels = weights[_FIRST_LAYER[repository]].shape[:2]
    network = Discriminator(preset="proda" if repository == "ProDA" else "adaptsegnet", channels=width).build(channels)
    load_into(network, weights)
    network.eval()
    logits = torch.from_numpy(make(case["inputs"]["logits"]))
    probabilities = logits.softmax(1)
    results = {"on_softmax": network(probabilities), "on_logits": network(logits), "on_entropy": network(self_information(probabilities))}
    judged = results["on_entropy" if repository == "ADVENT" else "on_softmax"]
    for label, domain in enumerate(("source", "target")):
        truth = torch.full_like(judged, label)
        results |= {f"bce_{domain}": F.binary_cross_entropy_with_logits(judged, truth), f"mse_{domain}": F.mse_loss(judged, truth)}
    return {name: value.numpy() for name, value in results.items()}


def _weights(folder: Path) -> Weights:
    return {key: torch.from_numpy(value) for key, value in fill.state_dict_from(folder / "manifest.json").items()}


def _of_ours(case: Case) -> bool:
    return "architecture" in case and case["reference"].get("repository") in _HEADS


RUNNERS = [
    (lambda case: _of_ours(case) and "discriminator" in case["case"], run_discriminator),
    (_of_ours, run_network),
]
