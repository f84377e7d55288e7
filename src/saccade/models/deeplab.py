"""DeepLabV2 (Chen et al. 2017, arXiv:1606.00915) as AdaptSegNet, ADVENT and ProDA have it: semantic segmentation at an eighth of the resolution.

Read from top to bottom: a backbone whose last stages are dilated instead of strided gives maps; a head on the last one gives a logit a class and
place, an auxiliary head one on the map before; logits are enlarged to the picture with corners aligned, in training and in tests.
Spec: segmentation_adaptation.md 1. Left out: the conditional random field and the several scales of the paper, which none of the three has.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.errors import DataError
from saccade.layers.aspp import RATES, Aspp, AsppGroupNorm
from saccade.layers.padding import PaddingGuard
from saccade.layers.pixels import IMAGENET_MEAN, IMAGENET_STD, PixelNorm
from saccade.models.contract import Model
from saccade.ops.class_maps import resize_maps
from saccade.structures import IGNORE, Batch, Geometry, Meta, Outputs, Prediction, SegmentationMap
from saccade.structures.ranges import NonNegativeFloat

HeadKind = Literal["aspp2", "aspp4", "aspp_gn_se"]


class DeepLabV2(Model):
    """Says which of `classes` each pixel shows.

    `backbone`: gives a list of maps, of which the last feeds the head and the last but one the auxiliary head. `head`: "aspp4" adds up four dilated
    convolutions (the paper, ADVENT), "aspp2" the first two of them (what AdaptSegNet's code computes and its weights depend on), "aspp_gn_se" is
    ProDA's. `rates`: the dilations. `auxiliary`: a second head like the first, whose loss counts `auxiliary_weight`. `feature_norm`: a batch norm
    on the last map, which ProDA has with backbones from SimCLR. `pixel_norm`: what the backbone's weights expect unless given.
    Raises ValueError for settings that contradict each other.
    """

    def __init__(
        self, *, classes: Sequence[str], backbone: nn.Module, head: HeadKind = "aspp4", rates: Sequence[int] = RATES, auxiliary: bool = False,
        auxiliary_weight: NonNegativeFloat = 0.1, feature_norm: bool = False, pixel_norm: PixelNorm | None = None,
    ) -> None:
        super().__init__(classes, pixel_norm or _statistics_of(backbone))
        channels = _channels_of(backbone)
        self.backbone, self.auxiliary_weight = backbone, auxiliary_weight
        self.feature_norm = nn.BatchNorm2d(channels[-1]) if feature_norm else None
        self.head = _make_head(head, channels[-1], len(self.classes), rates)
        self.aux_head: nn.Module | None = None
        if auxiliary:
            if head == "aspp_gn_se":
                raise ValueError("auxiliary: ProDA's head (aspp_gn_se) has none beside it; take aspp2 or aspp4")
            if len(channels) < 2:
                raise ValueError(f"auxiliary: needs a backbone that gives two maps; this one gives one, of {channels[0]} channels")
            self.aux_head = _make_head(head, channels[-2], len(self.classes), rates)
        self._guard = PaddingGuard(backbone)

    def forward(self, batch: Batch) -> Outputs:
        """`logits` (N, K, h, w) at the network's resolution; with an auxiliary head `aux_logits` (N, K, h', w').

        Also `embeddings` (N, D, h, w), what the last layer reads: the map of an ASPP head, ProDA's 256 channels after dropout; `features`, the
        backbone's maps; for batches with padding `padding` (N, h, w) and `aux_padding` (N, h', w') bool, where logits show no picture.
        """
        return self.forward_pixels(self.pixel_norm(batch.images, batch.padding), batch.padding)

    def forward_pixels(self, images: Tensor, padding: Tensor | None = None) -> dict[str, Any]:
        """The same for `images` (N, 3, H, W) that are normalised already; `padding` (N, H, W) bool."""
        with self._guard.hide(padding):
            features: list[Tensor] = self.backbone(images)
            hidden = [self._guard.padding_of(maps) for maps in features]
        last = features[-1] if self.feature_norm is None else self.feature_norm(features[-1])
        embeddings, logits = _run_head(self.head, last, hidden[-1])
        outputs: dict[str, Any] = {"logits": logits, "embeddings": embeddings, "features": features}
        if self.aux_head is not None:
            outputs["aux_logits"] = _run_head(self.aux_head, features[-2], hidden[-2])[1]
        if padding is not None:
            outputs["padding"] = hidden[-1]
            if self.aux_head is not None:
                outputs["aux_padding"] = hidden[-2]
        return outputs

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`seg_loss`, and `aux_seg_loss` with its weight: the mean cross-entropy of pixels that have a label, 0 where none has."""
        truth = [self._labels(batch, index) for index in range(len(batch))]
        losses = {"seg_loss": _cross_entropy(outputs["logits"], outputs.get("padding"), truth)}
        if self.aux_head is not None:
            losses["aux_seg_loss"] = self.auxiliary_weight * _cross_entropy(outputs["aux_logits"], outputs.get("aux_padding"), truth)
        return losses

    @torch.no_grad()
    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """One `SegmentationMap` an image in its original size, with the probability of each pixel's label and the coarse probabilities."""
        found: list[Prediction] = []
        for index, meta in enumerate(batch.metas):
            logits = _shown(outputs["logits"], outputs.get("padding"), index).float()
            enlarged = _at_original(logits, _picture_size(batch, index), meta)  # (K, H, W)
            best, labels = enlarged.max(0)
            found.append(SegmentationMap(labels, (best - enlarged.logsumexp(0)).exp(), logits.softmax(0)))
        return found

    def parameter_groups(self) -> dict[str, list[str]]:
        """`backbone`, `head`, and of ResNets `repeated_3` and `repeated_4`.

        Those are the parameters that the originals' optimisers hold so many times, for they list them once for every module around them
        (segmentation_adaptation.md 4.1).
        """
        return super().parameter_groups() | _repeated(self.backbone)

    def head_keys(self) -> tuple[str, ...]:
        """The layers with one channel a class."""
        return ("head.classifier.",) if isinstance(self.head, AsppGroupNorm) else ("head.", "aux_head.")

    def _labels(self, batch: Batch, index: int) -> Tensor:
        """(H, W) int64 of one image, as it is at hand. Raises DataError where there are none, or not of its size or its classes."""
        meta, labels = batch.metas[index], batch.targets[index].segmentation
        if labels is None:
            raise DataError(f"{meta.dataset} {meta.id}: this image has no label map; DeepLabV2 learns from data sets with `segmentation`")
        size = _picture_size(batch, index)
        if tuple(labels.shape) != size:
            raise DataError(f"{meta.dataset} {meta.id}: the label map is {tuple(labels.shape)} pixels, the image {size}")
        # On a GPU this would wait for the device; data sets check their ids when they read them.
        if batch.images.device.type == "cpu" and bool(((labels >= len(self.classes)) & (labels != IGNORE)).any()):
            highest = int(labels[labels != IGNORE].max())
            raise DataError(f"{meta.dataset} {meta.id}: the label {highest} does not fit {len(self.classes)} classes")
        return labels.to(batch.images.device, torch.int64)


def _make_head(kind: HeadKind, in_channels: int, num_classes: int, rates: Sequence[int]) -> nn.Module:
    if kind == "aspp_gn_se":
        return AsppGroupNorm(in_channels=in_channels, num_classes=num_classes, rates=rates)
    return Aspp(in_channels=in_channels, num_classes=num_classes, active_branches=2 if kind == "aspp2" else 4, rates=rates)


def _run_head(head: nn.Module, features: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
    """Embeddings and logits; of padded batches picture by picture without its padding, which averages over a whole map would see."""
    if padding is None:
        embeddings, logits = head(features)
        return embeddings, logits
    height, width = features.shape[-2:]
    parts = [head(_shown(features, padding, index)[None]) for index in range(len(features))]
    filled = [[F.pad(part, (0, width - part.shape[-1], 0, height - part.shape[-2])) for part in parts_of] for parts_of in zip(*parts, strict=True)]
    return torch.cat(filled[0]), torch.cat(filled[1])


def _shown(maps: Tensor, padding: Tensor | None, index: int) -> Tensor:
    """(C, h_i, w_i) of `maps` (N, C, h, w): image `index` without its padding (N, h, w)."""
    if padding is None:
        return maps[index]
    height, width = int((~padding[index, :, 0]).sum()), int((~padding[index, 0]).sum())
    return maps[index, :, :height, :width]


def _picture_size(batch: Batch, index: int) -> tuple[int, int]:
    """(height, width) of an image of the batch without its padding."""
    if batch.padding is None:
        return _size_of(batch.images)
    return int((~batch.padding[index, :, 0]).sum()), int((~batch.padding[index, 0]).sum())


def _cross_entropy(logits: Tensor, padding: Tensor | None, truth: Sequence[Tensor]) -> Tensor:
    """The mean over all labelled pixels of the batch, at the size of `truth`; 0, with a gradient of 0, where none is labelled."""
    if padding is None:
        parts, labels = [resize_maps(logits, _size_of(truth[0]))], [torch.stack(list(truth))]
    else:
        parts = [resize_maps(_shown(logits, padding, index)[None], _size_of(own)) for index, own in enumerate(truth)]
        labels = [own[None] for own in truth]
    sums = [F.cross_entropy(part, own, ignore_index=IGNORE, reduction="sum") for part, own in zip(parts, labels, strict=True)]
    labelled = torch.stack([(own != IGNORE).sum() for own in labels]).sum()
    return torch.stack(sums).sum() / labelled.clamp(min=1)


def _size_of(maps: Tensor) -> tuple[int, int]:
    return int(maps.shape[-2]), int(maps.shape[-1])


def _at_original(logits: Tensor, size: tuple[int, int], meta: Meta) -> Tensor:
    """`logits` (K, h, w) of a picture of `size` at the original size.

    A picture that was only resized has its logits enlarged at once, corners aligned, as the originals do; after crops, flips and turns each original
    pixel takes the logits of its place, or of the nearest one where the network has not seen it.
    """
    geometry, original = meta.geometry, meta.original_size
    if geometry is None or original is None or _only_resized(geometry, size, original):
        return resize_maps(logits[None], original or size)[0]
    rows, columns = (torch.arange(length, device=logits.device, dtype=torch.float32) + 0.5 for length in original)
    centres = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # (H, W, 2), as (x, y)
    seen = geometry.points_from_original(centres) - 0.5
    last = torch.tensor([max(size[1] - 1, 1), max(size[0] - 1, 1)], device=logits.device)
    return F.grid_sample(logits[None], 2 * seen[None] / last - 1, padding_mode="border", align_corners=True)[0]


def _only_resized(geometry: Geometry, size: tuple[int, int], original: tuple[int, int]) -> bool:
    scale = torch.diag(torch.tensor([original[1] / size[1], original[0] / size[0], 1.0], dtype=torch.float64))
    return bool(torch.allclose(geometry.as_subclass(Tensor).cpu(), scale, rtol=1e-9, atol=1e-6))


def _repeated(backbone: nn.Module) -> dict[str, list[str]]:
    """Names of the parameters that lie in more than one module of a part of the backbone (stem or stage), by how many those are."""
    body = getattr(backbone, "body", None)
    if not isinstance(body, nn.Module) or not hasattr(body, "layer4"):
        return {}
    times = Counter(id(p) for part in body.children() for module in part.modules() for p in module.parameters())
    groups: dict[str, list[str]] = {}
    for name, parameter in backbone.named_parameters():
        if times[id(parameter)] > 1:
            groups.setdefault(f"repeated_{times[id(parameter)]}", []).append(f"backbone.{name}")
    return groups


def _statistics_of(backbone: nn.Module) -> PixelNorm:
    return PixelNorm(mean=getattr(backbone, "pixel_mean", IMAGENET_MEAN), std=getattr(backbone, "pixel_std", IMAGENET_STD))


def _channels_of(backbone: Any) -> list[int]:
    try:
        return [int(channels) for channels in backbone.channels]
    except AttributeError:
        raise ValueError(f"{type(backbone).__name__} can't be a backbone: it has no list `channels`") from None
