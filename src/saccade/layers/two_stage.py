"""A whole two-stage detector on a feature pyramid, Faster R-CNN (Ren et al. 2015; Lin et al. 2017), to be built upon by models.

Backbone and pyramid give features; the region proposal network says where objects may be; the box head names and moves these regions. One
implementation for the detectors of mmdetection and torchvision: `TwoStageSettings` has every switch in which they differ (image_models.md D7).
The background is the last class. Boxes are pixels of the network's input. Left out: masks, cascades, test-time augmentation.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.layers.anchors import cell_anchors, cells_inside, grid_anchors
from saccade.layers.assigning import IGNORED, Assignment, MaxIoUAssigner
from saccade.layers.box_coder import decode_deltas, encode_deltas
from saccade.layers.fpn import FPN
from saccade.layers.padding import PaddingGuard
from saccade.layers.roi import BoxHead, LevelRule, RoIAlignLevels, region_images
from saccade.layers.rpn import EqualScores, RPNHead, RPNTargets, box_distance, clip_to_sizes, rpn_losses, select_proposals
from saccade.layers.sampling import Choice, Sampler, choose_randomly
from saccade.ops.suppression import best_of_regions
from saccade.structures import Annotations

SMOOTH_L1 = 1 / 9  # beta of the smooth L1 loss where it is used


@dataclass(frozen=True)
class TwoStageSettings:
    """The numbers and switches of a two-stage detector; the defaults are mmdetection's Faster R-CNN R50-FPN.

    Structure: `channels` and `levels` of the pyramid, whose finest `levels - 1` the box head reads; `hidden` widths of the box head;
    `class_agnostic` boxes; `roi_size` cells a side, `roi_points` a cell (0: adaptive), `roi_aligned`, `roi_finest_scale`, `level_rule`.
    Anchors: sides `anchor_scale` times the stride, `anchor_ratios` height / width, `round_anchors`; `anchor_strides` "fixed" or, from the "grid",
    the input's size over the number of cells. Decoding: `clip_boxes` to the picture, `limit_both` growth and shrinkage.
    Proposals, in training and testing: best of each level, overlap allowed, best of all, smallest side, which of equal scores comes first.
    Detections: score, overlap, number, smallest side. First stage (`rpn_...`) and second (`roi_...`): overlaps for positive and negative,
    low-quality matches, number of samples and share of positives, beta of the box loss (0: L1). `size_divisor`: what a picture alone is filled up to
    a multiple of; anchors beyond that are not trained with `valid_anchors`. `reference_quirks`: as in the originals, pictures of a batch see what
    they are filled up to, and boxes with negative coordinates may suppress some of another level or class.
    """

    channels: int = 256
    levels: int = 5
    hidden: tuple[int, ...] = (1024, 1024)
    class_agnostic: bool = False
    roi_size: int = 7
    roi_points: int = 0
    roi_aligned: bool = True
    roi_finest_scale: float = 56.0
    level_rule: LevelRule = "mmdet"
    anchor_scale: float = 8.0
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    round_anchors: bool = False
    anchor_strides: Literal["fixed", "grid"] = "fixed"
    valid_anchors: bool = True
    size_divisor: int = 32
    clip_boxes: bool = True
    limit_both: bool = True
    roi_stds: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    train_per_level: int = 2000
    train_proposals: int = 1000
    test_per_level: int = 1000
    test_proposals: int = 1000
    proposal_nms: float = 0.7
    proposal_min_size: float = 0.0
    equal_scores: EqualScores = "anchor"
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100
    detection_min_size: float | None = None
    rpn_positive: float = 0.7
    rpn_negative: float = 0.3
    rpn_minimum: float = 0.3
    rpn_ties: Literal["object", "own"] = "object"
    rpn_samples: int = 256
    rpn_positive_fraction: float = 0.5
    rpn_at_least_one: bool = True
    rpn_box_beta: float = 0.0
    roi_positive: float = 0.5
    roi_negative: float = 0.5
    roi_samples: int = 512
    roi_positive_fraction: float = 0.25
    roi_box_beta: float = 0.0
    reference_quirks: bool = False


MMDET = TwoStageSettings()
TORCHVISION = TwoStageSettings(
    roi_points=2, roi_aligned=False, level_rule="torchvision", round_anchors=True, anchor_strides="grid", valid_anchors=False, limit_both=False,
    train_proposals=2000, proposal_min_size=1e-3, equal_scores="logit", detection_min_size=1e-2, rpn_minimum=0.0, rpn_ties="own",
    rpn_at_least_one=False, rpn_box_beta=SMOOTH_L1, roi_box_beta=SMOOTH_L1,
)
# caffe has mmdetection's rules; what differs are its backbone (stride in the 1x1 convolution) and its pixels (BGR, without a deviation).
PRESETS: Mapping[str, TwoStageSettings] = {"mmdet": MMDET, "caffe": MMDET, "torchvision": TORCHVISION}


class Truth(NamedTuple):
    """The objects of a picture that a detector learns: `boxes` (g, 4), `labels` (g,), `rows` (g,) which of the picture's annotations they are."""

    boxes: Tensor
    labels: Tensor
    rows: Tensor


class Regions(NamedTuple):
    """Sampled regions of a picture: `boxes` (n, 4), positives first; `labels` (n,), logits, K for background; `deltas` (p, 4) of the p positives."""

    boxes: Tensor
    labels: Tensor
    deltas: Tensor


class TwoStage(nn.Module):
    """The detector of `num_classes` over a `backbone` (a module with `channels` and `strides`, finest first).

    In eval mode a picture gives the same whatever else is in its batch: what lies beyond it, filled up to a multiple of `size_divisor` as it is
    alone, is hidden. In training it is seen, as by the originals, because hiding costs memory.
    `logit_of_label`: the class logit of each label, where the class head has more (released weights with a logit for every COCO id); as many as
    labels and in their order unless given. `choose`: how some of too many candidates are drawn in training.
    """

    logit_of_label: Tensor

    def __init__(
        self, *, num_classes: int, backbone: Any, settings: TwoStageSettings = MMDET, logit_of_label: Sequence[int] | None = None,
        choose: Choice = choose_randomly,
    ) -> None:
        super().__init__()
        places = list(range(num_classes) if logit_of_label is None else logit_of_label)
        if len(places) != num_classes or len(set(places)) != num_classes or min(places, default=-1) < 0:
            raise ValueError(f"{num_classes} classes need as many distinct logits, from 0; got {places}")
        self.register_buffer("logit_of_label", torch.tensor(places), persistent=False)
        self.num_logits, self.settings = max(places) + 1, settings
        self.backbone = backbone
        self.neck = FPN(in_channels=backbone.channels, channels=settings.channels, levels=settings.levels)
        self.strides = [*backbone.strides]
        while len(self.strides) < settings.levels:
            self.strides.append(2 * self.strides[-1])
        self.rpn_head = RPNHead(channels=settings.channels, anchors=len(settings.anchor_ratios))
        self._guards = [PaddingGuard(part) for part in (backbone, self.neck, self.rpn_head)]
        self.roi_align = RoIAlignLevels(
            size=settings.roi_size, strides=backbone.strides, samples=settings.roi_points, aligned=settings.roi_aligned,
            finest_scale=settings.roi_finest_scale, level_rule=settings.level_rule,
        )
        self.box_head = BoxHead(
            num_classes=self.num_logits, in_channels=settings.channels, roi_size=settings.roi_size, hidden=settings.hidden,
            class_agnostic=settings.class_agnostic,
        )
        self.rpn_assigner = MaxIoUAssigner(
            positive=settings.rpn_positive, negative=settings.rpn_negative, minimum=settings.rpn_minimum, ties=settings.rpn_ties
        )
        self.roi_assigner = MaxIoUAssigner(positive=settings.roi_positive, negative=settings.roi_negative, low_quality=False)
        self.rpn_sampler = Sampler(settings.rpn_samples, settings.rpn_positive_fraction, choose=choose)
        self.roi_sampler = Sampler(settings.roi_samples, settings.roi_positive_fraction, choose=choose)

    def forward(self, images: Tensor, padding: Tensor | None = None) -> dict[str, Any]:
        """Normalised `images` (N, 3, H, W), `padding` (N, H, W) bool, to `features`, `rpn_logits`, `rpn_deltas`, `sizes`, `canvas`, `proposals`.

        Lists a level, finest first: features (N, C, h, w), rpn_logits (N, A, h, w), rpn_deltas (N, 4A, h, w). `sizes` (N, 2): (height, width) of each
        picture without padding; `canvas` (H, W). `proposals`: (p_i, 4) an image, best first, detached, as many as the mode asks for.
        """
        outputs = self.maps(images, padding)
        return outputs | {"proposals": self.propose(outputs, self.training)}

    def maps(self, images: Tensor, padding: Tensor | None = None) -> dict[str, Any]:
        """What `forward` gives, but for the proposals."""
        canvas = (int(images.shape[-2]), int(images.shape[-1]))
        outputs: dict[str, Any] = {"sizes": picture_sizes(images, padding), "canvas": canvas}
        own = self._filled(outputs)
        beyond = None if padding is None or self.training or self.settings.reference_quirks else places_beyond(own, canvas)
        with ExitStack() as hidden:
            for guard in self._guards:
                hidden.enter_context(guard.hide(beyond))
            features = self.extract(images)
            logits, deltas = self.rpn_head(features)
        if beyond is not None:
            features = [extend_edges(f, (own / stride).ceil()) for f, stride in zip(features, self.strides, strict=True)]
        return outputs | {"features": features, "rpn_logits": logits, "rpn_deltas": deltas}

    def _filled(self, outputs: Mapping[str, Any]) -> Tensor:
        """(N, 2) height and width of each picture filled up to a multiple of `size_divisor`, within the canvas."""
        sizes, divisor = outputs["sizes"], self.settings.size_divisor
        return torch.minimum((sizes / divisor).ceil() * divisor, sizes.new_tensor(outputs["canvas"]))

    def extract(self, images: Tensor) -> list[Tensor]:
        """The pyramid of normalised `images` (N, 3, H, W): (N, C, h, w) a level, finest first."""
        features: list[Tensor] = self.neck(self.backbone(images.contiguous(memory_format=torch.channels_last)))
        return features

    def anchors(self, outputs: Mapping[str, Any]) -> list[Tensor]:
        """(h * w * A, 4) anchors a level."""
        settings, found = self.settings, []
        for logits, stride in zip(outputs["rpn_logits"], self.strides, strict=True):
            grid = (int(logits.shape[-2]), int(logits.shape[-1]))
            cell = cell_anchors(settings.anchor_scale * stride, settings.anchor_ratios, rounded=settings.round_anchors).to(logits.device)
            steps = (stride, stride) if settings.anchor_strides == "fixed" else tuple(n // g for n, g in zip(outputs["canvas"], grid, strict=True))
            found.append(grid_anchors(cell, grid, steps))
        return found

    def propose(self, outputs: Mapping[str, Any], training: bool) -> list[Tensor]:
        """(p, 4) proposals of every image, best first, detached; as many as training or testing takes."""
        return [boxes for boxes, _ in self.scored_proposals(outputs, training)]

    def scored_proposals(self, outputs: Mapping[str, Any], training: bool) -> list[tuple[Tensor, Tensor]]:
        """The same with their scores (p,) in 0..1."""
        settings = self.settings
        return select_proposals(
            outputs["rpn_logits"], outputs["rpn_deltas"], self.anchors(outputs), outputs["sizes"],
            per_level=settings.train_per_level if training else settings.test_per_level,
            total=settings.train_proposals if training else settings.test_proposals,
            iou_threshold=settings.proposal_nms, min_size=settings.proposal_min_size, clip=settings.clip_boxes, limit_both=settings.limit_both,
            inside=None if training or settings.reference_quirks else self._anchors_inside(outputs),
            equal_scores=settings.equal_scores, reference_quirks=settings.reference_quirks,
        )

    def box_outputs(self, features: Sequence[Tensor], rois: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (R, K + 1), background last, and deltas (R, 4K), of `rois`, one (n_i, 4) an image, image after image."""
        logits, deltas = self.box_head(self.roi_align(features, rois))
        return logits, deltas

    @torch.no_grad()
    def detect(self, outputs: Mapping[str, Any]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(boxes (n, 4) in pixels of the network's input, scores (n,), labels (n,)) of every image, best first, from its proposals."""
        return self.decode(*self.box_outputs(outputs["features"], outputs["proposals"]), outputs["proposals"], outputs["sizes"])

    @torch.no_grad()
    def decode(self, logits: Tensor, deltas: Tensor, rois: Sequence[Tensor], sizes: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The detections that `logits` (R, K + 1) and `deltas` (R, 4K) say of `rois` in pictures of `sizes` (N, 2)."""
        settings = self.settings
        scores = logits.float().softmax(-1)[:, self.logit_of_label]
        boxes = self.class_boxes(deltas, rois, sizes)[:, self.logit_of_label]
        best = best_of_regions(
            boxes, scores, region_images(rois), len(rois), score_threshold=settings.score_threshold, iou_threshold=settings.nms_threshold,
            most=settings.max_detections, min_size=settings.detection_min_size, reference_quirks=settings.reference_quirks,
        )
        return [(boxes[region, label], scores[region, label], label) for region, label in best]

    def class_boxes(self, deltas: Tensor, rois: Sequence[Tensor], sizes: Tensor) -> Tensor:
        """(R, K, 4) the box of each class (logit) that `deltas` (R, 4K) make of each region of `rois`."""
        joined, settings = torch.cat(list(rois)), self.settings
        steps = deltas.float().unflatten(1, (-1, 4))
        boxes = decode_deltas(steps, joined[:, None].float(), settings.roi_stds, limit_both=settings.limit_both)
        if settings.clip_boxes:
            boxes = clip_to_sizes(boxes, sizes[region_images(rois)])
        return boxes.expand(-1, self.num_logits, -1)

    def losses(self, outputs: Mapping[str, Any], truths: Sequence[Truth]) -> dict[str, Tensor]:
        """`loss_rpn_cls`, `loss_rpn_bbox` (sums over the levels), `loss_cls` and `loss_bbox`, for outputs of training mode."""
        cls, box = self.first_stage_losses(outputs, truths)
        regions = [self.sample_regions(own, truth) for own, truth in zip(outputs["proposals"], truths, strict=True)]
        return {"loss_rpn_cls": cls.sum(), "loss_rpn_bbox": box.sum()} | self.second_stage_losses(outputs["features"], regions)

    def first_stage_losses(self, outputs: Mapping[str, Any], truths: Sequence[Truth]) -> tuple[Tensor, Tensor]:
        """(cross-entropy, box loss), each (levels,)."""
        anchors = self.anchors(outputs)
        settings = self.settings
        return rpn_losses(
            outputs["rpn_logits"], outputs["rpn_deltas"], anchors, self.anchor_targets(outputs, truths, anchors),
            box_beta=settings.rpn_box_beta, at_least_one=settings.rpn_at_least_one,
        )

    def anchor_targets(self, outputs: Mapping[str, Any], truths: Sequence[Truth], anchors: Sequence[Tensor]) -> RPNTargets:
        """What a sample of the `anchors` learns from `truths`."""
        joined = torch.cat(list(anchors))
        inside: Sequence[Tensor | None] = [None] * len(truths)
        if self.settings.valid_anchors:
            inside = list(torch.cat(self._anchors_inside(outputs), 1))
        assigned = [assign_inside(self.rpn_assigner, joined, t.boxes, ok) for t, ok in zip(truths, inside, strict=True)]
        matched = torch.stack([a.matched for a in assigned])
        positive, negative = self.rpn_sampler.masks(Assignment(matched, torch.stack([a.overlaps for a in assigned])))
        boxes = torch.stack([t.boxes[m.clamp(min=0)] if len(t.boxes) else joined for t, m in zip(truths, matched, strict=True)])
        return RPNTargets(positive, negative, boxes)

    def _anchors_inside(self, outputs: Mapping[str, Any]) -> list[Tensor]:
        """(N, h * w * A) bool a level: the anchors in cells that start within the picture as it is filled up alone."""
        own, anchors = self._filled(outputs), len(self.settings.anchor_ratios)
        grids = [(int(logits.shape[-2]), int(logits.shape[-1])) for logits in outputs["rpn_logits"]]
        return [cells_inside(grid, stride, own).repeat_interleave(anchors, 1) for grid, stride in zip(grids, self.strides, strict=True)]

    @torch.no_grad()
    def sample_regions(self, proposals: Tensor, truth: Truth) -> Regions:
        """The regions of one picture that its second stage learns from, drawn from its objects and `proposals` (p, 4)."""
        boxes = torch.cat([truth.boxes.to(proposals.dtype), proposals])
        matched = self.roi_assigner(boxes, truth.boxes).matched
        sampled = self.roi_sampler(Assignment(matched, boxes.new_zeros(len(boxes))))
        own = matched[sampled.positive]
        background = torch.full_like(sampled.negative, self.num_logits)
        deltas = encode_deltas(truth.boxes[own], boxes[sampled.positive], self.settings.roi_stds)
        return Regions(boxes[torch.cat(sampled)], torch.cat([self.logit_of_label[truth.labels[own]], background]), deltas)

    def second_stage_losses(self, features: Sequence[Tensor], regions: Sequence[Regions]) -> dict[str, Tensor]:
        """`loss_cls` and `loss_bbox` over the sampled `regions`, one an image."""
        logits, deltas = self.box_outputs(features, [r.boxes for r in regions])
        labels = torch.cat([r.labels for r in regions])
        number = max(len(labels), 1)
        positive = (labels < self.num_logits).nonzero().squeeze(1)
        steps = deltas.float().unflatten(1, (-1, 4))[positive]
        steps = steps[:, 0] if self.settings.class_agnostic else steps[torch.arange(len(positive), device=steps.device), labels[positive]]
        distance = box_distance(steps, torch.cat([r.deltas for r in regions]), self.settings.roi_box_beta)
        return {"loss_cls": F.cross_entropy(logits.float(), labels, reduction="sum") / number, "loss_bbox": distance.sum() / number}


def assign_inside(assigner: MaxIoUAssigner, anchors: Tensor, objects: Tensor, inside: Tensor | None) -> Assignment:
    """The assignment of `anchors` (n, 4) of which only those `inside` (n,) bool take part; the others are ignored."""
    if inside is None or bool(inside.all()):
        return assigner(anchors, objects)
    found = assigner(anchors[inside], objects)
    matched = torch.full_like(inside, IGNORED, dtype=torch.int64)
    overlaps = anchors.new_zeros(len(anchors))
    matched[inside], overlaps[inside] = found
    return Assignment(matched, overlaps)


def places_beyond(sizes: Tensor, canvas: tuple[int, int]) -> Tensor | None:
    """(N, H, W) bool: pixels of a `canvas` (H, W) right of or below pictures of `sizes` (N, 2); None where there are none."""
    if bool((sizes == sizes.new_tensor(canvas)).all()):
        return None
    rows, columns = (torch.arange(length, device=sizes.device) >= sizes[:, axis, None] for axis, length in enumerate(canvas))
    return rows[:, :, None] | columns[:, None]


def extend_edges(features: Tensor, cells: Tensor) -> Tensor:
    """`features` (N, C, h, w) with what lies beyond the first `cells` (N, 2) (rows, columns) of each replaced by the last of these."""
    height, width = features.shape[-2:]
    rows = torch.minimum(torch.arange(height, device=features.device), cells[:, :1] - 1).long()  # (N, h)
    columns = torch.minimum(torch.arange(width, device=features.device), cells[:, 1:] - 1).long()
    image = torch.arange(len(features), device=features.device)[:, None, None]
    return features[image, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def picture_sizes(images: Tensor, padding: Tensor | None) -> Tensor:
    """(N, 2) float32: height and width of each of `images` (N, 3, H, W) without what `padding` (N, H, W) says was added on the right and below."""
    if padding is None:
        return torch.tensor(images.shape[-2:], dtype=torch.float32, device=images.device).expand(len(images), 2)
    inside = ~padding
    return torch.stack([inside[:, :, 0].sum(1), inside[:, 0].sum(1)], 1).float()


def truths_of(targets: Sequence[Annotations], sizes: Tensor) -> list[Truth]:
    """The objects of `targets` that detectors learn: no crowds, none without an area, none wholly outside its picture of `sizes` (N, 2)."""
    return [_truth(target, size) for target, size in zip(targets, sizes, strict=True)]


def _truth(target: Annotations, size: Tensor) -> Truth:
    device = size.device
    if target.boxes is None or target.labels is None:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return Truth(torch.zeros(0, 4, device=device), none, none)
    boxes = target.boxes.to(device).as_subclass(Tensor).float()
    usable = (boxes[:, 2:] > boxes[:, :2]).all(1) & (boxes[:, 2:] > 0).all(1) & (boxes[:, :2] < size.flip(0)).all(1)
    if target.crowd is not None:
        usable &= ~target.crowd.to(device).bool()
    rows = usable.nonzero().squeeze(1)
    return Truth(boxes[rows], target.labels.to(device)[rows], rows)
