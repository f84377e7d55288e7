"""Names of mmclassification 0.x (`image_models.md` B2): `backbone.*` with its own names of layers, and `head.fc`.

Covers ResNet with its V1c, V1d, ResNeXt, squeeze-excite and ResNeSt kin, ResNet_CIFAR, RegNetX, MobileNetV2, VGG, AlexNet, LeNet-5, ShuffleNetV1 and
ShuffleNetV2. Left out: MobileNetV3 (its published head has two layers) and what came with 0.25.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor, nn

from saccade.layers.cifar_resnet import CifarResNet
from saccade.models.classifier import ImageClassifier
from saccade.weights.key_map import KeyMap, Tensors
from saccade.weights.maps import timm

_EXPANDED = {"conv_pw": "0.conv", "bn1": "0.bn", "conv_dw": "1.conv", "bn2": "1.bn", "conv_pwl": "2.conv", "bn3": "2.bn"}
_SEPARABLE = {"conv_dw": "0.conv", "bn1": "0.bn", "conv_pw": "1.conv", "bn2": "1.bn"}
_MOBILENET_ENDS = {"conv_stem": "conv1.conv", "bn1": "conv1.bn", "conv_head": "conv2.conv", "bn2": "conv2.bn"}
_SHUFFLE_V1 = {"compress": "g_conv_1x1_compress", "depthwise": "depthwise_conv3x3_bn", "expand": "g_conv_1x1_expand"}
# torchvision's places in the branches of ShuffleNetV2 -> number of mmclassification's convolution and its member.
_SHUFFLE_V2 = {
    "branch1": {"0": "0.conv", "1": "0.bn", "2": "1.conv", "3": "1.bn"},
    "branch2": {"0": "0.conv", "1": "0.bn", "3": "1.conv", "4": "1.bn", "5": "2.conv", "6": "2.bn"},
}
_SHUFFLE_V2_ENDS = {"conv1.0": "conv1.conv", "conv1.1": "conv1.bn", "conv5.0": "layers.3.conv", "conv5.1": "layers.3.bn"}
# timm's members of the deep stem -> mmclassification's three convolutions; and the flat numbers that some files have instead (mmdetection's way).
_DEEP_STEM = {"conv1.0": "0.conv", "conv1.1": "0.bn", "conv1.3": "1.conv", "conv1.4": "1.bn", "conv1.6": "2.conv", "bn1": "2.bn"}
_FLAT_STEM = {"0": "0.conv", "1": "0.bn", "3": "1.conv", "4": "1.bn", "6": "2.conv", "7": "2.bn"}
# Networks whose last layer mmclassification keeps inside the backbone.
_LAST_INSIDE = {"vgg": "classifier.6", "alexnet": "classifier.6", "lenet": "classifier.2"}


def names(module: nn.Module) -> timm.NameTable:
    """Our keys -> mmclassification's, for an `ImageClassifier` or a backbone (then too with the prefix `backbone.`)."""
    backbone = module.backbone if isinstance(module, ImageClassifier) else module
    prefix = "backbone." if isinstance(module, ImageClassifier) else ""
    family, rename = _family(backbone)
    table = {f"{prefix}{ours}": f"backbone.{rename(plain)}" for ours, plain in timm.plain_names(backbone).items()}
    if isinstance(module, ImageClassifier):
        last = f"backbone.{_LAST_INSIDE[family]}" if family in _LAST_INSIDE else "head.fc"
        table |= {f"head.fc.{leaf}": f"{last}.{leaf}" for leaf in ("weight", "bias")}
    return table


def _family(backbone: nn.Module) -> tuple[str, Callable[[str], str]]:
    """The family of the network and how its keys are renamed."""
    own = {"LeNet5": ("lenet", _lenet), "ShuffleNetV1": ("shufflenet_v1", _shufflenet_v1)}
    if type(backbone).__name__ in own:
        return own[type(backbone).__name__]
    plain = set(timm.plain_names(backbone).values())
    name = str(getattr(backbone, "name", ""))
    if name.startswith("vgg"):
        places = _vgg_places(backbone, batch_norm=name.endswith("_bn"))
        return "vgg", lambda key: _vgg(key, places)
    renames: dict[str, Callable[[str], str]] = {
        "mobilenetv2": _mobilenet_v2, "shufflenet_v2": _shufflenet_v2, "regnet": _regnet, "alexnet": str,
    }
    family = next((family for family in renames if name.startswith(family)), "")
    if family:
        return family, renames[family]
    if "layer1.0.conv1.weight" in plain and not isinstance(backbone, CifarResNet):
        deep_stem = "conv1.0.weight" in plain
        average_down = any(".downsample.2." in key for key in plain)
        return "resnet", lambda key: _resnet(key, deep_stem, average_down)
    return name, str


def _resnet(key: str, deep_stem: bool, average_down: bool) -> str:
    layer, _, leaf = key.rpartition(".")
    if deep_stem and layer in _DEEP_STEM:
        return f"stem.{_DEEP_STEM[layer]}.{leaf}"
    if average_down and key.startswith("layer1."):  # timm keeps a place for the pooling that a stride of 1 does not need
        key = key.replace(".downsample.1.", ".downsample.0.").replace(".downsample.2.", ".downsample.1.")
    return re.sub(r"\.se\.fc(\d)\.", r".se_layer.conv\1.conv.", key)


def _regnet(key: str) -> str:
    key = key.replace("stem.conv.", "conv1.").replace("stem.bn.", "bn1.")
    key = re.sub(r"^s(\d)\.b(\d+)\.", lambda m: f"layer{m[1]}.{int(m[2]) - 1}.", key)
    key = key.replace("downsample.conv.", "downsample.0.").replace("downsample.bn.", "downsample.1.")
    return re.sub(r"\.conv(\d)\.(conv|bn)\.", r".\2\1.", key)


def _mobilenet_v2(key: str) -> str:
    block = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)", key)
    if block is None:
        layer, _, leaf = key.rpartition(".")
        return f"{_MOBILENET_ENDS.get(layer, layer)}.{leaf}"
    stage, number, member, leaf = block.groups()
    return f"layer{int(stage) + 1}.{number}.conv.{(_SEPARABLE if stage == '0' else _EXPANDED)[member]}.{leaf}"


def _shufflenet_v1(key: str) -> str:
    return ".".join(_SHUFFLE_V1.get(part, part) for part in key.split("."))


def _shufflenet_v2(key: str) -> str:
    unit = re.fullmatch(r"stage(\d)\.(\d+)\.(branch\d)\.(\d)\.(\w+)", key)
    if unit is None:
        layer, _, leaf = key.rpartition(".")
        return f"{_SHUFFLE_V2_ENDS.get(layer, layer)}.{leaf}"
    stage, number, branch, place, leaf = unit.groups()
    return f"layers.{int(stage) - 2}.{number}.{branch}.{_SHUFFLE_V2[branch][place]}.{leaf}"


def _lenet(key: str) -> str:
    return key.replace("hidden.", "classifier.", 1)


def _vgg_places(backbone: nn.Module, batch_norm: bool) -> dict[str, str]:
    """`features.N` of timm -> mmclassification's, where a convolution with its norm and activation has one number, and so has a pooling."""
    state = {timm_key: backbone.state_dict()[ours] for ours, timm_key in timm.plain_names(backbone).items()}
    convolutions = sorted(int(key.split(".")[1]) for key, value in state.items() if key.startswith("features.") and value.ndim == 4)
    places: dict[str, str] = {}
    length, number, previous = 3 if batch_norm else 2, -1, -1
    for place in convolutions:
        poolings = 0 if previous < 0 else place - previous - length
        number, previous = number + 1 + poolings, place
        places |= {f"features.{place}": f"features.{number}.conv", f"features.{place + 1}": f"features.{number}.bn"}
    return places | {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3"}


def _vgg(key: str, places: dict[str, str]) -> str:
    layer, _, leaf = key.rpartition(".")
    return f"{places.get(layer, layer)}.{leaf}"


def to_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under our names. Files of a backbone alone may lack the prefix `backbone.`, which mmcv's pretrained ones do."""
    prefixed: Any = tensors
    if not any(key.startswith("backbone.") for key in tensors):
        prefixed = {f"backbone.{key}": value for key, value in tensors.items()}
    if "backbone.stem.0.weight" in prefixed:
        prefixed = {re.sub(r"^backbone\.stem\.(\d)\.", lambda m: f"backbone.stem.{_FLAT_STEM[m[1]]}.", k): v for k, v in prefixed.items()}
    return timm.to_saccade_by(names, prefixed, module)


def from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under mmclassification's names; VGG's hidden layers become linear ones again."""
    renamed = timm.from_saccade_by(names, tensors, module)
    return {key: value.flatten(1) if key.startswith("backbone.classifier.") and value.ndim == 4 else value for key, value in renamed.items()}


def recognises(keys: Collection[str]) -> bool:
    """Whether these are the keys of a classifier of mmclassification: nothing but a backbone, a neck and a head with its names."""
    parts = {key.partition(".")[0] for key in keys}
    foreign = any(re.match(r"backbone\.(body|\d+)\.", key) for key in keys)
    return "backbone" in parts and parts <= {"backbone", "neck", "head"} and not foreign


KEY_MAP = KeyMap("mmcls", recognises, to_saccade, from_saccade)
