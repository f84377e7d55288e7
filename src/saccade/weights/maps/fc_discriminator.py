"""Key names of the discriminators of AdaptSegNet and ProDA: `conv1` to `conv4` and `classifier`, in our order. Shapes tell the two apart."""
from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor, nn

from saccade.weights.key_map import KeyMap, Tensors

_NAMES = ("conv1", "conv2", "conv3", "conv4", "classifier")


def to_saccade(tensors: Tensors, module: nn.Module, names: Sequence[str] = _NAMES) -> dict[str, Tensor]:
    """`tensors` under our names: `names` are those of the layers, first to last."""
    ours = {f"{name}.{leaf}": f"convs.{number}.{leaf}" for number, name in enumerate(names) for leaf in ("weight", "bias")}
    return {ours.get(key, key): value for key, value in tensors.items()}


def from_saccade(tensors: Tensors, module: nn.Module, names: Sequence[str] = _NAMES) -> dict[str, Tensor]:
    """`tensors` under the original's names."""
    theirs = {f"convs.{number}.{leaf}": f"{name}.{leaf}" for number, name in enumerate(names) for leaf in ("weight", "bias")}
    return {theirs.get(key, key): value for key, value in tensors.items()}


def recognises(keys: Collection[str], names: Sequence[str] = _NAMES) -> bool:
    """Whether these are the keys of such a discriminator and of nothing more."""
    return set(keys) == {f"{name}.{leaf}" for name in names for leaf in ("weight", "bias")}


KEY_MAP = KeyMap("fc_discriminator", recognises, to_saccade, from_saccade)
