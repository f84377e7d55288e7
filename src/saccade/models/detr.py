"""DETR, end-to-end object detection with transformers (Carion et al. 2020, arXiv:2005.12872).

Read from top to bottom: a backbone gives a feature map; each of its places becomes a token with a sine code of where it is; an encoder lets places
look at each other, a decoder turns a fixed set of learned queries into objects; each query says one class (or "no object") and one box. Training
assigns queries to objects one to one. Boxes are relative to the picture without its padding, so padding changes nothing. Spec: detr_family.md 1, 2.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_convert

from saccade.layers.backbone import TimmBackbone
from saccade.layers.heads import MLP
from saccade.layers.pixels import PixelNorm
from saccade.layers.positions import LearnedPositions, SinePositions
from saccade.layers.set_criterion import SetCriterion
from saccade.layers.set_matching import SetTruth, set_truth
from saccade.layers.transformer import Transformer
from saccade.models.contract import Model
from saccade.ops.boxes import clip_to_canvas
from saccade.structures import Batch, Detections, Meta, Outputs, Prediction


class DETR(Model):
    """Detector of `classes` by `num_queries` queries.

    `backbone`: of its maps the last one feeds the transformer. `positions`: sine codes unless given. `criterion`: matching and losses, those of the
    paper unless given. `category_ids`: the place of each class's logit in the class head, for released weights, whose heads have one logit a COCO
    category id (so 91 or 250, and "no object" after them); None puts the classes one after another. `auxiliary`: every decoder layer is trained,
    not the last alone; evaluation computes the last alone in any case. `pixel_norm`: what the backbone's weights expect unless given.
    `reference_quirks`: boxes are not clipped to the picture, as in the original.
    """

    logit_of_label: Tensor

    def __init__(
        self, *, classes: Sequence[str], backbone: TimmBackbone, transformer: Transformer | None = None, num_queries: int = 100,
        positions: SinePositions | LearnedPositions | None = None, criterion: SetCriterion | None = None, category_ids: Sequence[int] | None = None,
        auxiliary: bool = True, pixel_norm: PixelNorm | None = None, reference_quirks: bool = False,
    ) -> None:
        super().__init__(classes, pixel_norm or PixelNorm(mean=backbone.pixel_mean, std=backbone.pixel_std))
        self.backbone = backbone
        self.transformer = transformer or Transformer()
        channels = self.transformer.channels
        self.positions = positions or SinePositions(channels=channels)
        self.criterion = criterion or SetCriterion()
        self.auxiliary, self.reference_quirks = auxiliary, reference_quirks
        self.register_buffer("logit_of_label", logit_places(self.classes, category_ids), persistent=False)
        self.input_proj = nn.Conv2d(backbone.channels[-1], channels, 1)
        self.query_embed = nn.Embedding(num_queries, channels)
        self.class_embed = nn.Linear(channels, int(self.logit_of_label.max()) + 2)
        self.bbox_embed = MLP(sizes=[channels, channels, channels, 4])

    def forward(self, batch: Batch) -> Outputs:
        """`logits` (L, N, Q, R + 1), "no object" last, and `boxes` (L, N, Q, 4) as relative (cx, cy, w, h), the last decoder layer last.

        Also `queries` (L, N, Q, C); `memory` (N, C, h, w); `features`, the backbone's maps; `padding` (N, h, w) bool; `sizes` (N, 2), the height and
        width of each picture without padding. L is 1 unless the model trains.
        """
        return self.forward_pixels(self.pixel_norm(batch.images, batch.padding), batch.padding, every_layer=self.training and self.auxiliary)

    def forward_pixels(self, images: Tensor, padding: Tensor | None = None, *, every_layer: bool = False) -> dict[str, Any]:
        """The same for `images` (N, 3, H, W) that are normalised and filled up already; `padding` (N, H, W) bool."""
        features = self.backbone(images.contiguous(memory_format=torch.channels_last))
        source = self.input_proj(features[-1])  # (N, C, h, w)
        at_features = padding_at(padding, source)  # (N, h, w)
        decoded = self.transformer(
            source.flatten(2).transpose(1, 2), self.positions(at_features).flatten(2).transpose(1, 2).to(source.dtype), self.query_embed.weight,
            padding=None if padding is None else at_features.flatten(1), every_layer=every_layer,
        )
        return {
            "logits": self.class_embed(decoded.queries), "boxes": self.bbox_embed(decoded.queries).float().sigmoid(), "queries": decoded.queries,
            "memory": decoded.memory.transpose(1, 2).unflatten(2, source.shape[-2:]), "features": features, "padding": at_features,
            "sizes": unpadded_sizes(images, padding),
        }

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`loss_ce`, `loss_bbox`, `loss_giou`, and the same with `_0`, `_1`, ... of the earlier decoder layers; weighted."""
        return self.criterion.losses(outputs, self.truth(outputs, batch), sample_names(batch))

    def truth(self, outputs: Outputs, batch: Batch) -> SetTruth:
        """The batch's objects as the criterion takes them."""
        return set_truth(batch.targets, outputs["sizes"], self.logit_of_label, outputs["logits"].device)

    @torch.no_grad()
    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """`Detections` of every picture in its original pixels, one a query, best first."""
        scores, labels, boxes = self.detect(outputs["logits"][-1], outputs["boxes"][-1])
        boxes = boxes * outputs["sizes"].flip(1).repeat(1, 2)[:, None]
        order = scores.argsort(-1, descending=True, stable=True)
        return [
            self._to_original(boxes[i, order[i]], scores[i, order[i]], labels[i, order[i]], meta) for i, meta in enumerate(batch.metas)
        ]

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


def padding_at(padding: Tensor | None, features: Tensor) -> Tensor:
    """(N, h, w) bool: the mask at the size of `features` (N, C, h, w), by nearest neighbour; nothing is padded where it is None."""
    count, height, width = len(features), *features.shape[-2:]
    if padding is None:
        return torch.zeros(count, height, width, dtype=torch.bool, device=features.device)
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
