"""Files of AdaptSegNet, ADVENT and ProDA: told by their names and shapes, read into DeepLabV2, and written back as they were."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from saccade.cli import main
from saccade.errors import InputError
from saccade.layers.backbone import TimmBackbone
from saccade.layers.deeplab_vgg import DeepLabVGG16
from saccade.layers.discriminator import Discriminator
from saccade.models.deeplab import DeepLabV2
from saccade.weights.load import load_into, read_tensors, translate
from saccade.weights.maps import key_map, recognise

torch.set_num_threads(1)
CASES = Path(__file__).parents[1] / "parity" / "cases"
CLASSES = tuple(f"class {k}" for k in range(19))
DILATED: dict[str, Any] = {"output_stride": 8, "first_block_dilation": "own", "ceil_pooling": True, "stride_in": "1x1"}
Tensors = dict[str, Tensor]


def on_meta(backbone: str = "resnet101", **arguments: Any) -> DeepLabV2:
    """A DeepLabV2 without memory: names and shapes are all that is needed."""
    with torch.device("meta"):
        made = DeepLabVGG16() if backbone == "vgg16" else TimmBackbone(name=backbone, out_indices=[3, 4], **DILATED)
        return DeepLabV2(classes=CLASSES, backbone=made, **arguments)


def small(seed: int = 0, **arguments: Any) -> DeepLabV2:
    torch.manual_seed(seed)
    backbone = TimmBackbone(name="resnet18", out_indices=[3, 4], options={"zero_init_last": False})
    return DeepLabV2(classes=CLASSES, backbone=backbone, **arguments)


def listed(case: str) -> dict[str, tuple[int, ...]]:
    """The published names and shapes of a parity case."""
    return {entry["key"]: tuple(entry["shape"]) for entry in json.loads((CASES / case / "manifest.json").read_text())["tensors"]}


def shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in tensors.items()}


def same(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def empty(names: dict[str, tuple[int, ...]]) -> Tensors:
    return {key: torch.empty(shape, device="meta") for key, shape in names.items()}


MULTI = listed("deeplabv2_r101_multi")
SINGLE = {key: shape for key, shape in MULTI.items() if not key.startswith("layer5.")}  # ADVENT's: the main head is layer6
ONLY = {key.replace("layer6.", "layer5."): shape for key, shape in SINGLE.items()}  # AdaptSegNet's: it is layer5
PUBLISHED: dict[str, tuple[str, dict[str, tuple[int, ...]], DeepLabV2]] = {
    "AdaptSegNet, two heads": ("adaptsegnet", MULTI, on_meta(head="aspp2", auxiliary=True)),
    "AdaptSegNet, one head": ("adaptsegnet", ONLY, on_meta(head="aspp2")),
    "AdaptSegNet, VGG": ("adaptsegnet", listed("deeplab_vgg16"), on_meta("vgg16", head="aspp2")),
    "ADVENT, two heads": ("adaptsegnet", listed("advent_deeplabv2_r101"), on_meta(head="aspp4", auxiliary=True)),
    "ADVENT, one head": ("advent", SINGLE, on_meta(head="aspp4")),
    "ProDA": ("proda", listed("proda_deeplab"), on_meta(head="aspp_gn_se")),
    "ProDA after SimCLR": ("proda", listed("proda_deeplab") | {
        f"bn_pretrain.{leaf}": (2048,) for leaf in ("weight", "bias", "running_mean", "running_var")
    } | {"bn_pretrain.num_batches_tracked": ()}, on_meta(head="aspp_gn_se", feature_norm=True)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names_are_told_and_fit_both_ways(name: str) -> None:
    origin, names, model = PUBLISHED[name]
    assert recognise(list(names)) == origin
    assert shapes(translate(empty(names), model, "auto")[1]) == shapes(model.state_dict())
    assert shapes(key_map(origin).from_saccade(model.state_dict(), model)) == names


@pytest.mark.parametrize(("origin", "arguments"), [
    ("adaptsegnet", {"auxiliary": True}), ("adaptsegnet", {}), ("advent", {}), ("advent", {"auxiliary": True}), ("deeplab_init", {"auxiliary": True}),
    ("proda", {"head": "aspp_gn_se"}), ("proda", {"head": "aspp_gn_se", "feature_norm": True}),
])
def test_values_come_back_as_they_went(origin: str, arguments: dict[str, Any]) -> None:
    model, fresh = small(**arguments), small(seed=1, **arguments)
    theirs = key_map(origin).from_saccade(model.state_dict(), model)
    if origin == "deeplab_init":  # all of it but the heads, which such a file has for other classes
        load_into(fresh, theirs, missing=["head.", "aux_head.", "layer6."])
        assert same(fresh.backbone.state_dict(), model.backbone.state_dict())
        return
    report = load_into(fresh, theirs)
    assert not report.missing and not report.unexpected and same(fresh.state_dict(), model.state_dict())
    assert same(key_map(origin).from_saccade(fresh.state_dict(), fresh), theirs)


def test_the_main_head_of_two_is_taken_alone_when_the_other_is_named() -> None:
    model, single = small(auxiliary=True), small(seed=1)
    theirs = key_map("adaptsegnet").from_saccade(model.state_dict(), model)
    with pytest.raises(InputError, match="layer5"):
        load_into(single, theirs)
    load_into(single, theirs, missing=["layer5."])
    assert same(single.head.state_dict(), model.head.state_dict())


@pytest.mark.parametrize("head", ["aspp4", "aspp_gn_se"])
def test_only_the_layers_of_the_classes_are_drawn_anew_for_other_classes(head: str) -> None:
    model = small(head=head)
    few = DeepLabV2(classes=["a", "b"], backbone=TimmBackbone(name="resnet18", out_indices=[3, 4]), head=head)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="heads"):
        load_into(few, model.state_dict())
    report = load_into(few, model.state_dict(), reinitialise=["heads"])
    assert len(report.reinitialised) == (8 if head == "aspp4" else 1)
    assert same(few.backbone.state_dict(), model.backbone.state_dict())


def test_files_without_counters_are_read() -> None:
    model, fresh = small(auxiliary=True), small(seed=1, auxiliary=True)
    theirs = key_map("adaptsegnet").from_saccade(model.state_dict(), model)
    old = {key: value for key, value in theirs.items() if not key.endswith("num_batches_tracked")}
    report = load_into(fresh, old)
    assert len(report.matched) == len(old) < len(theirs)
    assert torch.equal(fresh.backbone.body.bn1.running_mean, model.backbone.body.bn1.running_mean)  # type: ignore[union-attr]
    assert len([key for key in MULTI if not key.endswith("num_batches_tracked")]) == 536 and len(MULTI) == 640


def test_frozen_norms_take_files_with_counters() -> None:
    frozen = DeepLabV2(classes=CLASSES, backbone=TimmBackbone(name="resnet18", out_indices=[3, 4], norm="frozen"))
    load_into(frozen, key_map("adaptsegnet").from_saccade(small().state_dict(), small()))


def test_the_common_beginning_fills_the_backbone_and_its_head_goes() -> None:
    model, backbone = small(), TimmBackbone(name="resnet18", out_indices=[3, 4], **{k: v for k, v in DILATED.items() if k != "stride_in"})
    file = {f"Scale.{key.removeprefix('body.')}": value for key, value in model.backbone.state_dict().items()}
    file |= {f"Scale.layer5.conv2d_list.{branch}.{leaf}": torch.zeros(21) for branch in range(4) for leaf in ("weight", "bias")}
    report = load_into(backbone, file)
    assert report.origin == "deeplab_init" and not report.unexpected
    assert same(backbone.state_dict(), model.backbone.state_dict())


def test_torchvisions_networks_fill_dilated_backbones() -> None:
    with torch.device("meta"):
        resnet, vgg = torchvision.models.resnet101(weights=None).state_dict(), torchvision.models.vgg16(weights=None).state_dict()
        dilated, without_pools = TimmBackbone(name="resnet101", out_indices=[3, 4], **DILATED), DeepLabVGG16()
    names = shapes(translate(resnet, dilated, "auto")[1])
    assert {key: shape for key, shape in names.items() if not key.startswith("fc.")} == shapes(dilated.state_dict())
    origin, found = translate(vgg, without_pools, "auto")
    own = shapes(without_pools.state_dict())
    assert origin == "torchvision" and set(own) - set(found) == {f"features.{n}.{leaf}" for n in (29, 31) for leaf in ("weight", "bias")}
    assert {key: shape for key, shape in shapes(found).items() if not key.startswith("classifier.")}.items() <= own.items()
    assert found["features.27.weight"] is vgg["features.28.weight"]


@pytest.mark.parametrize(("case", "origin", "preset"), [
    ("fc_discriminator", "fc_discriminator", "adaptsegnet"), ("advent_discriminator", "advent_discriminator", "adaptsegnet"),
    ("proda_discriminator", "fc_discriminator", "proda"),
])
def test_discriminators_are_told_and_fit_both_ways(case: str, origin: str, preset: str) -> None:
    names, network = listed(case), Discriminator(preset=preset).build(19)  # type: ignore[arg-type]
    assert recognise(list(names)) == origin
    theirs = key_map(origin).from_saccade(network.state_dict(), network)
    assert shapes(theirs) == names
    fresh = Discriminator(preset=preset).build(19)  # type: ignore[arg-type]
    assert not load_into(fresh, theirs).unexpected and same(fresh.state_dict(), network.state_dict())
    other = Discriminator(preset="proda" if preset == "adaptsegnet" else "adaptsegnet").build(19)
    with pytest.raises(InputError, match="other shape"):
        load_into(other, theirs)


@pytest.fixture
def proda_checkpoint(tmp_path: Path) -> tuple[Path, DeepLabV2, nn.Module]:
    """A file as ProDA writes it after its warm-up."""
    model, discriminator = small(head="aspp_gn_se"), Discriminator(preset="proda").build(19)
    member = {"model_state": key_map("proda").from_saccade(model.state_dict(), model), "objective_vectors": torch.arange(38.0).reshape(19, 2)}
    players = {"ResNet101": member, "FCDiscriminator": {
        "model_state": key_map("fc_discriminator").from_saccade(discriminator.state_dict(), discriminator),
        "objective_vectors": member["objective_vectors"],
    }}
    torch.save(players | {"iter": 1000, "best_iou": np.float64(0.433)}, tmp_path / "from_gta5_to_cityscapes_on_deeplabv2_best_model.pkl")
    return tmp_path / "from_gta5_to_cityscapes_on_deeplabv2_best_model.pkl", model, discriminator


def test_prodas_checkpoint_is_read_without_running_anything(proda_checkpoint: tuple[Path, DeepLabV2, nn.Module]) -> None:
    path, model, discriminator = proda_checkpoint
    fresh, opponent = small(seed=1, head="aspp_gn_se"), Discriminator(preset="proda").build(19)
    assert load_into(fresh, read_tensors(path)).origin == "proda" and same(fresh.state_dict(), model.state_dict())
    load_into(opponent, read_tensors(f"{path}#FCDiscriminator.model_state"))
    assert same(opponent.state_dict(), discriminator.state_dict())
    assert read_tensors(f"{path}#ResNet101.objective_vectors")["objective_vectors"].shape == (19, 2)
    with pytest.raises(InputError, match=r"no member 'ResNet50'; it has ResNet101, FCDiscriminator, iter, best_iou"):
        read_tensors(f"{path}#ResNet50")


def test_a_file_that_is_one_tensor_is_read(tmp_path: Path) -> None:
    torch.save(torch.ones(19, 256), tmp_path / "prototypes_on_cityscapes_from_deeplabv2")
    assert shapes(read_tensors(tmp_path / "prototypes_on_cityscapes_from_deeplabv2")) == {"tensor": (19, 256)}


def test_a_hash_in_a_name_is_part_of_it(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "run#3.pth")
    assert shapes(read_tensors(tmp_path / "run#3.pth")) == {"a": (2,)}


RECIPE = """\
model: {type: DeepLabV2, classes: [a, b], head: HEAD, backbone: {type: TimmBackbone, name: resnet18, out_indices: [3, 4]}}
"""


def run(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (0, None)


@pytest.mark.parametrize(("origin", "head", "member"), [("advent", "aspp4", ""), ("proda", "aspp_gn_se", "#ResNet101.model_state")])
def test_the_command_converts_and_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str], origin: str, head: str, member: str) -> None:
    model = DeepLabV2(classes=["a", "b"], backbone=TimmBackbone(name="resnet18", out_indices=[3, 4]), head=head)  # type: ignore[arg-type]
    torch.save(model.state_dict(), tmp_path / "own.pth")
    (tmp_path / "small.yaml").write_text(RECIPE.replace("HEAD", head))
    recipe, there, back = (str(tmp_path / name) for name in ("small.yaml", "there.pth", "back.safetensors"))
    run(["weights", "convert", str(tmp_path / "own.pth"), "--to", origin, "--recipe", recipe, "--out", there])
    run(["weights", "convert", there + member, "--to", "safetensors", "--recipe", recipe, "--out", back])
    assert f"({origin} names)" in capsys.readouterr().out and same(read_tensors(back), model.state_dict())
    run(["weights", "show", there, "--diff", recipe])
    shown = capsys.readouterr().out
    assert f"names translated from {origin}" in shown and "only" not in shown
