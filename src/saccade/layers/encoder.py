"""Whole classification networks up to their classifier: images in, one vector an image out.

For networks that are more than stages and an average: the last convolution of MobileNet, the hidden layers of VGG and AlexNet, the class token of a
ViT. Maps of stages, for detectors and for other poolings, come from `backbone.py`. Parameters are under `body.` with timm's or torchvision's names.
"""
from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from saccade.errors import InputError
from saccade.layers.backbone import create_timm, pixel_statistics, settle_batch_norms
from saccade.layers.normalization import batch_norms


class TimmEncoder(nn.Module):
    """Any timm network without its classifier: images (N, 3, H, W), already normalised -> [(N, C)].

    `name`, `pretrained`, `norm` and `options` as in `TimmBackbone`; pooling and hidden layers are the network's own (`options: {drop_rate: 0.5}` sets
    the dropout between them). `channels` is [C]. Raises InputError for unknown names and options and when weights can't be had.
    """

    gives_vectors: ClassVar[bool] = True

    def __init__(
        self, *, name: str, pretrained: bool | str = False, norm: Literal["batch", "eval", "frozen"] = "batch", options: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.name, self.norm = name, norm
        self.body = create_timm(name, pretrained, num_classes=0, **(options or {}))
        self.channels = [int(getattr(self.body, "head_hidden_size", self.body.num_features))]
        self.pixel_mean, self.pixel_std = pixel_statistics(name)
        settle_batch_norms(self.body, name, norm)
        self.train(self.training)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised `images` (N, 3, H, W) to a list of one tensor (N, C)."""
        return [self.body(images)]

    def train(self, mode: bool = True) -> Self:
        """Train mode; batch norms stay in eval mode where `norm` is "eval"."""
        super().train(mode)
        if self.norm == "eval":
            for layer in batch_norms(self.body).values():
                layer.eval()
        return self


class TorchvisionEncoder(nn.Module):
    """A torchvision classification network without its last linear layer, for what timm lacks (AlexNet, ShuffleNetV2): images -> [(N, C)].

    `name`: of `torchvision.models.list_models(torchvision.models)`. `pretrained`: true downloads torchvision's default weights; a path names a file
    with torchvision's names; false draws fresh weights. `dropout`: of the layers that the network has; None keeps torchvision's.
    Raises InputError for unknown names and when weights can't be had.
    """

    gives_vectors: ClassVar[bool] = True

    def __init__(self, *, name: str, pretrained: bool | str = False, dropout: float | None = None) -> None:
        super().__init__()
        names = torchvision.models.list_models(torchvision.models)
        if name not in names:
            near = ", ".join(difflib.get_close_matches(name, names, n=4))
            raise InputError(f"torchvision has no network {name!r}{'; near: ' + near if near else ''}")
        self.name = name
        self.body = _torchvision_network(name, pretrained)
        self.classifier, last = _last_linear(self.body, name)
        parent, _, leaf = self.classifier.rpartition(".")
        setattr(self.body.get_submodule(parent), leaf, nn.Identity())
        self.channels = [last.in_features]
        if dropout is not None:
            _set_dropout(self.body, dropout, name)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised `images` (N, 3, H, W) to a list of one tensor (N, C)."""
        return [self.body(images)]


def _torchvision_network(name: str, pretrained: bool | str) -> nn.Module:
    if isinstance(pretrained, str) and not Path(pretrained).is_file():
        raise InputError(f"pretrained: there is no file {pretrained!r} (true downloads torchvision's weights of {name})")
    try:
        network = torchvision.models.get_model(name, weights="DEFAULT" if pretrained is True else None)
        if isinstance(pretrained, str):
            network.load_state_dict(torch.load(pretrained, map_location="cpu", weights_only=True))
    except (URLError, TimeoutError) as error:
        raise InputError(
            f"The pretrained weights of {name} can't be downloaded from torchvision ({error}). Check the connection, or set `pretrained: false` "
            "or the path of a file."
        ) from error
    except RuntimeError as error:
        raise InputError(f"{pretrained} does not hold the weights of torchvision's {name}: {error}") from error
    return network


def _last_linear(network: nn.Module, name: str) -> tuple[str, nn.Linear]:
    layers = [(key, module) for key, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise InputError(f"torchvision's {name} does not end in a linear classifier")
    return layers[-1]


def _set_dropout(network: nn.Module, probability: float, name: str) -> None:
    layers = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    if not layers:
        raise InputError(f"dropout: torchvision's {name} has no dropout layer; use the classifier's own `dropout`")
    for layer in layers:
        layer.p = probability
