"""Faster R-CNN on a feature pyramid (Ren et al. 2015, arXiv:1506.01497; Lin et al. 2017), with mmdetection's or torchvision's rules.

The detector itself is `layers/two_stage.py`, which trackers build on as well; here it gets classes, pixels and originals.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from saccade.layers.backbone import TimmBackbone
from saccade.layers.pixels import IMAGENET_MEAN, PixelNorm
from saccade.layers.two_stage import PRESETS, TwoStage, TwoStageSettings, truths_of
from saccade.models.contract import Model
from saccade.ops.boxes import clip_to_canvas
from saccade.structures import Batch, Detections, Meta, Outputs, Prediction
from saccade.structures.ranges import PositiveInt, Probability


class FasterRCNN(Model):
    """Detector of `classes`.

    `preset`: whose rules hold: "mmdet", "caffe" (mmdetection's with caffe's pixels: BGR, without a deviation) or "torchvision"; for other rules
    give all of them as `settings`. `score_threshold`, `nms_threshold`, `max_detections`: of the detections, where they differ from these.
    `category_ids`: the number that each class has in released weights whose class head knows all COCO ids from 1 to 90 (torchvision's); None: the
    class head has one logit a class. `pixel_norm`: that of the preset unless given. Raises ValueError where `category_ids` are not one distinct
    number from 1 a class, and for settings besides the torchvision preset, whose rules they would replace.
    """

    def __init__(
        self, *, classes: Sequence[str], backbone: TimmBackbone, preset: Literal["mmdet", "caffe", "torchvision"] = "mmdet",
        settings: TwoStageSettings | None = None, score_threshold: Probability | None = None, nms_threshold: Probability | None = None,
        max_detections: PositiveInt | None = None, category_ids: Sequence[int] | None = None, pixel_norm: PixelNorm | None = None,
    ) -> None:
        super().__init__(classes, pixel_norm or preset_pixels(preset))
        if settings is not None and preset == "torchvision":
            raise ValueError("settings hold every rule, also those of the torchvision preset, which would then say nothing; leave out one of the two")
        given = {"score_threshold": score_threshold, "nms_threshold": nms_threshold, "max_detections": max_detections}
        rules = replace(settings or PRESETS[preset], **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        self.detector = TwoStage(
            num_classes=len(self.classes), backbone=backbone, settings=rules,
            logit_of_label=None if category_ids is None else [number - 1 for number in category_ids],
        )

    def forward(self, batch: Batch) -> Outputs:
        """`features`, `rpn_logits`, `rpn_deltas`, `sizes`, `canvas` and `proposals`, as `TwoStage.forward` gives them."""
        return self.detector(self.pixel_norm(batch.images, batch.padding), batch.padding)

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`loss_rpn_cls`, `loss_rpn_bbox`, `loss_cls`, `loss_bbox`."""
        return self.detector.losses(outputs, truths_of(batch.targets, outputs["sizes"]))

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """`Detections` of every image in pixels of the original, best first."""
        return [self._to_original(*found, meta) for found, meta in zip(self.detect(outputs), batch.metas, strict=True)]

    def _to_original(self, boxes: Tensor, scores: Tensor, labels: Tensor, meta: Meta) -> Detections:
        if meta.geometry is not None:
            boxes = meta.geometry.boxes_to_original(boxes)
        if self.detector.settings.clip_boxes and meta.original_size is not None:
            boxes = clip_to_canvas(boxes, meta.original_size)
        return Detections(boxes, scores, labels)[(boxes[:, 2:] > boxes[:, :2]).all(1)]

    def extract(self, images: Tensor) -> list[Tensor]:
        """The pyramid of normalised `images` (N, 3, H, W), finest first."""
        return self.detector.extract(images)

    def propose(self, outputs: Outputs, training: bool) -> list[Tensor]:
        """(p, 4) proposals of every image, best first, detached."""
        return self.detector.propose(outputs, training)

    def box_outputs(self, features: Sequence[Tensor], rois: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (R, K + 1), background last, and deltas (R, 4K) of `rois`, one (n_i, 4) an image."""
        return self.detector.box_outputs(features, rois)

    def detect(self, outputs: Mapping[str, Any]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(boxes (n, 4) in pixels of the network's input, scores (n,), labels (n,)) of every image, best first."""
        return self.detector.detect(outputs)

    def parameter_groups(self) -> dict[str, list[str]]:
        """`backbone`, and `head` for pyramid and both stages."""
        names = [name for name, _ in self.named_parameters()]
        backbone = [name for name in names if name.startswith("detector.backbone.")]
        return {"backbone": backbone, "head": [name for name in names if not name.startswith("detector.backbone.")]}

    def head_keys(self) -> tuple[str, ...]:
        """The last two layers of the box head."""
        return ("detector.box_head.logits.", "detector.box_head.deltas.")


def preset_pixels(preset: str) -> PixelNorm:
    """The pixels that released weights of a preset take: ImageNet's statistics; for caffe BGR without a deviation."""
    return PixelNorm(mean=IMAGENET_MEAN, std=(1.0, 1.0, 1.0), channel_order="bgr") if preset == "caffe" else PixelNorm()
