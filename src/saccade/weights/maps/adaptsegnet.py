"""Key names of AdaptSegNet's networks (github.com/wasidennis/AdaptSegNet): ResNet-101 with one head or two, and VGG-16; spec 1.6.

With two heads `layer5` is the auxiliary and `layer6` the main one, with one head `layer5` is the main one; which it is, the file's own names say.
So ADVENT's files with two heads are read by the same map. The 21-class head of the shared ImageNet file is in `deeplab_init`.
"""
from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from saccade.layers.deeplab_vgg import DeepLabVGG16
from saccade.models.deeplab import DeepLabV2
from saccade.weights.key_map import KeyMap, Tensors

MAIN, ONLY = "layer6", "layer5"  # the main head, beside another and alone


def names(module: nn.Module, main: str) -> dict[str, str]:
    """Our keys -> the original's, for a `DeepLabV2` or its backbone, where the file has the main head under `main`."""
    if not isinstance(module, DeepLabV2):
        return {key: key.removeprefix("body.") for key in module.state_dict()}
    main = "classifier" if isinstance(module.backbone, DeepLabVGG16) else main
    prefixes = {"backbone.body.": "", "backbone.": "", "head.branches.": f"{main}.conv2d_list."}
    if main == MAIN:
        prefixes["aux_head.branches."] = f"{ONLY}.conv2d_list."
    return {key: _exchanged(key, prefixes) for key in module.state_dict()}


def _exchanged(key: str, prefixes: dict[str, str]) -> str:
    ours = next((prefix for prefix in prefixes if key.startswith(prefix)), "")
    return prefixes.get(ours, "") + key.removeprefix(ours)


def to_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under our names; what the module has no place for keeps its name, but for the counters of frozen norms."""
    two_heads = any(key.startswith(f"{MAIN}.") for key in tensors)
    ours = {theirs: ours for ours, theirs in names(module, MAIN if two_heads else ONLY).items()}
    return {ours.get(key, key): value for key, value in tensors.items() if key in ours or not key.endswith(".num_batches_tracked")}


def from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under the original's names."""
    return renamed(tensors, module, MAIN if any(key.startswith("aux_head.") for key in tensors) else ONLY)


def renamed(tensors: Tensors, module: nn.Module, main: str) -> dict[str, Tensor]:
    """`tensors` under the original's names with the main head under `main`."""
    theirs = names(module, main)
    return {theirs.get(key, key): value for key, value in tensors.items()}


def recognises(keys: Collection[str]) -> bool:
    """Whether these are the keys of a network of AdaptSegNet, or of ADVENT with two heads."""
    return any(f"{head}.conv2d_list.0.weight" in keys for head in (ONLY, "classifier"))


KEY_MAP = KeyMap("adaptsegnet", recognises, to_saccade, from_saccade)
