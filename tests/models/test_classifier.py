"""The image classifier: sizes, losses, predictions, what it refuses, and its recipes."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.errors import DataError, InputError
from saccade.layers.backbone import TimmBackbone
from saccade.layers.cifar_resnet import CifarResNet
from saccade.layers.classification_losses import CrossEntropy
from saccade.layers.encoder import TimmEncoder
from saccade.layers.heads import GeneralizedMean
from saccade.layers.lenet import LeNet5
from saccade.layers.shufflenet_v1 import ShuffleNetV1, shuffle_channels
from saccade.models.classifier import ImageClassifier
from saccade.recipes import build, check, load_recipe, zoo_names
from saccade.structures import Annotations, Batch, Meta
from saccade.weights.load import load_into

torch.set_num_threads(1)
CLASSES = ("cat", "dog", "hen")
RECIPES = [
    name for name in zoo_names()
    if not name.startswith("_") and (load_recipe(name).section("model") or {}).get("type") == "ImageClassifier"
]


def batch_of(labels: list[int | torch.Tensor | None], size: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (len(labels), 3, size, size), generator=generator, dtype=torch.uint8)
    return Batch(images, [Annotations(label=label) for label in labels], [Meta(dataset="animals", id=f"{i}.jpg") for i in range(len(labels))])


def small_classifier(**arguments: object) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(classes=CLASSES, backbone=TimmBackbone(name="resnet10t", out_indices=[4]), **arguments)  # type: ignore[arg-type]


def test_it_learns_a_small_batch_by_heart() -> None:
    model, batch = small_classifier().train(), batch_of([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        terms = model.losses(model(batch), batch)
        optimizer.zero_grad()
        terms["cls_loss"].backward()
        optimizer.step()
        losses.append(terms["cls_loss"].item())
    assert set(terms) == {"cls_loss"}
    assert losses[0] == pytest.approx(1.1, abs=0.4) and losses[-1] < 0.1
    assert [p.label for p in model.predictions(model(batch), batch)] == [0, 1, 2, 0, 1, 2]  # type: ignore[union-attr]


@torch.no_grad()
def test_one_label_sums_to_one_and_several_are_independent() -> None:
    batch = batch_of([0, 1])
    single, several = small_classifier().eval(), small_classifier(multi_label=True).eval()
    outputs = single(batch)
    torch.testing.assert_close(torch.stack([p.scores for p in single.predictions(outputs, batch)]), outputs["logits"].softmax(1))
    torch.testing.assert_close(torch.stack([p.scores for p in several.predictions(outputs, batch)]), outputs["logits"].sigmoid())


@torch.no_grad()
def test_mixed_labels_and_plain_ones_give_the_same_loss() -> None:
    model = small_classifier(loss=CrossEntropy(label_smoothing=0.1)).eval()
    plain, soft = batch_of([2, 0]), batch_of([torch.tensor([0.0, 0, 1]), 0])
    outputs = model(plain)
    torch.testing.assert_close(model.losses(outputs, plain), model.losses(outputs, soft))


@torch.no_grad()
def test_difficult_classes_count_as_present_in_training() -> None:
    model = small_classifier(multi_label=True).eval()
    difficult, present = batch_of([torch.tensor([1.0, -1, 0])]), batch_of([torch.tensor([1.0, 1, 0])])
    outputs = model(present)
    torch.testing.assert_close(model.losses(outputs, difficult), model.losses(outputs, present))


@pytest.mark.parametrize(("label", "message"), [
    (None, r"animals 1\.jpg: this image has no label"), (3, r"animals 1\.jpg: the label 3 does not fit 3 classes"),
    (-1, "the label -1"), (torch.zeros(4), r"of shape \(4,\) does not fit 3 classes"),
])
def test_a_wrong_label_is_named_with_its_image(label: int | None, message: str) -> None:
    batch = batch_of([0, label])
    with pytest.raises(DataError, match=message):
        small_classifier().losses({"logits": torch.zeros(2, 3)}, batch)


def test_pooling_is_the_average_the_maximum_or_between() -> None:
    features = torch.rand(2, 8, 3, 4) + 0.1
    torch.testing.assert_close(GeneralizedMean(p=1.0)(features), features.mean((2, 3)))
    torch.testing.assert_close(GeneralizedMean(p=200.0)(features.double()).float(), features.amax((2, 3)), rtol=0.02, atol=0)
    with torch.no_grad():
        outputs = small_classifier(pooling="max").eval()(batch_of([0]))
    torch.testing.assert_close(outputs["pooled"], outputs["features"][-1].amax((2, 3)))
    model = small_classifier(pooling="gem")
    model(batch_of([0, 1]))["logits"].sum().backward()
    assert model.pooling.p.grad is not None and model.pooling.p.grad.abs() > 0  # type: ignore[union-attr]


def test_networks_that_pool_themselves_refuse_another_pooling() -> None:
    with torch.device("meta"), pytest.raises(InputError, match="TimmEncoder pools by itself"):
        ImageClassifier(classes=CLASSES, backbone=TimmEncoder(name="mobilenetv2_050"), pooling="avg")
    with pytest.raises(InputError, match="Linear can't be a backbone"):
        ImageClassifier(classes=CLASSES, backbone=nn.Linear(2, 2))


def test_pixel_statistics_come_with_the_network() -> None:
    with torch.device("meta"):
        assert ImageClassifier(classes=CLASSES, backbone=TimmEncoder(name="vit_tiny_patch16_224")).pixel_norm.mean == (127.5, 127.5, 127.5)
        assert ImageClassifier(classes=CLASSES, backbone=CifarResNet()).pixel_norm.mean == (123.675, 116.28, 103.53)


def test_only_the_last_layer_is_drawn_anew_for_other_classes() -> None:
    model = small_classifier()
    other = ImageClassifier(classes=("a", "b"), backbone=TimmBackbone(name="resnet10t", out_indices=[4]))
    with pytest.raises(InputError, match="reinitialise"):
        load_into(other, model.state_dict())
    report = load_into(other, model.state_dict(), reinitialise=["heads"])
    assert set(report.reinitialised) == {"head.fc.weight", "head.fc.bias"} and not report.missing
    assert torch.equal(other.backbone.body.conv1[0].weight, model.backbone.body.conv1[0].weight)  # type: ignore[union-attr,index]


def test_a_lenet_takes_32_pixels_only() -> None:
    assert LeNet5()(torch.zeros(2, 3, 32, 32))[0].shape == (2, 84)
    with pytest.raises(InputError, match="28 x 28"):
        LeNet5()(torch.zeros(2, 3, 28, 28))


def test_shuffling_deals_the_channels_of_each_group_out() -> None:
    assert shuffle_channels(torch.arange(6).reshape(1, 6, 1, 1), 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    assert [tuple(m.shape[1:]) for m in ShuffleNetV1().eval()(torch.zeros(1, 3, 64, 64))] == [(240, 8, 8), (480, 4, 4), (960, 2, 2)]


def test_a_cifar_resnet_pads_its_shortcuts_with_zeros() -> None:
    network = CifarResNet(depth=20).eval()
    for layer in network.layer2[0].modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    x = torch.rand(1, 16, 8, 8)
    out = network.layer2[0](x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2]) and not out[:, :8].any() and not out[:, 24:].any()


# Parameters in millions: from the papers and from the reference's own models.
PARAMETERS = {
    "resnet18_imagenet": 11.690, "resnet50_imagenet": 25.557, "resnet152_imagenet": 60.193, "resnetv1d50_imagenet": 25.576,
    "resnext50_32x4d_imagenet": 25.029, "resnext152_32x4d_imagenet": 59.951, "seresnet50_imagenet": 28.088, "seresnext50_32x4d_imagenet": 27.560,
    "resnest50_imagenet": 27.483, "regnetx_400mf_imagenet": 5.158, "regnetx_12gf_imagenet": 46.106, "mobilenet_v2_imagenet": 3.505,
    "shufflenet_v1_imagenet": 1.866, "shufflenet_v2_imagenet": 2.279, "vgg16_imagenet": 138.358, "vgg16_bn_imagenet": 138.366,
    "resnet20_cifar10": 0.270, "lenet5_mnist": 0.0617,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_recipes_build_networks_of_the_published_size(name: str) -> None:
    labels = 10 if name.endswith(("cifar10", "mnist")) else 1000
    with torch.device("meta"):
        model = build(load_recipe(name).section("model"), classes=[str(label) for label in range(labels)])
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(PARAMETERS[name], abs=6e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_every_classifier_recipe_is_valid_and_says_how_to_run_it(name: str) -> None:
    recipe = load_recipe(name)
    check(recipe)
    assert f"Command: saccade train {name}" in recipe.header and "Hardware: " in recipe.header
