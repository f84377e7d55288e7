"""Faster R-CNN: torchvision's numbers, padding, empty pictures, extremes, weights of both origins."""
from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from saccade.layers.backbone import TimmBackbone
from saccade.layers.pixels import PixelNorm
from saccade.layers.two_stage import MMDET, PRESETS, TwoStageSettings
from saccade.models.faster_rcnn import FasterRCNN
from saccade.ops.boxes import pairwise_iou
from saccade.structures import Annotations, Batch, Geometry, Meta
from saccade.weights.load import load_into
from saccade.weights.maps import key_map, recognise

SMALL = replace(MMDET, channels=32, hidden=(64,), anchor_scale=4.0, train_per_level=300, train_proposals=200, test_per_level=200, test_proposals=100)


def model(classes: int = 3, settings: TwoStageSettings = SMALL, **arguments: Any) -> FasterRCNN:
    torch.manual_seed(4)
    backbone = TimmBackbone(name="resnet10t", norm="eval", frozen_stages=1)
    return FasterRCNN(classes=[f"class {k}" for k in range(classes)], backbone=backbone, settings=settings, **arguments)


def opinionated(detector: FasterRCNN) -> FasterRCNN:
    """The same with last layers that say something."""
    for layer in (detector.detector.rpn_head.logits, detector.detector.rpn_head.deltas, detector.detector.box_head.logits):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return detector.eval()


def batch_of(images: Tensor, targets: list[Annotations], sizes: list[tuple[int, int]] | None = None) -> Batch:
    metas = [Meta(original_size=size, geometry=Geometry.identity(size)) for size in sizes or [tuple(images.shape[-2:])] * len(images)]
    if sizes is None:
        return Batch(images, targets, metas)
    padding = torch.ones(len(images), *images.shape[-2:], dtype=torch.bool)
    for outside, (height, width) in zip(padding, sizes, strict=True):
        outside[:height, :width] = False
    return Batch(images, targets, metas, padding)


def annotations(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None) -> Annotations:
    return Annotations(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=torch.tensor(labels, dtype=torch.int64),
        crowd=None if crowd is None else torch.tensor(crowd),
    )


def noise(count: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(height + width))


OBJECTS = annotations([[10, 12, 60, 70], [80, 20, 120, 90]], [0, 2])


@pytest.fixture(scope="module")
def theirs() -> Any:
    """torchvision's detector with random weights that score boxes well apart."""
    torch.manual_seed(0)
    detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5, min_size=256, max_size=384)
    for name, value in detector.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    heads, boxes = detector.rpn.head, detector.roi_heads.box_predictor
    for layer, std in ((heads.cls_logits, 0.02), (heads.bbox_pred, 0.002), (boxes.cls_score, 0.02), (boxes.bbox_pred, 0.01)):
        torch.nn.init.normal_(layer.weight, std=std)
    return detector.eval()


@pytest.fixture(scope="module")
def ours(theirs: Any) -> FasterRCNN:
    """The same detector here, through the key map."""
    backbone = TimmBackbone(name="resnet50", norm="eval")
    found = FasterRCNN(
        classes=list("abcd"), backbone=backbone, preset="torchvision", pixel_norm=PixelNorm(std=(58.395, 57.12, 57.375)),
    )
    report = load_into(found, theirs.state_dict())
    assert report.origin == "torchvision_detection" and not report.missing and not report.unexpected
    return found.eval()


@pytest.mark.parametrize("size", [(256, 384), (256, 320), (250, 310)])
@torch.inference_mode()
def test_the_torchvision_preset_gives_torchvisions_boxes_and_scores(theirs: Any, ours: FasterRCNN, size: tuple[int, int]) -> None:
    images = noise(1, *size)
    theirs.transform.min_size, theirs.transform.max_size = (min(size),), 1000
    height, width = (-(-side // 32) * 32 for side in size)
    expected = theirs([images[0] / 255])[0]
    padded = F.pad(images, (0, width - size[1], 0, height - size[0]))
    found, = ours.predictions(ours(batch := batch_of(padded, [], [size])), batch)
    assert len(found) == len(expected["boxes"]) > 20
    torch.testing.assert_close(found.boxes, expected["boxes"], atol=5e-3, rtol=1e-4)
    torch.testing.assert_close(found.scores, expected["scores"], atol=1e-5, rtol=1e-4)
    assert torch.equal(found.labels + 1, expected["labels"])


def test_the_torchvision_preset_gives_torchvisions_losses(theirs: Any, ours: FasterRCNN) -> None:
    """With so few objects and samples that nothing is drawn: every candidate counts."""
    images, target = noise(2, 256, 320), annotations([[20, 30, 90, 120], [150, 60, 260, 200]], [0, 3])
    reference, mine = copy.deepcopy(theirs), copy.deepcopy(ours)
    reference.transform.min_size = (256,)
    everything = 1_000_000
    reference.rpn.fg_bg_sampler.batch_size_per_image = reference.roi_heads.fg_bg_sampler.batch_size_per_image = everything
    mine.detector.rpn_sampler = replace(mine.detector.rpn_sampler, number=everything)
    mine.detector.roi_sampler = replace(mine.detector.roi_sampler, number=everything)
    for training in (reference, mine):
        training.train()
        for norm in training.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.eval()
    empty = annotations([], [])
    expected = reference([i / 255 for i in images], [{"boxes": t.boxes, "labels": t.labels + 1} for t in (target, empty)])
    batch = batch_of(images, [target, empty])
    found = mine.losses(mine(batch), batch)
    names = {"loss_rpn_cls": "loss_objectness", "loss_rpn_bbox": "loss_rpn_box_reg", "loss_cls": "loss_classifier", "loss_bbox": "loss_box_reg"}
    for own, other in names.items():
        torch.testing.assert_close(found[own], expected[other], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_pictures_detections_do_not_depend_on_what_else_is_in_its_batch() -> None:
    detector = opinionated(model())
    small, large = noise(1, 96, 128), noise(1, 160, 192)
    together = torch.zeros(2, 3, 160, 192, dtype=torch.uint8)
    together[0, :, :96, :128], together[1] = small[0], large[0]
    batch = batch_of(together, [], [(96, 128), (160, 192)])
    pair = detector.predictions(detector(batch), batch)
    for images, found in zip((small, large), pair, strict=True):
        alone, = detector.predictions(detector(one := batch_of(images, [])), one)
        assert len(alone) == len(found) > 5
        torch.testing.assert_close(found.boxes, alone.boxes, atol=1e-2, rtol=1e-4)
        torch.testing.assert_close(found.scores, alone.scores, atol=1e-5, rtol=1e-4)
    assert bool((pair[0].boxes <= torch.tensor([128, 96, 128, 96])).all())


def test_boxes_go_back_to_the_original_picture() -> None:
    detector = opinionated(model())
    batch = batch_of(noise(1, 96, 128), [])
    with torch.no_grad():
        outputs = detector(batch)
        plain, = detector.predictions(outputs, batch)
        geometry = Geometry.from_matrix(torch.diag(torch.tensor([2.0, 3.0, 1.0], dtype=torch.float64)), (96, 128))
        batch.metas = [Meta(original_size=(288, 256), geometry=geometry)]
        found, = detector.predictions(outputs, batch)
    torch.testing.assert_close(found.boxes, plain.boxes * torch.tensor([2, 3, 2, 3]))


@pytest.mark.parametrize("targets", [
    pytest.param([OBJECTS, annotations([], [])], id="one empty picture"),
    pytest.param([annotations([], []), Annotations()], id="no objects at all"),
    pytest.param([OBJECTS, annotations([[50, 50, 51, 51], [127, 95, 128, 96]], [1, 1])], id="objects of a pixel"),
    pytest.param([OBJECTS, annotations([[20, 20, 90, 90]], [1], [True])], id="crowds only"),
    pytest.param([OBJECTS, annotations([[500, 500, 600, 600], [30, 30, 30, 60]], [1, 0])], id="objects outside or without area"),
])
def test_losses_are_finite_and_every_part_has_gradients(targets: list[Annotations]) -> None:
    detector = model().train()
    batch = batch_of(noise(2, 96, 128), targets)
    losses = detector.losses(detector(batch), batch)
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"}
    sum(losses.values()).backward()
    trained = {name: p.grad for name, p in detector.named_parameters() if p.requires_grad}
    assert not [name for name, gradient in trained.items() if gradient is None or not bool(gradient.isfinite().all())]
    assert all(bool(trained[f"detector.{part}.weight"].any()) for part in ("rpn_head.logits", "box_head.logits", "neck.lateral.0"))


def test_positives_train_both_box_layers() -> None:
    detector = model().train()
    batch = batch_of(noise(1, 96, 128), [OBJECTS])
    sum(detector.losses(detector(batch), batch).values()).backward()
    own = detector.detector
    assert bool(own.rpn_head.deltas.weight.grad.any()) and bool(own.box_head.deltas.weight.grad.any())
    rows = own.box_head.deltas.weight.grad.unflatten(0, (3, 4)).flatten(1).any(1)
    assert rows.tolist() == [True, False, True]  # the boxes of the classes that are there


def test_hundreds_of_objects_fit_a_picture() -> None:
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(700, 2, generator=generator) * 100
    many = Annotations(boxes=torch.cat([corners, corners + 8], 1), labels=torch.randint(0, 3, (700,), generator=generator))
    detector = model().train()
    batch = batch_of(noise(1, 128, 128), [many])
    assert all(bool(loss.isfinite()) for loss in detector.losses(detector(batch), batch).values())


@torch.inference_mode()
def test_one_class_and_class_agnostic_boxes_detect() -> None:
    for changes in ({}, {"class_agnostic": True}):
        detector = opinionated(model(1, replace(SMALL, score_threshold=0.0, **changes)))
        found, = detector.predictions(detector(batch := batch_of(noise(1, 96, 128), [])), batch)
        assert len(found) == 100 or len(found) > 20
        assert not found.labels.any()


def test_the_detector_learns_one_picture() -> None:
    torch.manual_seed(0)
    detector = model(2, replace(SMALL, roi_samples=32)).train()
    images = torch.full((1, 3, 96, 128), 60, dtype=torch.uint8)
    images[:, 0, 20:60, 30:80] = 255
    target = annotations([[30, 20, 80, 60]], [1])
    batch = batch_of(images, [target])
    optimizer = torch.optim.AdamW([p for p in detector.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(45):
        optimizer.zero_grad()
        sum(detector.losses(detector(batch), batch).values()).backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 10.0)
        optimizer.step()
    detector.eval()
    with torch.no_grad():
        found, = detector.predictions(detector(batch), batch)
    assert int(found.labels[0]) == 1 and float(found.scores[0]) > 0.5
    assert float(pairwise_iou(found.boxes[:1], torch.tensor([[30.0, 20, 80, 60]]))) > 0.6


def test_classes_with_category_ids_read_their_own_logits() -> None:
    detector = opinionated(model(2, category_ids=[2, 5]))
    assert detector.detector.box_head.logits.out_features == 6
    rois, sizes = [torch.tensor([[10.0, 10, 60, 60]])], torch.tensor([[96.0, 128.0]])
    logits, deltas = torch.zeros(1, 6), torch.zeros(1, 20)
    logits[0, 4], deltas[0, 16] = 5.0, 1.0  # id 5, and its own box
    (boxes, _, labels), = detector.detector.decode(logits, deltas, rois, sizes)
    assert labels.tolist() == [1] and boxes[0].tolist() == pytest.approx([15, 10, 65, 60])
    truth = annotations([[10, 10, 60, 60]], [1])
    batch = batch_of(noise(1, 96, 128), [truth])
    assert all(bool(loss.isfinite()) for loss in detector.losses(detector(batch), batch).values())
    with pytest.raises(ValueError, match="distinct logits"):
        model(2, category_ids=[3, 3])


@pytest.mark.parametrize("origin", ["mmdet", "torchvision_detection"])
def test_weights_go_both_ways(origin: str) -> None:
    mine, fresh = opinionated(model(settings=replace(SMALL, hidden=(64, 64)))), model(settings=replace(SMALL, hidden=(64, 64)))
    foreign = key_map(origin).from_saccade(mine.state_dict(), mine)
    assert recognise(list(foreign)) == origin
    report = load_into(fresh, foreign)
    assert report.origin == origin and not report.missing and not report.unexpected
    assert all(torch.equal(fresh.state_dict()[key], value) for key, value in mine.state_dict().items())


def test_files_of_older_torchvision_load(theirs: Any, ours: FasterRCNN) -> None:
    old = {key.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if "fpn." in key else key: v for key, v in theirs.state_dict().items()}
    old = {key.replace("rpn.head.conv.0.0.", "rpn.head.conv."): value for key, value in old.items()}
    assert not set(old) >= set(theirs.state_dict())
    fresh = copy.deepcopy(ours)
    torch.nn.init.zeros_(fresh.detector.rpn_head.conv.weight)
    load_into(fresh, old)
    assert torch.equal(fresh.detector.rpn_head.conv.weight, theirs.rpn.head.conv[0][0].weight)


def test_parameter_and_key_counts_are_the_originals() -> None:
    """tracking.md 1.1: one class, caffe's ResNet-50; image_models.md D6: torchvision's 41.76 million with 91 logits."""
    backbone = TimmBackbone(name="resnet50", norm="eval", norm_affine=False, frozen_stages=1, stride_in="1x1")
    detector = FasterRCNN(classes=["person"], backbone=backbone, preset="caffe").detector
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in detector.named_children()}
    assert count | {"roi_align": 0} == {"backbone": 23_508_032, "neck": 3_344_384, "rpn_head": 593_935, "roi_align": 0, "box_head": 13_901_830}
    assert len(detector.state_dict()) == 318 + 16 + 6 + 8
    assert sum(p.numel() for p in detector.backbone.parameters() if not p.requires_grad) == 275_520
    torchvision = FasterRCNN(classes=[f"c{k}" for k in range(90)], backbone=TimmBackbone(name="resnet50", norm="frozen"), preset="torchvision")
    total = sum(p.numel() for p in torchvision.parameters())
    assert round((total + 4 * 1025) / 1e6, 2) == 41.76  # theirs has deltas for the background, too


def test_presets_say_whose_rules_and_pixels_hold() -> None:
    assert PRESETS["caffe"] == PRESETS["mmdet"] != PRESETS["torchvision"]
    assert model(preset="caffe").pixel_norm.channel_order == "bgr" and model(preset="mmdet").pixel_norm.channel_order == "rgb"
    assert model().head_keys() == ("detector.box_head.logits.", "detector.box_head.deltas.")
    groups = model().parameter_groups()
    assert groups["backbone"] and all(name.startswith("detector.backbone.") for name in groups["backbone"])


def test_detection_thresholds_change_a_preset_but_settings_replace_it() -> None:
    backbone = TimmBackbone(name="resnet10t")
    found = FasterRCNN(classes=["a"], backbone=backbone, preset="torchvision", score_threshold=0.3, max_detections=7)
    assert found.detector.settings == replace(PRESETS["torchvision"], score_threshold=0.3, max_detections=7)
    with pytest.raises(ValueError, match="leave out one of the two"):
        FasterRCNN(classes=["a"], backbone=backbone, preset="torchvision", settings=SMALL)


def test_half_precision_trains_and_detects_alike() -> None:
    detector = opinionated(model())
    batch = batch_of(noise(1, 96, 128), [OBJECTS])
    with torch.no_grad():
        full, = detector.predictions(detector(batch), batch)
        with torch.autocast("cpu", torch.bfloat16):
            half, = detector.predictions(detector(batch), batch)
    assert half.scores.dtype == torch.float32
    best = pairwise_iou(full.boxes[:5], half.boxes).max(1).values
    assert float(best.mean()) > 0.8
    detector.train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector.losses(detector(batch), batch)
    sum(losses.values()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in detector.parameters() if p.requires_grad)
