"""timm's names. Ours are theirs behind `body.`, in a classifier behind `backbone.body.`, but for the last linear layer, which is `head.fc`.

timm's networks that only return features have some names flattened ("stages_0") or wrapped ("model."); here they get their ordinary ones back.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import timm
from torch import Tensor, nn

from saccade.layers.backbone import TimmBackbone
from saccade.layers.encoder import TimmEncoder, TorchvisionEncoder
from saccade.models.classifier import ImageClassifier
from saccade.weights.key_map import KeyMap, Tensors

NameTable = dict[str, str]  # our key -> theirs
_SIGNS = ("conv_stem.", "stem.", "patch_embed.", "stages.", "blocks.0.", "s1.b1.", "cls_token", "pre_logits.")


def names(module: nn.Module) -> NameTable:
    """Our keys -> timm's, for an `ImageClassifier` or a backbone."""
    if not isinstance(module, ImageClassifier):
        return plain_names(module)
    classifier = classifier_name(module.backbone)
    table = {f"backbone.{ours}": theirs for ours, theirs in plain_names(module.backbone).items()}
    return table | {f"head.fc.{leaf}": f"{classifier}.{leaf}" for leaf in ("weight", "bias")}


def plain_names(backbone: nn.Module) -> NameTable:
    """Keys of a backbone -> those of the network inside, as timm, torchvision or (for networks of our own) we name them."""
    return {key: _plain(key, backbone) for key in backbone.state_dict()}


def classifier_name(backbone: Any) -> str:
    """What the network inside calls its last linear layer."""
    if isinstance(backbone, TorchvisionEncoder):
        return backbone.classifier
    if isinstance(backbone, TimmBackbone | TimmEncoder):
        configuration = timm.get_pretrained_cfg(backbone.name)
        return str(configuration.classifier) if configuration is not None else "fc"
    return "fc"


def _plain(key: str, backbone: nn.Module) -> str:
    if not isinstance(backbone, TimmBackbone):
        return key.removeprefix("body.")
    key = key.removeprefix("body.").removeprefix("model.")
    children = dict(backbone.body.named_children())
    modules = [str(level["module"]) for level in backbone.body.feature_info.info]
    flattened = any("." in module and module.replace(".", "_") in children for module in modules)
    return re.sub(r"^(\w+)_(\d+)\.", r"\1.\2.", key) if flattened else key


def to_saccade_by(table_of: Callable[[nn.Module], NameTable], tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under our names by the table of `module`; what is not in it keeps its name, batch-norm counters without a place are left out.

    Linear layers that we have as convolutions (VGG's hidden ones) and counters that are stored as rows of one get their shape.
    """
    own = module.state_dict()
    ours = {theirs: ours for ours, theirs in table_of(module).items()}
    counters = {key for key in tensors if key.endswith("num_batches_tracked") and key not in ours}
    renamed = {ours.get(key, key): value for key, value in tensors.items() if key not in counters}
    return {key: _shaped(value, own[key]) if key in own else value for key, value in renamed.items()}


def from_saccade_by(table_of: Callable[[nn.Module], NameTable], tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under the origin's names by the table of `module`; what is not in it keeps its name."""
    theirs = table_of(module)
    return {theirs.get(key, key): value for key, value in tensors.items()}


def _shaped(value: Tensor, own: Tensor) -> Tensor:
    linear_as_convolution = value.ndim == 2 and own.ndim == 4 and value.shape == own.flatten(1).shape
    counter_as_row = own.ndim == 0 and value.shape == (1,)
    return value.reshape(own.shape) if linear_as_convolution or counter_as_row else value


def recognises(keys: Collection[str]) -> bool:
    """Whether these look like a timm network whose names torchvision does not share."""
    return any(key.startswith(_SIGNS) for key in keys)


KEY_MAP = KeyMap("timm", recognises, partial(to_saccade_by, names), partial(from_saccade_by, names))
