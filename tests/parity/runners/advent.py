"""Runs the case of ADVENT's losses: maps of self-information and entropy, both losses of a step, the rate, the score."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saccade.adaptation.context import RAW, Context
from saccade.adaptation.terms.adversarial import SOURCE_DOMAIN, TARGET_DOMAIN, Adversarial
from saccade.adaptation.terms.map_entropy import MapEntropy
from saccade.layers.backbone import TimmBackbone
from saccade.layers.pixels import PixelNorm
from saccade.learning.optimizers import Adam
from saccade.learning.schedules import Poly
from saccade.metrics.segmentation import SegmentationIoU
from saccade.models.contract import Model
from saccade.models.deeplab import DeepLabV2
from saccade.ops.class_maps import entropy_map, self_information
from saccade.structures import Annotations, Batch, Geometry, Meta, SegmentationMap
from saccade.structures import Outputs as ModelOutputs

Outputs = dict[str, np.ndarray]


class _Given(Model):
    """A model whose maps are given."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__([str(label) for label in range(logits.shape[1])], PixelNorm())
        self.logits = nn.Parameter(logits)

    def forward(self, batch: Batch) -> ModelOutputs:
        return {"logits": self.logits}


def run(folder: Path, case: dict[str, Any]) -> Outputs:
    """Every output of the case."""
    from inputs import make  # tests/parity is on the path of whoever runs a case

    given = {name: make(spec) for name, spec in case["inputs"].items()}
    logits, answer = torch.from_numpy(given["logits"]), torch.from_numpy(given["discriminator"])
    labels = torch.from_numpy(given["labels"].astype(np.uint8))
    probabilities, model, batch = logits.softmax(1), _Given(logits), _batch(labels)
    entropy = MapEntropy(weight=1.0)(Context(model, None, {RAW: batch}, 0))["entropy_loss"]
    (entropy_gradient,) = torch.autograd.grad(entropy, model.logits)
    crossed = _cross_entropy(model, batch)
    (crossed_gradient,) = torch.autograd.grad(crossed, model.logits)
    domains = Adversarial(optimizer=Adam(lr=1e-4))
    rate = Poly(power=0.9, total_steps=250000)
    certain = torch.zeros(1, logits.shape[1], 1, 2)
    certain[:, 3] = 1
    return {
        "self_information": self_information(probabilities).numpy(), "entropy_map": entropy_map(probabilities).numpy(),
        "entropy_loss": entropy.detach().numpy(), "entropy_grad_norm": entropy_gradient.norm().numpy(),
        "cross_entropy": crossed.detach().numpy(), "cross_entropy_grad_norm": crossed_gradient.norm().numpy(),
        "bce_source": domains.distance(answer, SOURCE_DOMAIN).numpy(), "bce_target": domains.distance(answer, TARGET_DOMAIN).numpy(),
        "lr_poly": np.array([rate.lr(step, 2.5e-4, 120001, 1) for step in (0, 1, 1000, 60000, 120000, 249999)]),
        "entropy_of_certain": entropy_map(certain).numpy(),
        "entropy_of_uniform": entropy_map(torch.full_like(certain, 1 / logits.shape[1])).numpy(), **_score(logits, batch),
    }


def _batch(labels: Tensor) -> Batch:
    size = (int(labels.shape[-2]), int(labels.shape[-1]))
    metas = [Meta(id=number, original_size=size, geometry=Geometry.identity(size)) for number in range(len(labels))]
    return Batch(torch.zeros(len(labels), 3, *size, dtype=torch.uint8), [Annotations(segmentation=own) for own in labels], metas)


def _cross_entropy(model: _Given, batch: Batch) -> Tensor:
    """The loss of the network that the recipes train, on maps that are given."""
    network = DeepLabV2(classes=model.classes, backbone=TimmBackbone(name="resnet10t", out_indices=[4]))
    return network.losses({"logits": model.logits}, batch)["seg_loss"]


def _score(logits: Tensor, batch: Batch) -> Outputs:
    metric = SegmentationIoU(classes=[str(label) for label in range(logits.shape[1])])
    metric.update([SegmentationMap(own) for own in logits.argmax(1)], batch.targets, batch.metas)
    figures, counts = metric.compute(), metric.confusion()[:, : len(metric.classes)]
    by_class = np.array([figures[f"iou/class/{name}"] for name in metric.classes])
    return {"confusion": counts, "iou_per_class": by_class, "mean_iou_percent": np.array(round(100 * figures["iou/mIoU"], 2))}


RUNNERS: list[tuple[Callable[[dict[str, Any]], bool], Callable[[Path, dict[str, Any]], Outputs]]] = [
    (lambda case: case["case"].startswith("advent_losses"), run),
]
