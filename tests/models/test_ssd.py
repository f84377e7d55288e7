"""SSD: sizes of the published models, settings, the model contract, the key maps, the recipes."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import box_convert

from saccade.errors import InputError
from saccade.layers.box_coder import encode_boxes
from saccade.layers.pixels import PixelNorm
from saccade.models.ssd import SSD, probe_levels
from saccade.models.ssd_backbones.any_timm import TimmSSD
from saccade.models.ssd_backbones.efficientnet import SSDEfficientNetB3
from saccade.models.ssd_backbones.mobilenet_v2 import SSDMobileNetV2
from saccade.models.ssd_backbones.mobilenet_v3 import SSDMobileNetV3
from saccade.models.ssd_backbones.vgg import SSDVGG16
from saccade.recipes import build, load_recipe
from saccade.structures import Annotations, Batch, Detections, Geometry, Meta
from saccade.weights.maps import lufficc_ssd, torchvision_ssd

CASES = Path(__file__).parents[1] / "parity" / "cases"
VOC, COCO = [f"voc {k}" for k in range(20)], [f"coco {k}" for k in range(80)]

# Recipe, classes, parameters and priors of lufficc/SSD's models (specification A1).
PUBLISHED = [
    ("ssd300_vgg16_voc", VOC, 26_285_486, 8732),
    ("ssd512_vgg16_voc", VOC, 27_188_676, 24564),
    ("ssd300_vgg16_coco", COCO, 34_305_206, 8732),
    ("ssd512_vgg16_coco", COCO, 36_038_196, 24564),
    ("ssd320_mobilenet_v2_voc", VOC, 3_304_708, 3234),
    ("ssd320_mobilenet_v3_voc", VOC, 3_860_436, 3234),
    ("ssd300_efficientnet_b3_voc", VOC, 12_656_262, 8732),
]


def from_recipe(name: str, classes: list[str]) -> SSD:
    recipe = load_recipe(name)
    model = build(recipe.section("model"), classes=classes)
    assert isinstance(model, SSD)
    return model


def small_backbone(**changes: Any) -> TimmSSD:
    return TimmSSD(**{"name": "resnet10t", "extra_channels": [32], "options": {"channels": [8, 16, 24, 32]}, **changes})


def small_ssd(**changes: Any) -> SSD:
    torch.manual_seed(0)
    return SSD(**{"classes": ["cat", "dog", "car"], "backbone": small_backbone(), "image_size": 64, "predictor": "ssdlite", **changes})


def batch_of(*boxes: list[list[float]], size: int = 64) -> Batch:
    targets = [Annotations(boxes=torch.tensor(b).reshape(-1, 4), labels=torch.zeros(len(b), dtype=torch.int64)) for b in boxes]
    images = torch.randint(0, 256, (len(boxes), 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Batch(images, targets, [Meta(original_size=(size, size), geometry=Geometry.identity((size, size)))] * len(boxes))


@pytest.mark.parametrize(("recipe", "classes", "parameters", "priors"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_published_models_have_the_published_size_and_names(recipe: str, classes: list[str], parameters: int, priors: int) -> None:
    model = from_recipe(recipe, classes)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.priors) == priors
    own = model.state_dict()
    theirs = lufficc_ssd.from_saccade(own, model)
    assert len(theirs) == len(own) and lufficc_ssd.recognises(list(theirs))
    back = lufficc_ssd.to_saccade(theirs, model)
    assert {name: value.data_ptr() for name, value in back.items()} == {name: value.data_ptr() for name, value in own.items()}


@pytest.mark.parametrize("case", ["ssd300_vgg16", "ssd320_mobilenet_v2", "ssd300_efficientnet_b3"])
def test_converted_names_and_shapes_are_the_originals(case: str) -> None:
    model = from_recipe(f"{case}_voc", VOC)
    expected = {e["key"]: e["shape"] for e in json.loads((CASES / case / "manifest.json").read_text())["tensors"]}
    assert {name: list(value.shape) for name, value in lufficc_ssd.from_saccade(model.state_dict(), model).items()} == expected


def test_mobilenet_v3_has_the_originals_names() -> None:
    model = from_recipe("ssd320_mobilenet_v3_voc", VOC)
    names = set(lufficc_ssd.from_saccade(model.state_dict(), model))
    plain = {f"backbone.features.1.conv.{n}" for n in ("0.weight", "1.running_var", "4.weight", "5.bias")}
    squeezed = {f"backbone.features.4.conv.{n}" for n in ("0.weight", "3.weight", "5.fc.0.weight", "5.fc.2.bias", "7.weight", "8.bias")}
    others = {"backbone.features.0.0.weight", "backbone.features.16.1.bias", "backbone.extras.3.conv.7.weight",
              "box_head.predictor.cls_headers.0.conv.3.weight", "box_head.predictor.reg_headers.5.bias"}
    assert plain | squeezed | others <= names
    assert not {"backbone.features.2.conv.5.fc.0.weight", "backbone.features.1.conv.7.weight"} & names


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (SSDVGG16, {"0.weight", "33.bias", "extras.0.weight", "extras.7.bias", "l2_norm.weight"}),
        (SSDMobileNetV2, {"features.0.0.weight", "features.17.conv.3.running_mean", "extras.0.conv.0.0.weight"}),
        (SSDMobileNetV3, {"features.0.0.weight", "features.15.conv.5.fc.2.weight"}),
        (SSDEfficientNetB3, {"_conv_stem.weight", "_bn0.bias", "_blocks.25._bn2.weight", "_blocks.0._se_reduce.bias", "extras.2.2.weight"}),
    ],
)
def test_backbones_alone_have_the_names_of_their_imagenet_files(make: Callable[[], nn.Module], names: set[str]) -> None:
    backbone = make()
    assert names <= set(lufficc_ssd.from_saccade(backbone.state_dict(), backbone))


def test_torchvisions_weights_give_torchvisions_outputs() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21).eval()
    ours = from_recipe("ssd300_vgg16_coco", VOC).eval()
    converted = torchvision_ssd.to_saccade(theirs.state_dict(), ours)
    ours.load_state_dict(converted, strict=True)
    assert torchvision_ssd.recognises(list(theirs.state_dict()))
    assert list(torchvision_ssd.from_saccade(converted, ours)) == list(theirs.state_dict())
    image = torch.rand(3, 300, 300)
    with torch.no_grad():
        pixels, _ = theirs.transform([image])
        head = theirs.head(list(theirs.backbone(pixels.tensors).values()))
        outputs = ours(Batch((image * 255)[None], [], []))
    spread = float(head["cls_logits"].std())
    assert torch.allclose(outputs["class_logits"], head["cls_logits"], atol=1e-3 * spread, rtol=1e-3)
    assert torch.allclose(outputs["box_offsets"], head["bbox_regression"], atol=1e-3 * float(head["bbox_regression"].std()), rtol=1e-3)


def test_any_timm_network_is_a_backbone() -> None:
    for name, first_stride in (("resnet10t", 8), ("mobilenetv3_small_050", 16)):
        backbone = TimmSSD(name=name, first_stride=first_stride, extra_channels=[32, 16])
        model = SSD(classes=["a"], backbone=backbone, image_size=128)
        assert [rows for rows, _ in model.grids] == ([16, 8, 4, 2, 1] if first_stride == 8 else [8, 4, 2, 1])
        outputs = model.eval()(batch_of([], size=128))
        assert outputs["class_logits"].shape == (1, len(model.priors), 2)
    with pytest.raises(ValueError, match="first_stride 64"):
        TimmSSD(name="resnet10t", first_stride=64)


def test_training_reaches_every_parameter_and_lowers_the_loss() -> None:
    model = small_ssd().train()
    batch = batch_of([[4, 4, 30, 40]], [[20, 10, 60, 60], [0, 0, 12, 12]], [])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    totals = []
    for step in range(8):
        losses = model.losses(model(batch), batch)
        assert set(losses) == {"reg_loss", "cls_loss"}
        total = sum(losses.values(), torch.zeros(()))
        optimizer.zero_grad()
        total.backward()
        if step == 0:
            assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.7 * totals[0]


def test_a_batch_without_objects_gives_finite_gradients_on_every_head() -> None:
    model = small_ssd().train()
    batch = batch_of([], [])
    total = sum(model.losses(model(batch), batch).values(), torch.zeros(()))
    total.backward()
    assert total.item() == 0
    for name, parameter in model.named_parameters():
        if "heads" in name:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def certain_outputs(model: SSD, boxes: Tensor, labels: list[int]) -> dict[str, Tensor]:
    """Raw outputs that say that prior i holds `boxes[i]` (pixels) of class `labels[i]`, and all other priors background."""
    logits = torch.zeros(1, len(model.priors), len(model.classes) + 1)
    logits[..., 0] = 12
    offsets = torch.zeros(1, len(model.priors), 4)
    wanted = box_convert(boxes / model.image_size, "xyxy", "cxcywh")
    offsets[0, : len(boxes)] = encode_boxes(wanted, model.priors[: len(boxes)], model.center_variance, model.size_variance)
    for prior, label in enumerate(labels):
        logits[0, prior, 0], logits[0, prior, label + 1] = 0, 9 - prior
    return {"class_logits": logits, "box_offsets": offsets}


def test_predictions_are_in_pixels_of_the_original_and_inside_it() -> None:
    model = small_ssd().eval()
    boxes = torch.tensor([[8.0, 16, 24, 32], [-10, 40, 20, 80], [9, 17, 24, 32]])
    outputs = certain_outputs(model, boxes, [2, 0, 2])
    to_original = torch.diag(torch.tensor([500 / 64, 375 / 64, 1.0], dtype=torch.float64))
    batch = batch_of([])
    batch.metas = [Meta(original_size=(375, 500), geometry=Geometry.from_matrix(to_original, (64, 64)))]
    (found,) = model.predictions(outputs, batch)
    assert isinstance(found, Detections)
    scale = torch.tensor([500 / 64, 375 / 64] * 2)
    assert found.labels.tolist() == [2, 0], "the third box overlaps a better one of its class"
    assert torch.allclose(found.boxes[0], boxes[0] * scale, atol=1e-2)
    assert torch.allclose(found.boxes[1], torch.tensor([0.0, 40 * 375 / 64, 20 * 500 / 64, 375]), atol=1e-2)
    assert (found.scores[:-1] >= found.scores[1:]).all() and found.scores.max() > 0.99
    model.reference_quirks = True
    (unclipped,) = model.predictions(outputs, batch)
    assert isinstance(unclipped, Detections)
    assert torch.allclose(unclipped.boxes, boxes[:2] * scale, atol=1e-2)


def test_limits_on_detections_hold() -> None:
    generator = torch.Generator().manual_seed(0)
    model = small_ssd(max_detections=7, score_threshold=0.3)
    logits = torch.randn(2, len(model.priors), 4, generator=generator) * 3
    found = model.detect(logits, torch.randn(2, len(model.priors), 4, generator=generator))
    assert [len(boxes) for boxes, _, _ in found] == [7, 7]
    model.score_threshold = 1.0
    assert all(len(boxes) == 0 for boxes, _, _ in model.detect(logits, torch.zeros_like(logits)))


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match=r"64 x 64.*Resize"):
        small_ssd()(batch_of([], size=96))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": []}, "at least one"),
        ({"classes": ["cat", "cat"]}, "distinct"),
        ({"min_sizes": [10, 20]}, "min_sizes has 2 entries, but the backbone has 4 levels of 8 x 8, 4 x 4"),
        ({"strides": [8]}, "strides has 1 entries"),
        ({"aspect_ratios": [[2], [2]]}, "aspect_ratios has 2"),
        ({"aspect_ratios": [-2]}, "positive"),
        ({"min_sizes": [9, 9, 9, 9], "max_sizes": [10, 10, 5, 10]}, r"below its max size; got \(9, 5\)"),
        ({"match_threshold": 1.5}, "match_threshold"),
        ({"max_detections": 0}, "max_detections"),
        ({"image_size": 32}, "fewer levels or larger images"),
        ({"backbone": SSDVGG16(), "image_size": 128}, "cannot take images of 128 pixels"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_ssd(**changes)


def test_probing_the_levels_leaves_the_backbone_as_it_was() -> None:
    backbone = small_backbone().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    channels, grids = probe_levels(backbone, 64)
    assert channels == [16, 24, 32, 32] and grids == [(8, 8), (4, 4), (2, 2), (1, 1)]
    assert backbone.training and all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_only_the_class_heads_depend_on_the_classes() -> None:
    for predictor in ("ssd", "ssdlite"):
        three, two = small_ssd(predictor=predictor), small_ssd(predictor=predictor, classes=["a", "b"])
        changed = {k for k, v in three.state_dict().items() if v.shape != two.state_dict()[k].shape}
        assert changed == {key for key in three.state_dict() if key.startswith(three.head_keys())}
    groups = small_ssd().parameter_groups()
    assert groups["backbone"] and all(name.startswith("backbone.") for name in groups["backbone"])


def test_norms_of_the_mobilenet_trunk_stay_as_they_are_on_request() -> None:
    backbone = SSDMobileNetV2(norm="eval").train()
    norms = {name: part.training for name, part in backbone.named_modules() if isinstance(part, nn.BatchNorm2d)}
    assert not any(training for name, training in norms.items() if name.startswith("features."))
    assert all(training for name, training in norms.items() if name.startswith("extras."))


def test_tensorflows_padding_moves_the_grid_by_half_a_cell_and_keeps_names() -> None:
    symmetric, same = SSDMobileNetV2().eval(), SSDMobileNetV2(padding="same").eval()
    same.load_state_dict(symmetric.state_dict(), strict=True)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        stem = same.features[0][0]
        expected = nn.functional.conv2d(nn.functional.pad(images, (0, 1, 0, 1)), stem.weight, stride=2)
        assert torch.allclose(stem(images), expected, atol=1e-6)
        assert [a.shape for a in symmetric(images)] == [b.shape for b in same(images)]


def test_pixels_are_normalised_by_the_model() -> None:
    model = small_ssd(pixel_norm=PixelNorm()).eval()
    batch = batch_of([])
    with torch.no_grad():
        assert torch.equal(model(batch)["class_logits"], model.forward_pixels(PixelNorm()(batch.images))["class_logits"])
    assert small_ssd().pixel_norm.mean == (123.0, 117.0, 104.0)
