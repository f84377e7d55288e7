"""Small networks and batches for tests, made of real parts."""
from __future__ import annotations

from collections.abc import Sequence

import torch

from saccade.layers.backbone import TimmBackbone
from saccade.layers.track_head import TrackHead
from saccade.layers.two_stage import TwoStageSettings
from saccade.models.classifier import ImageClassifier
from saccade.models.deeplab import DeepLabV2
from saccade.models.faster_rcnn import FasterRCNN
from saccade.models.qdtrack import QDTrack
from saccade.models.ssd import SSD
from saccade.models.ssd_backbones.any_timm import TimmSSD
from saccade.structures import Annotations, Batch, Geometry, Meta
from saccade.tracking.quasi_dense import QuasiDense


def classifier(norm: str = "batch") -> ImageClassifier:
    """A classifier of three classes with batch norms."""
    torch.manual_seed(0)
    return ImageClassifier(classes=["a", "b", "c"], backbone=TimmBackbone(name="resnet10t", norm=norm))  # type: ignore[arg-type]


def segmenter(
    auxiliary: bool = True, norm: str = "batch", norm_affine: bool = False, head: str = "aspp2", name: str = "resnet10t",
    classes: Sequence[str] = ("a", "b", "c"),
) -> DeepLabV2:
    """A segmentation network at an eighth of the resolution, its norms as the published ones have them: scales that do not learn."""
    torch.manual_seed(0)
    backbone = TimmBackbone(name=name, out_indices=[3, 4], output_stride=8, norm=norm, norm_affine=norm_affine)  # type: ignore[arg-type]
    return DeepLabV2(classes=classes, backbone=backbone, head=head, rates=(1, 2), auxiliary=auxiliary)  # type: ignore[arg-type]


def detector() -> SSD:
    """A detector of two classes for images of 64 pixels."""
    torch.manual_seed(0)
    backbone = TimmSSD(name="resnet10t", extra_channels=[64])
    return SSD(classes=["figure", "vehicle"], backbone=backbone, image_size=64, scale_range=(0.15, 0.9), aspect_ratios=[2], score_threshold=0.01)


def images(count: int = 2, size: int = 64, seed: int = 0) -> Batch:
    """A batch of noise with some structure, without labels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, size // 8, size // 8, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear").mul(255).to(torch.uint8)
    metas = [Meta(id=i, original_size=(size, size), geometry=Geometry.identity((size, size))) for i in range(count)]
    return Batch(pixels, [Annotations() for _ in range(count)], metas)


def two_stage() -> FasterRCNN:
    """A two-stage detector of two classes with few channels."""
    torch.manual_seed(0)
    settings = TwoStageSettings(channels=16, hidden=(32,), anchor_scale=4.0, test_proposals=30, score_threshold=0.01)
    backbone = TimmBackbone(name="resnet10t", out_indices=[1, 2, 3, 4])
    return FasterRCNN(classes=["figure", "vehicle"], backbone=backbone, settings=settings)


def tracker() -> QDTrack:
    """A tracker of two classes with few channels."""
    torch.manual_seed(0)
    settings = TwoStageSettings(channels=16, hidden=(32,), anchor_scale=4.0, test_proposals=30, score_threshold=0.01)
    backbone = TimmBackbone(name="resnet10t", out_indices=[1, 2, 3, 4])
    head = TrackHead(in_channels=16, convs=1, channels=16, groups=4, hidden=(32,), embedding=16)
    return QDTrack(classes=["figure", "vehicle"], backbone=backbone, settings=settings, track_head=head, tracker=QuasiDense(init_threshold=0.1))


def domains(count: int = 2, size: int = 64, seed: int = 0) -> Batch:
    """Images of a target domain without labels, and beside them as many of a source with label maps (a tenth of them ignored)."""
    target, source = images(count, size, seed), images(count, size, seed + 1000)
    generator = torch.Generator().manual_seed(seed)
    for own in source.targets:
        own.segmentation = torch.randint(0, 3, (size, size), generator=generator, dtype=torch.uint8)
        own.segmentation[: size // 10] = 255
    target.source = source
    return target
