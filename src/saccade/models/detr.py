"""DETR, end-to-end object detection with transformers (Carion et al. 2020, arXiv:2005.12872), with boxes, instance masks or panoptic maps.

Read from top to bottom: a backbone gives a feature map; each of its places becomes a token with a sine code of where it is; an encoder lets places
look at each other, a decoder turns a fixed set of learned queries into objects; each query says one class (or "no object") and one box. Training
assigns queries to objects one to one. Boxes are relative to the picture without its padding, so padding changes nothing. Spec: detr_family.md 1, 2.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_convert

from saccade.layers.backbone import TimmBackbone
from saccade.layers.heads import MLP
from saccade.layers.mask_head import MaskAttention, MaskHead
from saccade.layers.padding import PaddingGuard, pyramid
from saccade.layers.panoptic_merging import masks_from_queries, panoptic_from_queries
from saccade.layers.pixels import PixelNorm
from saccade.layers.positions import LearnedPositions, SinePositions
from saccade.layers.set_criterion import SetCriterion
from saccade.layers.set_matching import SetTruth, set_truth
from saccade.layers.transformer import Transformer
from saccade.models.contract import Model
from saccade.ops.boxes import clip_to_canvas
from saccade.structures import Batch, Detections, Meta, Outputs, Panoptic, Prediction
from saccade.structures.ranges import Probability


class DETR(Model):
    """Detector of `classes` by `num_queries` queries.

    `backbone`: of its maps the last one feeds the transformer. `positions`: sine codes unless given. `criterion`: matching and losses, those of the
    paper unless given. `category_ids`: the place of each class's logit in the class head, for released weights, whose heads have one logit a COCO
    category id (so 91 or 250, and "no object" after them); None puts the classes one after another. `auxiliary`: every decoder layer is trained,
    not the last alone; evaluation computes the last alone in any case.

    `masks`: "instances" adds a mask to each detection, "panoptic" merges them into one map (`things`: which classes are countable, from the data set
    unless given; `panoptic_threshold`: the score that a query needs); both want a backbone that returns four levels. `freeze_detector` trains the
    mask head alone, the second stage of the paper. `pixel_norm`: what the backbone's weights expect unless given. `reference_quirks`: as in the
    original, convolutions see padding, boxes are not clipped to the picture, dropout stays active in a frozen detector, and panoptic maps are merged
    its way.
    Raises ValueError for settings that contradict each other.
    """

    logit_of_label: Tensor

    def __init__(
        self, *, classes: Sequence[str], backbone: TimmBackbone, transformer: Transformer | None = None, num_queries: int = 100,
        positions: SinePositions | LearnedPositions | None = None, criterion: SetCriterion | None = None, category_ids: Sequence[int] | None = None,
        auxiliary: bool = True, masks: Literal["none", "instances", "panoptic"] = "none", things: Sequence[bool] | None = None,
        panoptic_threshold: Probability = 0.85, freeze_detector: bool = False, pixel_norm: PixelNorm | None = None, reference_quirks: bool = False,
    ) -> None:
        super().__init__(classes, pixel_norm or PixelNorm(mean=backbone.pixel_mean, std=backbone.pixel_std))
        self.backbone = backbone
        self.transformer = transformer or Transformer()
        channels = self.transformer.channels
        self.positions = positions or SinePositions(channels=channels)
        self.criterion = criterion or SetCriterion()
        self.auxiliary, self.reference_quirks = auxiliary, reference_quirks
        self.register_buffer("logit_of_label", logit_places(self.classes, category_ids), persistent=False)
        self._guard = PaddingGuard(backbone)
        self.input_proj = nn.Conv2d(backbone.channels[-1], channels, 1)
        self.query_embed = nn.Embedding(num_queries, channels)
        self.class_embed = nn.Linear(channels, int(self.logit_of_label.max()) + 2)
        self.bbox_embed = MLP(sizes=[channels, channels, channels, 4])
        self.masks, self.panoptic_threshold, self.freeze_detector = masks, panoptic_threshold, freeze_detector
        self.things = _things(self.classes, things, masks)
        if masks != "none":
            self._add_mask_head()
        elif freeze_detector:
            raise ValueError("freeze_detector trains the mask head alone, but masks is none")

    def _add_mask_head(self) -> None:
        if len(self.backbone.channels) != 4:
            raise ValueError(f"masks need a backbone of four levels (for ResNets out_indices: [1, 2, 3, 4]); this one gives {self.backbone.channels}")
        if self.freeze_detector:
            self.requires_grad_(False)
        self.bbox_attention = MaskAttention(self.transformer.channels, self.transformer.heads)
        self.mask_head = MaskHead(self.transformer.channels, self.transformer.heads, self.backbone.channels[-2::-1])

    def train(self, mode: bool = True) -> Self:
        """Train mode for what is trained: a frozen detector stays in eval mode."""
        super().train(mode)
        if mode and self.freeze_detector and not self.reference_quirks:
            for part in (self.backbone, self.transformer):
                part.eval()
        return self

    def forward(self, batch: Batch) -> Outputs:
        """`logits` (L, N, Q, R + 1), "no object" last, and `boxes` (L, N, Q, 4) as relative (cx, cy, w, h), the last decoder layer last.

        Also `queries` (L, N, Q, C); `memory` (N, C, h, w); `features`, the backbone's maps; `padding` (N, h, w) bool; `sizes` (N, 2), the height and
        width of each picture without padding; with masks `mask_attention` (N, Q, heads, h, w) and `masks` (N, Q, h4, w4), logits of the last layer.
        L is 1 unless the model trains.
        """
        every_layer = self.training and self.auxiliary and not self.freeze_detector
        return self.forward_pixels(self.pixel_norm(batch.images, batch.padding), batch.padding, every_layer=every_layer)

    def forward_pixels(self, images: Tensor, padding: Tensor | None = None, *, every_layer: bool = False) -> dict[str, Any]:
        """The same for `images` (N, 3, H, W) that are normalised and filled up already; `padding` (N, H, W) bool."""
        with self._guard.hide(None if self.reference_quirks else padding):
            features = self.backbone(images.contiguous(memory_format=torch.channels_last))
        source = self.input_proj(features[-1])  # (N, C, h, w)
        at_features = padding_at(padding, source, self.reference_quirks)  # (N, h, w)
        decoded = self.transformer(
            source.flatten(2).transpose(1, 2), self.positions(at_features).flatten(2).transpose(1, 2).to(source.dtype), self.query_embed.weight,
            padding=None if padding is None else at_features.flatten(1), every_layer=every_layer,
        )
        memory = decoded.memory.transpose(1, 2).unflatten(2, source.shape[-2:])
        outputs = {
            "logits": self.class_embed(decoded.queries), "boxes": self.bbox_embed(decoded.queries).float().sigmoid(), "queries": decoded.queries,
            "memory": memory, "features": features, "padding": at_features, "sizes": unpadded_sizes(images, padding),
        }
        if self.masks != "none":
            attention = self.bbox_attention(decoded.queries[-1], memory, None if padding is None else at_features)
            hidden = None if self.reference_quirks else padding
            outputs |= {"mask_attention": attention, "masks": self.mask_head(source, attention, features[-2::-1], hidden)}
        return outputs

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`loss_ce`, `loss_bbox`, `loss_giou`, with masks `loss_mask`, `loss_dice`; `loss_ce_0` and so on of earlier decoder layers; weighted."""
        return self.criterion.losses(outputs, self.truth(outputs, batch), sample_names(batch))

    def figures(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Of the last layer: `class_error`, percent of matched queries with a wrong class, and `cardinality_error`, by how many objects it is off."""
        last = {"logits": outputs["logits"][-1:], "boxes": outputs["boxes"][-1:]}
        truth = set_truth(batch.targets, outputs["sizes"], self.logit_of_label, outputs["logits"].device)
        return self.criterion.figures(last, truth, self.criterion.match(last, truth, sample_names(batch)))

    def truth(self, outputs: Outputs, batch: Batch) -> SetTruth:
        """The batch's objects as the criterion takes them."""
        canvas = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
        return set_truth(batch.targets, outputs["sizes"], self.logit_of_label, outputs["logits"].device, self.masks != "none", canvas)

    @torch.no_grad()
    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """`Detections` of every picture in its original pixels, one a query, best first; or its `Panoptic` map."""
        if self.masks == "panoptic":
            return list(self._panoptic(outputs, batch))
        scores, labels, boxes = self.detect(outputs["logits"][-1], outputs["boxes"][-1])
        boxes = boxes * outputs["sizes"].flip(1).repeat(1, 2)[:, None]
        order = scores.argsort(dim=-1, descending=True, stable=True)
        found = [self._to_original(boxes[i, o], scores[i, o], labels[i, o], meta) for i, (o, meta) in enumerate(zip(order, batch.metas, strict=True))]
        if self.masks == "instances":
            masks = masks_from_queries([m[o] for m, o in zip(outputs["masks"], order, strict=True)], **self._places(outputs, batch))
            found = [replace(own, masks=mask) for own, mask in zip(found, masks, strict=True)]
        return list(found)

    def _panoptic(self, outputs: Outputs, batch: Batch) -> list[Panoptic]:
        return panoptic_from_queries(
            outputs["logits"][-1], outputs["masks"], things=self.things, logit_of_label=self.logit_of_label, threshold=self.panoptic_threshold,
            **self._places(outputs, batch),
        )

    def _places(self, outputs: Outputs, batch: Batch) -> dict[str, Any]:
        """Where each picture lies on the batch's canvas, and how large it was."""
        sizes = [(int(height), int(width)) for height, width in outputs["sizes"].tolist()]
        originals = [size if meta.original_size is None else meta.original_size for size, meta in zip(sizes, batch.metas, strict=True)]
        canvas = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
        return {"sizes": sizes, "original_sizes": originals, "canvas": canvas, "reference_quirks": self.reference_quirks}

    def detect(self, logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`logits` (N, Q, R + 1) and `boxes` (N, Q, 4) to scores (N, Q), labels (N, Q) and relative corners (N, Q, 4), query by query."""
        scores, labels = logits.float().softmax(-1)[..., self.logit_of_label].max(-1)
        return scores, labels, box_convert(boxes, "cxcywh", "xyxy")

    def _to_original(self, boxes: Tensor, scores: Tensor, labels: Tensor, meta: Meta) -> Detections:
        if meta.geometry is not None:
            boxes = meta.geometry.boxes_to_original(boxes)
        if not self.reference_quirks and meta.original_size is not None:
            boxes = clip_to_canvas(boxes, meta.original_size)
        return Detections(boxes, scores, labels)

    def data_arguments(self) -> dict[str, Any]:
        """Which classes are things, where that matters."""
        return {"things": list(self.things)} if self.masks == "panoptic" else {}

    def head_keys(self) -> tuple[str, ...]:
        """The class head."""
        return ("class_embed",)


def logit_places(classes: Sequence[str], category_ids: Sequence[int] | None) -> Tensor:
    """(K,) int64: the logit of each class. Raises ValueError where `category_ids` are not one distinct number a class."""
    if category_ids is None:
        return torch.arange(len(classes))
    if len(category_ids) != len(classes):
        raise ValueError(
            f"category_ids has {len(category_ids)} numbers for {len(classes)} classes ({', '.join(list(classes)[:5])}, ...); it is for released "
            "weights and the classes they know. With other classes leave it out (model.category_ids=null) and re-initialise the class head."
        )
    if len(set(category_ids)) != len(category_ids) or min(category_ids) < 0:
        raise ValueError(f"category_ids must be distinct numbers from 0; got {list(category_ids)}")
    return torch.tensor(list(category_ids))


def _things(classes: Sequence[str], things: Sequence[bool] | None, masks: str) -> tuple[bool, ...]:
    if things is None:
        return (True,) * len(classes)
    if len(things) != len(classes) and masks == "panoptic":
        raise ValueError(f"things has {len(things)} entries for {len(classes)} classes; it says of each whether it is countable")
    return tuple(things)


def padding_at(padding: Tensor | None, features: Tensor, nearest: bool = False) -> Tensor:
    """(N, h, w) bool: the mask at the size of `features` (N, C, h, w); nothing is padded where it is None.

    A place is padded where its first pixel is. `nearest`: by nearest neighbour, as in the original, which differs for sizes that the stride does not
    divide.
    """
    count, height, width = len(features), int(features.shape[-2]), int(features.shape[-1])
    if padding is None:
        return torch.zeros(count, height, width, dtype=torch.bool, device=features.device)
    known = {} if nearest else dict(pyramid(padding))
    if (height, width) in known:
        return known[height, width]
    return F.interpolate(padding[:, None].float(), size=(height, width))[:, 0].bool()


def unpadded_sizes(images: Tensor, padding: Tensor | None) -> Tensor:
    """(N, 2) float32: height and width of each of `images` (N, 3, H, W) without what `padding` (N, H, W) says was added on the right and below."""
    if padding is None:
        return torch.tensor(images.shape[-2:], dtype=torch.float32, device=images.device).expand(len(images), 2)
    inside = ~padding
    return torch.stack([inside[:, :, 0].sum(1), inside[:, 0].sum(1)], 1).float()


def sample_names(batch: Batch) -> list[str]:
    """What each sample is called in messages."""
    return [f"{meta.dataset} {meta.id}".strip() for meta in batch.metas]
