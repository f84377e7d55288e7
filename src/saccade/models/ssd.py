"""SSD, the single-shot multibox detector (Liu et al. 2016, arXiv:1512.02325), and SSDLite (Sandler et al. 2018, section 6.2).

Read from top to bottom: a backbone gives a few feature maps of falling resolution; on each, two convolutions say for every prior box which class it
holds and how it must be moved; training matches priors with objects, detection suppresses what overlaps.
Channels, grids and boxes a cell are derived from the backbone and the ratios. Left out: the mobile variants' quantisation, atrous-free VGG.
"""
from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.ops import box_convert

from saccade.errors import InputError
from saccade.layers.box_coder import decode_boxes
from saccade.layers.multibox import match_priors, multibox_losses, pad_truth
from saccade.layers.pixels import PixelNorm
from saccade.layers.priors import boxes_per_cell, make_priors, paper_sizes
from saccade.layers.ssd_extras import xavier_uniform
from saccade.models.contract import Model
from saccade.ops.boxes import clip_to_canvas
from saccade.ops.suppression import best_detections
from saccade.structures import Batch, Detections, Meta, Outputs, Prediction

CAFFE_MEAN = (123.0, 117.0, 104.0)  # RGB; the statistics that all released SSD weights take, without a standard deviation
REFERENCE_EPSILON = 1e-5  # what lufficc/SSD adds to the union of two boxes


class SSD(Model):
    """Detector of `classes` on square images of `image_size` pixels.

    `backbone`: a module that gives a list of feature maps, finest first. `min_sizes`, `max_sizes`: of the priors of each level, in pixels; left out,
    they are spread evenly over `scale_range` (fractions of the image). `aspect_ratios`: one list for all levels, or one a level. `strides`: pixels
    between cells, only where released weights were trained with rounded ones (else image size over grid). `predictor`: one 3x3 convolution a level,
    or SSDLite's separable one. `match_threshold`: overlap from which a prior learns an object; `negative_ratio`: background priors kept per positive.
    Detections score above `score_threshold`, overlap better ones of their own class by no more than `nms_threshold`, and are at most
    `max_detections`. `pixel_norm`: mean (123, 117, 104) without a standard deviation unless given. `reference_quirks`: as in lufficc/SSD, overlaps
    have 1e-5 added to the union and boxes are not clipped to the picture. Raises ValueError for settings that contradict each other.
    """

    priors: Tensor

    def __init__(
        self, *, classes: Sequence[str], backbone: nn.Module, image_size: int = 300,
        min_sizes: Sequence[float] | None = None, max_sizes: Sequence[float] | None = None, scale_range: tuple[float, float] = (0.2, 0.95),
        aspect_ratios: Sequence[float] | Sequence[Sequence[float]] = (2.0, 3.0), strides: Sequence[float] | None = None, clip_priors: bool = True,
        predictor: Literal["ssd", "ssdlite"] = "ssd", match_threshold: float = 0.5, negative_ratio: float = 3.0,
        center_variance: float = 0.1, size_variance: float = 0.2, score_threshold: float = 0.01, nms_threshold: float = 0.45,
        max_detections: int = 100, pixel_norm: PixelNorm | None = None, reference_quirks: bool = False,
    ) -> None:
        super().__init__(classes, pixel_norm or PixelNorm(mean=CAFFE_MEAN, std=(1.0, 1.0, 1.0)))
        self.backbone, self.image_size = backbone, image_size
        self.match_threshold, self.negative_ratio = match_threshold, negative_ratio
        self.center_variance, self.size_variance = center_variance, size_variance
        self.score_threshold, self.nms_threshold, self.max_detections = score_threshold, nms_threshold, max_detections
        self.reference_quirks = reference_quirks
        _check_settings(self)

        channels, self.grids = probe_levels(backbone, image_size)
        levels = len(channels)
        self.aspect_ratios = _per_level(aspect_ratios, levels)
        low, high = paper_sizes(image_size, levels, *scale_range)
        self.min_sizes, self.max_sizes = list(min_sizes or low), list(max_sizes or high)
        self.strides = None if strides is None else list(strides)
        _check_levels(self)
        priors = make_priors(image_size, self.grids, self.min_sizes, self.max_sizes, self.aspect_ratios, self.strides, clip_priors)
        self.register_buffer("priors", priors, persistent=False)

        boxes = [boxes_per_cell(ratios) for ratios in self.aspect_ratios]
        make = _ssd_heads if predictor == "ssd" else _ssdlite_heads
        self.class_heads = make(channels, [n * (len(self.classes) + 1) for n in boxes])
        self.box_heads = make(channels, [n * 4 for n in boxes])

    def forward(self, batch: Batch) -> Outputs:
        """`class_logits` (N, P, K + 1), background first; `box_offsets` (N, P, 4); `features`, one map a level."""
        if tuple(batch.images.shape[-2:]) != (self.image_size, self.image_size):
            height, width = batch.images.shape[-2:]
            raise InputError(
                f"SSD: images of {height} x {width} pixels, but this model's priors are made for {self.image_size} x {self.image_size}; "
                f"end the transforms with {{type: Resize, size: [{self.image_size}, {self.image_size}]}}."
            )
        return self.forward_pixels(self.pixel_norm(batch.images, batch.padding))

    def forward_pixels(self, images: Tensor) -> dict[str, Tensor | list[Tensor]]:
        """The same for `images` (N, 3, S, S) that are normalised already."""
        # Channels last: faster convolutions, and heads whose flattening below copies nothing.
        features = self.backbone(images.contiguous(memory_format=torch.channels_last))
        logits = [_flat(head(feature), len(self.classes) + 1) for head, feature in zip(self.class_heads, features, strict=True)]
        offsets = [_flat(head(feature), 4) for head, feature in zip(self.box_heads, features, strict=True)]
        return {"class_logits": torch.cat(logits, 1), "box_offsets": torch.cat(offsets, 1), "features": features}

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`reg_loss` and `cls_loss`; over several processes every one must call it, because they share the number of positives."""
        epsilon = REFERENCE_EPSILON if self.reference_quirks else 0.0
        truth = pad_truth(batch.targets, (self.image_size, self.image_size), self.priors.device)
        match = match_priors(truth, self.priors, self.match_threshold, epsilon)
        return multibox_losses(
            outputs["class_logits"], outputs["box_offsets"], match, self.priors,
            center_variance=self.center_variance, size_variance=self.size_variance, negative_ratio=self.negative_ratio,
        )

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """`Detections` of every image in pixels of the original, best first."""
        found = self.detect(outputs["class_logits"], outputs["box_offsets"])
        return [self._to_original(boxes, scores, labels, meta) for (boxes, scores, labels), meta in zip(found, batch.metas, strict=True)]

    @torch.no_grad()
    def detect(self, class_logits: Tensor, box_offsets: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(boxes (n, 4) in pixels of the square image, scores (n,), labels (n,)) of every image, best first, not clipped."""
        scores = class_logits.float().softmax(-1)[..., 1:]

        def boxes_of(image: Tensor, prior: Tensor) -> Tensor:
            centers = decode_boxes(box_offsets[image, prior].float(), self.priors[prior], self.center_variance, self.size_variance)
            return box_convert(centers, "cxcywh", "xyxy") * self.image_size

        return best_detections(
            scores, boxes_of, score_threshold=self.score_threshold, iou_threshold=self.nms_threshold, most=self.max_detections
        )

    def _to_original(self, boxes: Tensor, scores: Tensor, labels: Tensor, meta: Meta) -> Detections:
        if meta.geometry is not None:
            boxes = meta.geometry.boxes_to_original(boxes)
        if self.reference_quirks or meta.original_size is None:
            return Detections(boxes, scores, labels)
        boxes = clip_to_canvas(boxes, meta.original_size)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return Detections(boxes, scores, labels)[inside]

    def head_keys(self) -> tuple[str, ...]:
        """The last convolutions of the class heads: all that depends on the classes."""
        lite = [isinstance(head, nn.Sequential) for head in self.class_heads]
        return tuple(f"class_heads.{level}.3." if separable else f"class_heads.{level}." for level, separable in enumerate(lite))

    def extra_repr(self) -> str:
        """Classes, image size and levels, for `print(model)`."""
        return f"classes={len(self.classes)}, image_size={self.image_size}, grids={self.grids}, priors={len(self.priors)}"


def probe_levels(backbone: nn.Module, image_size: int) -> tuple[list[int], list[tuple[int, int]]]:
    """(channels, (rows, columns)) of the maps that `backbone` gives for images of `image_size`; computes shapes only.

    Raises ValueError where it cannot take that size or does not give ever smaller maps.
    """
    was_training = backbone.training
    shapes = {name: value.to("meta") for name, value in (*backbone.named_parameters(), *backbone.named_buffers())}
    try:
        maps = functional_call(backbone.eval(), shapes, torch.empty(1, 3, image_size, image_size, device="meta"))
    except RuntimeError as error:
        raise ValueError(f"the backbone cannot take images of {image_size} pixels: {error}") from None
    finally:
        backbone.train(was_training)
    grids = [cast(tuple[int, int], tuple(m.shape[-2:])) for m in maps]
    if any(after[0] >= before[0] for before, after in itertools.pairwise(grids)):
        raise ValueError(
            f"the levels of the backbone have {', '.join(f'{r} x {c}' for r, c in grids)} cells for images of {image_size} pixels; each must be "
            f"coarser than the one before: use fewer levels or larger images"
        )
    return [m.shape[1] for m in maps], grids


def _flat(head: Tensor, values: int) -> Tensor:
    return head.permute(0, 2, 3, 1).reshape(head.shape[0], -1, values)  # (N, A * values, H, W) -> (N, H * W * A, values)


def _ssd_heads(channels: Sequence[int], outputs: Sequence[int]) -> nn.ModuleList:
    heads = nn.ModuleList([nn.Conv2d(inputs, out, 3, padding=1) for inputs, out in zip(channels, outputs, strict=True)])
    xavier_uniform(heads)
    return heads


def _ssdlite_heads(channels: Sequence[int], outputs: Sequence[int]) -> nn.ModuleList:
    heads = nn.ModuleList(
        [
            nn.Sequential(nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs), nn.BatchNorm2d(inputs), nn.ReLU6(), nn.Conv2d(inputs, out, 1))
            for inputs, out in zip(channels[:-1], outputs[:-1], strict=True)
        ]
    )
    heads.append(nn.Conv2d(channels[-1], outputs[-1], 1))  # the coarsest map is a single cell
    xavier_uniform(heads)
    return heads


def _per_level(ratios: Sequence[float] | Sequence[Sequence[float]], levels: int) -> list[list[float]]:
    if all(isinstance(ratio, int | float) for ratio in ratios):
        return [[float(ratio) for ratio in cast(Sequence[float], ratios)]] * levels
    return [[float(ratio) for ratio in level] for level in cast(Sequence[Sequence[float]], ratios)]


def _check_settings(model: SSD) -> None:
    if len(model.classes) == 0 or len(set(model.classes)) != len(model.classes):
        raise ValueError(f"classes must be distinct names, at least one; got {list(model.classes)}. The background is not one of them.")
    for name in ("match_threshold", "score_threshold", "nms_threshold"):
        if not 0 <= getattr(model, name) <= 1:
            raise ValueError(f"{name} must lie between 0 and 1; got {getattr(model, name)}")
    for name in ("image_size", "center_variance", "size_variance", "max_detections", "negative_ratio"):
        if getattr(model, name) <= 0:
            raise ValueError(f"{name} must be positive; got {getattr(model, name)}")


def _check_levels(model: SSD) -> None:
    levels = len(model.grids)
    for name in ("min_sizes", "max_sizes", "aspect_ratios", "strides"):
        given = getattr(model, name)
        if given is not None and len(given) != levels:
            cells = ", ".join(f"{rows} x {columns}" for rows, columns in model.grids)
            raise ValueError(f"{name} has {len(given)} entries, but the backbone has {levels} levels of {cells} cells")
    wrong = [(low, high) for low, high in zip(model.min_sizes, model.max_sizes, strict=True) if not 0 < low < high]
    if wrong:
        raise ValueError(f"every min size must be positive and below its max size; got {wrong[0]}")
    if any(ratio <= 0 for level in model.aspect_ratios for ratio in level) or any(stride <= 0 for stride in model.strides or ()):
        raise ValueError(f"aspect ratios and strides must be positive; got {model.aspect_ratios} and {model.strides}")
