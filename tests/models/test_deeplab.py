"""DeepLabV2: the original's sizes, losses and predictions on pictures of any size, padding, labels that are missing or wrong."""
from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from saccade.errors import DataError
from saccade.layers.backbone import TimmBackbone
from saccade.layers.deeplab_vgg import DeepLabVGG16
from saccade.models.deeplab import DeepLabV2
from saccade.ops.class_maps import resize_maps
from saccade.structures import Annotations, Batch, Geometry, Meta, Sample, SegmentationMap, collate, make_sample

torch.set_num_threads(1)
CLASSES = ("road", "car", "sky")
RESNET: dict[str, Any] = {"output_stride": 8, "first_block_dilation": "own", "ceil_pooling": True}


def small(head: str = "aspp4", **arguments: Any) -> DeepLabV2:
    torch.manual_seed(0)
    backbone = arguments.pop("backbone", None) or TimmBackbone(name="resnet18", out_indices=[3, 4], options={"zero_init_last": False}, **RESNET)
    model = DeepLabV2(classes=arguments.pop("classes", CLASSES), backbone=backbone, head=head, **arguments)  # type: ignore[arg-type]
    for name, weight in model.named_parameters():  # so that logits differ between places
        if name.startswith(("head.", "aux_head.")) and weight.ndim == 4:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, -(-height // 8), -(-width // 8), generator=generator)
    return F.interpolate(coarse, size=(height, width), mode="bilinear").mul(255).to(torch.uint8)[0]


def samples_of(*sizes: tuple[int, int], labels: bool = True) -> list[Sample]:
    samples = []
    for number, (height, width) in enumerate(sizes):
        truth = torch.randint(len(CLASSES), (height, width), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        truth[:, :3] = 255
        annotations = Annotations(segmentation=truth) if labels else Annotations()
        samples.append(make_sample(picture(height, width, number), annotations, dataset="streets", id=f"{number}.png"))
    return samples


def batch_of(*sizes: tuple[int, int], labels: bool = True) -> Batch:
    return collate(samples_of(*sizes, labels=labels))


def maps_of(model: DeepLabV2, batch: Batch) -> list[SegmentationMap]:
    with torch.no_grad():
        found = model.eval().predictions(model(batch), batch)
    assert all(isinstance(each, SegmentationMap) for each in found)
    return found  # type: ignore[return-value]


def resnet101(**arguments: Any) -> TimmBackbone:
    return TimmBackbone(name="resnet101", out_indices=[3, 4], stride_in="1x1", **RESNET, **arguments)


@pytest.mark.parametrize(("head", "arguments", "parameters"), [
    ("aspp2", {"auxiliary": True}, 44_601_560), ("aspp4", {"auxiliary": True}, 44_601_560), ("aspp2", {}, 43_901_068),
    ("aspp_gn_se", {"feature_norm": True}, 65_067_664),
])
def test_parameters_are_counted_as_in_the_originals(head: str, arguments: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        model = DeepLabV2(classes=[str(i) for i in range(19)], backbone=resnet101(norm_affine=False), head=head, **arguments)  # type: ignore[arg-type]
        assert sum(p.numel() for p in model.parameters()) == parameters
        assert sum(p.numel() for name, p in model.named_parameters() if ".bn" in name or "downsample.1" in name) == 105_344
        outputs = model.eval().forward_pixels(torch.zeros(1, 3, 512, 1024))
    assert outputs["logits"].shape == (1, 19, 65, 129)
    assert outputs["embeddings"].shape == (1, 256 if head == "aspp_gn_se" else 2048, 65, 129)
    assert ("aux_logits" in outputs) == ("auxiliary" in arguments)


def test_vgg_has_the_originals_parameters_and_sizes() -> None:
    with torch.device("meta"):
        model = DeepLabV2(classes=[str(i) for i in range(19)], backbone=DeepLabVGG16(), head="aspp2")
        assert sum(p.numel() for p in model.parameters()) == 29_573_004
        for size, expected in {(512, 1024): (64, 128), (720, 1280): (90, 160)}.items():
            assert model.forward_pixels(torch.zeros(1, 3, *size))["logits"].shape == (1, 19, *expected)


def test_parameters_that_the_original_repeats_are_named() -> None:
    with torch.device("meta"):
        for affine, expected in ((False, {1: 1, 3: 99, 4: 4}), (True, {1: 3, 3: 297, 4: 12})):
            model = DeepLabV2(classes=CLASSES, backbone=resnet101(norm_affine=affine))
            groups = {name: set(members) for name, members in model.parameter_groups().items()}
            trained = {name for name, p in model.named_parameters() if p.requires_grad}
            counts = {n: len(groups[f"repeated_{n}"] & trained) for n in (3, 4)}
            counts[1] = len((groups["backbone"] & trained) - groups["repeated_3"] - groups["repeated_4"])
            assert counts == expected
            assert groups["backbone"] | groups["head"] == {name for name, _ in model.named_parameters()}
        assert set(DeepLabV2(classes=CLASSES, backbone=DeepLabVGG16()).parameter_groups()) == {"backbone", "head"}


@pytest.mark.parametrize("arguments", [
    {"name": "mobilenetv2_100", "out_indices": [3, 4], "output_stride": 8}, {"name": "resnet10t", "out_indices": [3, 4]},
    {"name": "convnext_atto"}, {"name": "resnet18", "out_indices": [3, 4], **RESNET},
], ids=lambda arguments: arguments["name"])
def test_any_backbone_can_be_its_own(arguments: dict[str, Any]) -> None:
    model, batch = small(backbone=TimmBackbone(**arguments), auxiliary=True), batch_of((97, 129), (97, 129))
    terms = model.train().losses(model(batch), batch)
    assert set(terms) == {"seg_loss", "aux_seg_loss"}
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert maps_of(model, batch)[0].labels.shape == (97, 129)


@pytest.mark.parametrize(("head", "auxiliary"), [("aspp2", True), ("aspp4", True), ("aspp_gn_se", False)])
def test_gradients_reach_every_head(head: str, auxiliary: bool) -> None:
    model, batch = small(head, auxiliary=auxiliary, feature_norm=True).train(), batch_of((65, 97), (65, 97))
    sum(model.losses(model(batch), batch).values()).backward()  # type: ignore[union-attr]
    without = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    # A bias in front of a group norm of one channel a group would have none; here eight channels share one.
    assert not without


def test_the_loss_is_the_mean_over_labelled_pixels_at_the_size_of_the_picture() -> None:
    model, batch = small(auxiliary=True, auxiliary_weight=0.1).eval(), batch_of((65, 97), (65, 97))
    with torch.no_grad():
        outputs = model(batch)
        terms = model.losses(outputs, batch)
    truth = torch.stack([t.segmentation for t in batch.targets]).long()  # type: ignore[misc]
    for name, weight, logits in (("seg_loss", 1.0, outputs["logits"]), ("aux_seg_loss", 0.1, outputs["aux_logits"])):
        enlarged = F.interpolate(logits, size=(65, 97), mode="bilinear", align_corners=True)
        torch.testing.assert_close(terms[name], weight * F.cross_entropy(enlarged, truth, ignore_index=255))


def test_a_batch_without_labelled_pixels_costs_nothing_and_keeps_its_gradient() -> None:
    model, batch = small(auxiliary=True).train(), batch_of((65, 97))
    batch.targets[0].segmentation = torch.full((65, 97), 255, dtype=torch.uint8)
    terms = model.losses(model(batch), batch)
    assert {name: term.item() for name, term in terms.items()} == {"seg_loss": 0.0, "aux_seg_loss": 0.0}
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and not p.grad.any() for p in model.head.parameters())


def test_one_class_is_learned_and_predicted() -> None:
    model, batch = small(classes=("road",)).train(), batch_of((65, 97))
    batch.targets[0].segmentation = torch.zeros(65, 97, dtype=torch.uint8)
    assert model.losses(model(batch), batch)["seg_loss"].item() == 0.0
    found = maps_of(model, batch)[0]
    assert not found.labels.any() and bool((found.scores == 1).all())


def test_it_learns_a_small_picture_by_heart() -> None:
    model = DeepLabV2(classes=CLASSES, backbone=TimmBackbone(name="resnet10t", out_indices=[2, 3]), auxiliary=True, rates=[1, 2, 3, 4]).train()
    sample = make_sample(picture(64, 64), Annotations(segmentation=torch.zeros(64, 64, dtype=torch.uint8)))
    sample.segmentation[:, 32:], sample.image[:, :, 32:] = 1, 250  # type: ignore[index]
    batch = collate([sample, sample])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = sum(model.losses(model(batch), batch).values())
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
    with torch.no_grad():
        found = model.predictions(model(batch), batch)[0]
    assert isinstance(found, SegmentationMap)
    assert float((found.labels == sample.segmentation).float().mean()) > 0.95  # type: ignore[union-attr]


@pytest.mark.parametrize("head", ["aspp2", "aspp4", "aspp_gn_se"])
@pytest.mark.parametrize(("size", "canvas"), [((65, 97), (129, 129)), ((64, 98), (97, 129)), ((70, 75), (131, 76)), ((71, 90), (72, 96))])
def test_padding_does_not_change_predictions(head: str, size: tuple[int, int], canvas: tuple[int, int]) -> None:
    model = small(head, auxiliary=head != "aspp_gn_se")
    alone, beside = batch_of(size), batch_of(size, canvas)
    assert beside.padding is not None
    expected, got = maps_of(model, alone)[0], maps_of(model, beside)[0]
    assert got.scores is not None and expected.scores is not None and got.coarse is not None and expected.coarse is not None
    torch.testing.assert_close(got.coarse, expected.coarse, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got.scores, expected.scores, atol=1e-5, rtol=1e-4)
    assert float((got.labels != expected.labels).float().mean()) < 1e-3
    other = collate(samples_of(size, canvas)[1:])
    with torch.no_grad():
        together, first, second = (model.losses(model(batch), batch) for batch in (beside, alone, other))
    shares = [float((b.targets[0].segmentation != 255).sum()) for b in (alone, other)]  # type: ignore[union-attr]
    for name, term in together.items():
        torch.testing.assert_close(term, (shares[0] * first[name] + shares[1] * second[name]) / sum(shares), atol=1e-5, rtol=1e-4)


def test_a_copy_hides_padding_from_its_own_backbone() -> None:
    model = small()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        model.backbone.body.conv1.weight.zero_()  # type: ignore[union-attr]
    alone, beside = maps_of(twin, batch_of((70, 75)))[0], maps_of(twin, batch_of((70, 75), (97, 129)))[0]
    assert alone.coarse is not None and beside.coarse is not None
    torch.testing.assert_close(beside.coarse, alone.coarse, atol=1e-5, rtol=1e-4)


def test_padding_shows_in_the_maps_of_a_mixed_batch() -> None:
    model = small(auxiliary=True).eval()
    with torch.no_grad():
        outputs = model(batch_of((65, 97), (97, 129)))
    assert outputs["logits"].shape[-2:] == (13, 17)
    for name in ("padding", "aux_padding"):
        assert (~outputs[name]).sum((1, 2)).tolist() == [9 * 13, 13 * 17]


@pytest.mark.parametrize("original", [(90, 200), (33, 40), (65, 97)])
def test_resized_pictures_are_labelled_in_their_original_size(original: tuple[int, int]) -> None:
    model, sample = small(), make_sample(picture(*original), dataset="streets", id="a.png")
    small_sample = replace(sample, image=TF.resize(sample.image, [65, 97]))
    small_sample = replace(small_sample, meta=replace(sample.meta, geometry=TF.resize(sample.meta.geometry, [65, 97])))  # type: ignore[arg-type]
    batch = collate([small_sample])
    found = maps_of(model, batch)[0]
    with torch.no_grad():
        logits = model(batch)["logits"]
    expected = resize_maps(logits, original).softmax(1)[0]
    assert found.scores is not None and found.coarse is not None
    assert torch.equal(found.labels, expected.argmax(0)) and found.labels.shape == original
    torch.testing.assert_close(found.scores, expected.amax(0))
    torch.testing.assert_close(found.coarse, logits.softmax(1)[0])


def test_flipped_and_cropped_pictures_find_their_way_back() -> None:
    model, batch = small(), batch_of((64, 96), labels=False)
    plain = maps_of(model, batch)[0]
    flipped = Geometry.identity((64, 96)).after(torch.tensor([[-1.0, 0, 96], [0, 1, 0], [0, 0, 1]], dtype=torch.float64), (64, 96))
    mirrored = maps_of(model, replace(batch, metas=[replace(batch.metas[0], geometry=flipped)]))[0]
    assert float((mirrored.labels == plain.labels.flip(1)).float().mean()) > 0.999
    # As if the picture were the middle of one of 80 x 110 pixels: what lies outside takes the nearest label.
    inside = Geometry.identity((64, 96)).after(torch.tensor([[1.0, 0, 7], [0, 1, 8], [0, 0, 1]], dtype=torch.float64), (64, 96))
    whole = maps_of(model, replace(batch, metas=[Meta(original_size=(80, 110), geometry=inside)]))[0]
    assert whole.labels.shape == (80, 110)
    assert float((whole.labels[8:72, 7:103] == plain.labels).float().mean()) > 0.999
    assert torch.equal(whole.labels[0, 7:103], whole.labels[8, 7:103])


def test_wrong_and_missing_label_maps_are_named_with_their_image() -> None:
    model = small()
    batch = batch_of((65, 97), labels=False)
    outputs = model(batch)
    with pytest.raises(DataError, match=r"streets 0\.png: this image has no label map"):
        model.losses(outputs, batch)
    batch.targets[0].segmentation = torch.zeros(65, 96, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"label map is \(65, 96\) pixels, the image \(65, 97\)"):
        model.losses(outputs, batch)
    batch.targets[0].segmentation = torch.full((65, 97), 3, dtype=torch.uint8)
    with pytest.raises(DataError, match="the label 3 does not fit 3 classes"):
        model.losses(outputs, batch)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="has none beside it"):
        small("aspp_gn_se", auxiliary=True)
    with pytest.raises(ValueError, match="gives one, of 1024 channels"), torch.device("meta"):
        DeepLabV2(classes=CLASSES, backbone=DeepLabVGG16(), auxiliary=True)


@pytest.mark.parametrize(("norm", "moves"), [("batch", True), ("eval", False)], ids=["AdaptSegNet and ADVENT", "ProDA's warm-up"])
def test_statistics_move_in_train_mode_where_the_original_moves_them(norm: str, moves: bool) -> None:
    backbone = TimmBackbone(name="resnet18", out_indices=[3, 4], norm=norm, norm_affine=False, **RESNET)  # type: ignore[arg-type]
    model, batch = small(backbone=backbone).train(), batch_of((65, 97))
    before = {name: value.clone() for name, value in model.state_dict().items() if name.endswith("running_mean")}
    model(batch)
    assert [not torch.equal(model.state_dict()[name], value) for name, value in before.items()] == [moves] * len(before)
    assert not any(p.requires_grad for name, p in model.named_parameters() if ".bn" in name)


@pytest.mark.parametrize(("head", "names"), [("aspp2", ("logits", "embeddings", "aux_logits")), ("aspp_gn_se", ("logits", "embeddings"))])
def test_it_is_exported_with_its_logits(head: str, names: tuple[str, ...]) -> None:
    pytest.importorskip("onnxruntime")
    from saccade.weights.export import export_onnx

    assert export_onnx(small(head, auxiliary=head == "aspp2"), (48, 64), dynamic_batch=False).outputs == names
