"""A small SSD at 64 pixels and one step of its training through the real augmentation, for the tests of odd data."""
from __future__ import annotations

from collections.abc import Sequence

import torch

from saccade.data.contract import Dataset
from saccade.data.loading import Loader
from saccade.engine.evaluation import evaluate
from saccade.metrics.coco import CocoDetection
from saccade.metrics.voc import VocDetection
from saccade.models.ssd import SSD
from saccade.models.ssd_backbones.any_timm import TimmSSD
from saccade.recipes import build

SIZE = 64
TRAINING = ("PhotometricDistort", "Expand", "MinIoUCrop", "RandomHorizontalFlip")


def small_ssd(classes: Sequence[str]) -> SSD:
    """Random weights, two levels of priors."""
    torch.manual_seed(0)
    backbone = TimmSSD(name="resnet10t", extra_channels=[], options={"channels": [8, 16, 24, 32]})
    return SSD(classes=classes, backbone=backbone, image_size=SIZE)


def loader_of(dataset: Dataset, training: bool, batch_size: int = 4) -> Loader:
    """With SSD's own transforms."""
    resize = build({"type": "Resize", "size": [SIZE, SIZE]})
    augmentation = [build({"type": name}) for name in TRAINING]
    transforms = [*augmentation, resize, build({"type": "RemoveDegenerate"})] if training else [resize]
    return Loader(dataset=dataset, transforms=transforms, batch_size=batch_size, training=training)


def train_and_evaluate(dataset: Dataset, model: SSD | None = None, steps: int = 3) -> dict[str, float]:
    """A few steps and an evaluation on the same data; every loss and every gradient must be finite, every head must have one. The figures."""
    torch.set_num_threads(1)
    model = model or small_ssd(dataset.classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _, batch in zip(range(steps), loader_of(dataset, training=True), strict=False):
        loss = sum(model.losses(model(batch), batch).values(), torch.zeros(()))
        assert bool(loss.isfinite())
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        optimizer.step()
    metrics = [CocoDetection(classes=dataset.classes), VocDetection(classes=dataset.classes)]
    return evaluate(model, loader_of(dataset, training=False), metrics)
