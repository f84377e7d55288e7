"""Key names of ProDA's network (github.com/microsoft/ProDA, `models/deeplabv2.py`); spec 1.6.

Its checkpoints hold the network as `ResNet101.model_state`, beside it the prototypes as `ResNet101.objective_vectors` and after the warm-up the
discriminator as `FCDiscriminator.model_state`: name these behind the file, as in `warmup.pkl#ResNet101.objective_vectors`.
"""
from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from saccade.weights.key_map import KeyMap, Tensors, renamed

# Our names -> theirs.
_RENAMES = (
    (r"backbone\.body\.", r""),
    (r"body\.", r""),
    (r"feature_norm\.", r"bn_pretrain."),
    (r"head\.branches\.", r"layer5.conv2d_list."),
    (r"head\.weighing\.reduce\.", r"layer5.bottleneck.0.se.0."),
    (r"head\.weighing\.expand\.", r"layer5.bottleneck.0.se.2."),
    (r"head\.bottleneck\.", r"layer5.bottleneck.1."),
    (r"head\.norm\.", r"layer5.bottleneck.2."),
    (r"head\.classifier\.", r"layer5.head.1."),
)


def to_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under our names; what the module has no place for keeps its name, but for the counters of frozen norms."""
    ours = {renamed(key, _RENAMES, ""): key for key in module.state_dict()}
    return {ours.get(key, key): value for key, value in tensors.items() if key in ours or not key.endswith(".num_batches_tracked")}


def from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under the original's names."""
    return {renamed(key, _RENAMES, ""): value for key, value in tensors.items()}


def recognises(keys: Collection[str]) -> bool:
    """Whether these are the keys of ProDA's network, whose branches have norms."""
    return "layer5.conv2d_list.0.0.weight" in keys


KEY_MAP = KeyMap("proda", recognises, to_saccade, from_saccade)
