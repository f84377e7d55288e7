"""Image classification: a backbone, global pooling, one linear layer (mmclassification's `ImageClassifier` with its `LinearClsHead`).

Read from top to bottom: pixels are normalised, the backbone gives maps (or, for networks with their own pooling and hidden layers, one vector),
the last one is pooled, the head gives one logit a class. One label an image means softmax, several mean one sigmoid a class.
Left out: stacked, transformer and class-attention heads.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from saccade.errors import DataError, InputError
from saccade.layers.classification_losses import BinaryCrossEntropy, CrossEntropy, one_hot
from saccade.layers.heads import GeneralizedMean, GlobalAverage, GlobalMaximum, LinearHead
from saccade.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, PixelNorm
from saccade.models.contract import Model
from saccade.structures import Batch, Classification, Outputs, Prediction
from saccade.structures.ranges import Probability


class ImageClassifier(Model):
    """Says which of `classes` an image shows.

    `backbone`: gives a list of maps, the last of which is pooled, or of vectors (`gives_vectors`). `pooling`: of maps; None is the average, and the
    only choice for backbones that give vectors. `dropout` before the linear layer. `multi_label`: several classes may hold, scores are independent.
    `loss`: takes logits and labels; None is plain cross-entropy, or binary cross-entropy with `multi_label`. `pixel_norm`: None takes the statistics
    of the backbone's published weights, else ImageNet's. Raises InputError for what contradicts itself.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        backbone: nn.Module,
        pooling: Literal["avg", "max", "gem"] | None = None,
        dropout: Probability = 0.0,
        loss: nn.Module | None = None,
        multi_label: bool = False,
        pixel_norm: PixelNorm | None = None,
    ) -> None:
        super().__init__(classes, pixel_norm or _statistics_of(backbone))
        self.backbone, self.multi_label = backbone, multi_label
        self.pooling = _pooling(pooling, backbone)
        self.head = LinearHead(in_channels=_channels_of(backbone), num_classes=len(self.classes), dropout=dropout)
        self.loss = loss if loss is not None else BinaryCrossEntropy() if multi_label else CrossEntropy()

    def forward(self, batch: Batch) -> Outputs:
        """`features`: maps (N, C_i, H_i, W_i) or vectors; `pooled` (N, C); `logits` (N, K)."""
        return self.forward_pixels(self.pixel_norm(batch.images, batch.padding))

    def forward_pixels(self, images: Tensor) -> dict[str, Any]:
        """The same for `images` (N, 3, H, W) that are normalised already."""
        features = self.backbone(images)
        pooled = self.pooling(features[-1])  # (N, C)
        return {"features": features, "pooled": pooled, "logits": self.head(pooled)}

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`cls_loss`. Raises DataError for images without a label or with one that is no class."""
        return {"cls_loss": self.loss(outputs["logits"], self._labels(batch).to(outputs["logits"].device))}

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """One `Classification` an image, probabilities in float32."""
        logits = outputs["logits"].float()
        return [Classification(scores) for scores in (logits.sigmoid() if self.multi_label else logits.softmax(1))]

    def head_keys(self) -> tuple[str, ...]:
        """The linear layer."""
        return ("head.fc.",)

    def _labels(self, batch: Batch) -> Tensor:
        """(N,) int64 where every image has one class, else (N, K) float; difficult ones (-1) count as present, as in mmclassification."""
        values = [_label_of(batch, i, len(self.classes)) for i in range(len(batch.targets))]
        single = [value for value in values if isinstance(value, int)]
        if len(single) == len(values) and not self.multi_label:
            return torch.tensor(single)
        rows = [one_hot(torch.tensor([v]), len(self.classes))[0] if isinstance(v, int) else v.float() for v in values]
        return torch.stack(rows).abs() if self.multi_label else torch.stack(rows)


def _label_of(batch: Batch, index: int, num_classes: int) -> int | Tensor:
    label, meta = batch.targets[index].label, batch.metas[index]
    if isinstance(label, Tensor) and label.ndim == 0:
        label = int(label)
    if label is None:
        raise DataError(f"{meta.dataset} {meta.id}: this image has no label; classifiers learn from data sets with one label an image, or a vector")
    fits = 0 <= label < num_classes if isinstance(label, int) else label.shape == (num_classes,)
    if not fits:
        given = label if isinstance(label, int) else f"of shape {tuple(label.shape)}"
        raise DataError(f"{meta.dataset} {meta.id}: the label {given} does not fit {num_classes} classes")
    return label


def _statistics_of(backbone: nn.Module) -> PixelNorm:
    return PixelNorm(mean=getattr(backbone, "pixel_mean", IMAGENET_MEAN), std=getattr(backbone, "pixel_std", IMAGENET_STD))


def _channels_of(backbone: Any) -> int:
    try:
        return int(backbone.channels[-1])
    except AttributeError:
        raise InputError(f"{type(backbone).__name__} can't be a backbone: it has no list `channels`") from None


def _pooling(pooling: Literal["avg", "max", "gem"] | None, backbone: nn.Module) -> nn.Module:
    if getattr(backbone, "gives_vectors", False):
        if pooling is not None:
            raise InputError(f"pooling: {type(backbone).__name__} pools by itself; leave `pooling` out, or take a TimmBackbone")
        return nn.Identity()
    if pooling == "gem":
        return GeneralizedMean()
    return GlobalMaximum() if pooling == "max" else GlobalAverage()
