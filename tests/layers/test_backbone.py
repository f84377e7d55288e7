"""The shared backbone layer: what detectors and segmenters do to a timm network, and what it refuses."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from saccade.errors import InputError
from saccade.layers.backbone import TimmBackbone
from saccade.layers.encoder import TimmEncoder, TorchvisionEncoder
from saccade.layers.normalization import FrozenBatchNorm2d, batch_norms, freeze_batch_norms

torch.set_num_threads(1)


def shake_norms(network: nn.Module) -> None:
    """Statistics and affine parameters as after training, so that a norm left out would show."""
    generator = torch.Generator().manual_seed(0)
    for layer in batch_norms(network).values():
        for value in (layer.running_mean, layer.bias.data):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        for value in (layer.running_var, layer.weight.data):
            value.copy_(0.75 + 0.5 * torch.rand(value.shape, generator=generator))


def shapes_on_meta(size: tuple[int, int], **arguments: Any) -> list[tuple[int, ...]]:
    """Shapes of the maps of one image of `size`, computed without memory or arithmetic."""
    with torch.device("meta"):
        backbone = TimmBackbone(**arguments).eval()
        return [tuple(m.shape[1:]) for m in backbone(torch.zeros(1, 3, *size))]


def torchvision_maps(network: nn.Module, images: Tensor) -> list[Tensor]:
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    maps = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        maps.append(x)
    return maps


def pair(arguments: dict[str, Any], **torchvision_arguments: Any) -> tuple[TimmBackbone, nn.Module]:
    """A backbone and torchvision's ResNet-50 with equal weights, in eval mode."""
    torch.manual_seed(0)
    reference = torchvision.models.resnet50(weights=None, **torchvision_arguments).eval()
    shake_norms(reference)
    backbone = TimmBackbone(name="resnet50", **arguments).eval()
    body = {key: value for key, value in reference.state_dict().items() if not key.startswith("fc.")}
    backbone.body.load_state_dict(body, strict=True)
    return backbone, reference


@torch.no_grad()
def test_frozen_norm_equals_torchvision_and_learns_nothing() -> None:
    norm, reference, x = FrozenBatchNorm2d(channels=5), torchvision.ops.FrozenBatchNorm2d(5), torch.randn(2, 5, 4, 3)
    state = {"weight": torch.rand(5) + 0.5, "bias": torch.randn(5), "running_mean": torch.randn(5), "running_var": torch.rand(5) + 0.5}
    norm.load_state_dict(state | {"num_batches_tracked": torch.tensor(7)})
    reference.load_state_dict(state)
    torch.testing.assert_close(norm.train()(x), reference(x))
    assert not list(norm.parameters()) and set(norm.state_dict()) == set(state)


@torch.no_grad()
def test_freezing_keeps_the_outputs_and_the_fused_activations() -> None:
    network, x = timm.create_model("mobilenetv3_small_050", num_classes=0).eval(), torch.randn(1, 3, 64, 64)
    shake_norms(network)
    before = network(x)
    assert freeze_batch_norms(network) > 20 and not batch_norms(network)
    torch.testing.assert_close(network.train()(x), before)


@torch.no_grad()
def test_resnet_names_and_values_are_torchvisions() -> None:
    (backbone, reference), images = pair({}), torch.randn(1, 3, 96, 64)
    torch.testing.assert_close(backbone(images), torchvision_maps(reference, images))
    assert (backbone.channels, backbone.strides) == ([256, 512, 1024, 2048], [4, 8, 16, 32])


@torch.no_grad()
def test_a_dilated_last_stage_with_frozen_norms_is_detrs_dc5() -> None:
    arguments = {"out_indices": [-1], "norm": "frozen", "output_stride": 16, "frozen_stages": 1}
    (backbone, reference), images = pair(arguments, replace_stride_with_dilation=[False, False, True]), torch.randn(1, 3, 96, 64)
    maps = backbone.train()(images)
    torch.testing.assert_close(maps, torchvision_maps(reference, images)[-1:])
    assert backbone.strides == [16] and maps[0].shape == (1, 2048, 6, 4)
    assert {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad} == {"layer2", "layer3", "layer4"}


@torch.no_grad()
def test_caffe_style_moves_the_stride_to_the_first_convolution() -> None:
    (backbone, reference), images = pair({"stride_in": "1x1"}), torch.randn(1, 3, 97, 64)
    for stage in (reference.layer2, reference.layer3, reference.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    torch.testing.assert_close(backbone(images), torchvision_maps(reference, images))


@pytest.mark.parametrize(("size", "expected"), [
    ((512, 1024), (65, 129)), ((720, 1280), (91, 161)), ((760, 1280), (96, 161)), ((512, 896), (65, 113)), ((1024, 2048), (129, 257)),
])
def test_deeplab_sizes_are_those_of_the_original(size: tuple[int, int], expected: tuple[int, int]) -> None:
    deeplab: dict[str, Any] = {
        "name": "resnet101", "output_stride": 8, "first_block_dilation": "own", "stride_in": "1x1", "ceil_pooling": True, "norm_affine": False,
    }
    assert [shape[1:] for shape in shapes_on_meta(size, **deeplab)][1:] == [expected] * 3


def test_deeplab_dilates_every_block_of_a_stage_alike() -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(name="resnet50", output_stride=8, first_block_dilation="own", norm_affine=False)
    dilations = {stage: {block.conv2.dilation + block.conv2.padding for block in getattr(backbone.body, stage)} for stage in ("layer3", "layer4")}
    assert dilations == {"layer3": {(2, 2, 2, 2)}, "layer4": {(4, 4, 4, 4)}}
    assert not any(p.requires_grad for name, p in backbone.named_parameters() if ".bn" in name)
    assert batch_norms(backbone.train())["body.bn1"].training


def test_qdtracks_frozen_parameters_are_counted() -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(name="resnet50", norm="eval", norm_affine=False, frozen_stages=1, stride_in="1x1")
    assert sum(p.numel() for p in backbone.parameters()) == 23_508_032
    assert sum(p.numel() for p in backbone.parameters() if not p.requires_grad) == 275_520


@pytest.mark.parametrize("arguments", [{"frozen_stages": 1}, {"norm": "eval"}, {"norm": "frozen"}], ids=str)
def test_what_is_frozen_stays_through_a_training_step(arguments: dict[str, Any]) -> None:
    backbone = TimmBackbone(name="resnet18", options={"zero_init_last": False}, **arguments).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    sum(m.square().mean() for m in backbone(torch.randn(2, 3, 64, 64))).backward()
    optimizer.step()
    changed = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    statistics = {key for key in changed if "running" in key}
    if "frozen_stages" in arguments:
        assert not any(key.startswith(("body.conv1", "body.bn1", "body.layer1")) for key in changed) and statistics
    else:
        assert not statistics
    assert "body.layer4.1.conv2.weight" in changed


@pytest.mark.parametrize("name", [
    "resnet10t", "resnext50_32x4d", "seresnet50", "resnest50d", "regnetx_004", "mobilenetv2_100", "mobilenetv3_large_100", "tf_efficientnet_b3",
    "vgg16_bn", "densenet121", "convnext_atto", "pvt_v2_b0", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224",
])
def test_any_timm_network_says_what_it_gives(name: str) -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(name=name, frozen_stages=1)
        maps = backbone.eval()(torch.zeros(1, 3, 224, 224))
    assert [m.shape[1] for m in maps] == backbone.channels
    assert [224 // m.shape[2] for m in maps] == backbone.strides
    assert min(backbone.strides) >= 4
    frozen = [p.requires_grad for p in backbone.parameters()]
    assert frozen == sorted(frozen) and len(set(frozen)) == 2  # the first ones and no others


@pytest.mark.parametrize("arguments", [{"norm": "frozen"}, {"norm_affine": False}], ids=str)
def test_scales_that_never_learn_do_not_start_at_zero(arguments: dict[str, Any]) -> None:
    assert all(value.all() for key, value in TimmBackbone(name="resnet18", **arguments).state_dict().items() if key.endswith("bn2.weight"))
    assert not TimmBackbone(name="resnet18").state_dict()["body.layer1.0.bn2.weight"].any()


def test_levels_are_chosen_by_number_from_either_end() -> None:
    with torch.device("meta"):
        assert TimmBackbone(name="resnet18", out_indices=[-1, 2]).strides == [8, 32]
        assert TimmBackbone(name="resnet18", out_indices=[0]).channels == [64]


def test_a_cifar_stem_keeps_the_resolution() -> None:
    assert shapes_on_meta((32, 32), name="resnet18", stem="cifar") == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_weights_come_from_a_file_with_timms_names(tmp_path: Path) -> None:
    network = timm.create_model("resnet10t")
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    backbone = TimmBackbone(name="resnet10t", pretrained=str(tmp_path / "weights.safetensors"))
    assert torch.equal(backbone.body.conv1[0].weight, network.conv1[0].weight)
    assert torch.equal(backbone.body.layer4[0].bn2.weight, network.layer4[0].bn2.weight)


def test_no_network_is_said_with_the_name_and_the_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"resnet10t can't be downloaded.*pretrained: false"):
        TimmBackbone(name="resnet10t", pretrained=True)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"name": "resnet51"}, "near: .*resnet50"),
    ({"name": "resnet18", "out_indices": [5]}, r"levels 0\.\.4"),
    ({"name": "resnet18", "out_indices": []}, r"levels 0\.\.4"),
    ({"name": "resnet18", "frozen_stages": 5}, "4 stages"),
    ({"name": "resnet18", "stride_in": "1x1"}, "bottlenecks"),
    ({"name": "pvt_v2_b0", "norm": "frozen"}, "no batch norm"),
    ({"name": "vgg11", "output_stride": 8}, "output_stride=8"),
    ({"name": "resnet50", "first_block_dilation": "own"}, "output_stride 8 or 16"),
    ({"name": "convnext_atto", "ceil_pooling": True}, "no max-pooling"),
    ({"name": "convnext_atto", "stem": "cifar"}, "7x7"),
    ({"name": "resnet18", "options": {"no_such_option": 1}}, "no_such_option"),
    ({"name": "resnet18", "pretrained": "nowhere.pth"}, r"no file 'nowhere\.pth'"),
])
def test_what_cannot_be_is_refused_in_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=message):
        TimmBackbone(**arguments)


def test_encoders_give_one_vector_an_image() -> None:
    with torch.device("meta"):
        for encoder, channels in (
            (TimmEncoder(name="mobilenetv2_100"), 1280), (TimmEncoder(name="vgg11"), 4096), (TimmEncoder(name="vit_tiny_patch16_224"), 192),
            (TorchvisionEncoder(name="alexnet"), 4096), (TorchvisionEncoder(name="shufflenet_v2_x1_0"), 1024),
        ):
            assert encoder.channels == [channels]
            assert [m.shape for m in encoder.eval()(torch.zeros(2, 3, 224, 224))] == [(2, channels)]
        with pytest.raises(InputError, match=r"near: .*alexnet"):
            TorchvisionEncoder(name="alexnet2")
