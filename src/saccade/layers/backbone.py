"""The one backbone layer of the house: any timm network as a pyramid of feature maps, with what the published detectors do to their ResNets.

Serves DETR (frozen batch norm, dilated last stage), caffe-style ResNets as QDTrack has them (stride on the first 1x1, frozen stages, norms in eval
mode), DeepLab as AdaptSegNet has it (output stride 8, every block of a stage dilated alike, ceil-mode pooling), SSD and classifiers.
Parameters are under `body.` with timm's own names, which for ResNets are torchvision's. Networks that give one vector an image are in `encoder.py`.
"""
from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, Self

import timm
import torch
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor, nn

from saccade.errors import InputError
from saccade.layers.normalization import batch_norms, freeze_batch_norms
from saccade.layers.pixels import IMAGENET_MEAN, IMAGENET_STD


class TimmBackbone(nn.Module):
    """Feature maps of a timm network: images (N, 3, H, W), already normalised -> list of (N, C_i, H / s_i, W / s_i), finest first.

    `channels` and `strides` list C_i and s_i. Arguments:

    - `name`: of `timm.list_models()`, with or without a weights tag ("resnet50", "resnet50.a1_in1k").
    - `pretrained`: true downloads timm's weights from the Hugging Face hub; a path names a file with timm's names; false draws fresh weights.
    - `out_indices`: which of timm's feature levels to return. In most convolutional networks level 0 is the stem (stride 2) and level i is stage i;
      in ConvNeXt, Swin and PVT level 0 is the first stage. None: every level of stride 4 and more.
    - `frozen_stages`: 0 trains everything, k freezes the stem and the first k stages (levels of stride 4 and more), their norms in eval mode.
    - `norm`: "batch" follows train/eval mode; "eval" always uses the running statistics; "frozen" has buffers only (`FrozenBatchNorm2d`).
    - `norm_affine`: false keeps scale and shift of the batch norms from training while their mode follows `norm`.
    - `norm_eps`: of every batch norm; None keeps timm's (1e-5 in ResNets).
    - `output_stride`: 8 or 16 replaces the strides of the last stages by dilation; `first_block_dilation` says whether the first block of such a
      stage keeps the dilation of the stage before (torchvision, DETR) or has that of its stage (DeepLab).
    - `stride_in`: the convolution of a bottleneck that strides: "3x3" (torchvision) or the first "1x1" (caffe).
    - `ceil_pooling`: max-pooling rounds sizes up (DeepLab).
    - `stem`: "cifar" gives a ResNet a 3x3 first convolution of stride 1 and no pooling, for pictures of 32 px; every stride is a quarter then.
    - `options`: further arguments of timm's constructor (`drop_path_rate`, `stem_type`, `layers`, `img_size`, ...).

    Raises InputError for unknown names, for what a network can't do, and when weights can't be had.
    """

    def __init__(
        self,
        *,
        name: str,
        pretrained: bool | str = False,
        out_indices: list[int] | None = None,
        frozen_stages: int = 0,
        norm: Literal["batch", "eval", "frozen"] = "batch",
        norm_affine: bool = True,
        norm_eps: float | None = None,
        output_stride: Literal[8, 16, 32] = 32,
        first_block_dilation: Literal["previous", "own"] = "previous",
        stride_in: Literal["3x3", "1x1"] = "3x3",
        ceil_pooling: bool = False,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        arguments = dict(options or {}) | ({"output_stride": output_stride} if output_stride != 32 else {})
        self.name, self.norm, self.frozen_stages = name, norm, frozen_stages
        self.body = create_timm(name, pretrained, features_only=True, out_indices=_levels(name, out_indices, arguments), **arguments)
        self.channels: list[int] = list(self.body.feature_info.channels())
        self.strides: list[int] = list(self.body.feature_info.reduction())
        self.pixel_mean, self.pixel_std = pixel_statistics(name)
        self._channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        if first_block_dilation == "own":
            _dilate_first_blocks(self.body, name)
        if stride_in == "1x1":
            _stride_in_first_convolution(self.body, name)
        if ceil_pooling:
            _round_pooling_up(self.body, name)
        if stem == "cifar":
            self._shrink_stem()
        settle_batch_norms(self.body, name, norm, norm_affine, norm_eps)
        self._frozen = _freeze(self.body, frozen_stages, name)
        self.train(self.training)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised `images` (N, 3, H, W) to one map a level, (N, C_i, H / s_i, W / s_i)."""
        maps = self.body(images)
        return [m.permute(0, 3, 1, 2) for m in maps] if self._channels_last else list(maps)

    def _shrink_stem(self) -> None:
        first = getattr(self.body, "conv1", None)
        if not isinstance(first, nn.Conv2d) or not isinstance(getattr(self.body, "maxpool", None), nn.MaxPool2d):
            raise InputError(f"stem: cifar needs a ResNet with one 7x7 convolution and max-pooling first; {self.name} begins otherwise")
        self.body.conv1 = nn.Conv2d(3, first.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.body.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.body.maxpool = nn.Identity()
        self.strides = [max(1, stride // 4) for stride in self.strides]

    def train(self, mode: bool = True) -> Self:
        """Train mode for all but what is frozen: norms of frozen stages, and every norm where `norm` is "eval", stay in eval mode."""
        super().train(mode)
        if mode:
            for name, layer in batch_norms(self.body).items():
                if self.norm == "eval" or f"{name}.weight" in self._frozen:
                    layer.eval()
        return self


def settle_batch_norms(
    body: nn.Module, name: str, norm: Literal["batch", "eval", "frozen"], affine: bool = True, eps: float | None = None
) -> None:
    """Sets eps and trainability of every batch norm of `body` and, for "frozen", replaces them. Raises InputError where there is none to set."""
    norms = batch_norms(body)
    if not norms and (norm != "batch" or not affine or eps is not None):
        raise InputError(f"{name} has no batch norm; leave norm, norm_affine and norm_eps at their defaults")
    for layer in norms.values():
        layer.eps = layer.eps if eps is None else eps
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(affine)
        if (not affine or norm == "frozen") and layer.weight is not None and not layer.weight.is_meta and not layer.weight.any():
            # Fresh ResNets start their residual branches at zero; a scale that never learns would leave them there.
            nn.init.ones_(layer.weight)
    if norm == "frozen":
        freeze_batch_norms(body)


def pixel_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation in 0..255 and RGB that timm's weights of `name` expect; ImageNet's where it names none."""
    configuration = timm.get_pretrained_cfg(name)
    if configuration is None:
        return IMAGENET_MEAN, IMAGENET_STD
    mean, deviation = ([round(255.0 * v, 4) for v in values] for values in (configuration.mean, configuration.std))
    return tuple(mean), tuple(deviation)


def create_timm(name: str, pretrained: bool | str, **arguments: Any) -> Any:
    """`timm.create_model` with weights from nowhere (false), the hub (true) or a file with timm's names (path); errors as InputError."""
    if not timm.is_model(name.split(".")[0]):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=4))
        raise InputError(f"timm has no network {name!r}{'; near: ' + near if near else ''}. `timm.list_models()` lists all.")
    if isinstance(pretrained, str):
        if not Path(pretrained).is_file():
            raise InputError(f"pretrained: there is no file {pretrained!r} (true downloads the weights of {name} from the Hugging Face hub)")
        arguments["pretrained_cfg_overlay"] = {"file": pretrained}
    try:
        return timm.create_model(name, pretrained=bool(pretrained), **arguments)
    except (OSError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"The pretrained weights of {name} can't be downloaded from the Hugging Face hub ({reason}). Check the connection, or set "
            "`pretrained: false` or the path of a file."
        ) from error
    except (TypeError, AssertionError, NotImplementedError, ValueError, RuntimeError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise InputError(f"timm can't make {name} with {given}: {str(error).strip() or type(error).__name__}") from error


def _levels(name: str, out_indices: list[int] | None, arguments: dict[str, Any]) -> tuple[int, ...]:
    """The levels to return, ascending and counted from 0; by default those of stride 4 and more."""
    known = _feature_strides(name, arguments)
    if out_indices is None:
        return tuple(i for i, stride in enumerate(known) if stride >= 4)
    if not out_indices or any(not -len(known) <= i < len(known) for i in out_indices):
        raise InputError(f"out_indices {out_indices}: {name} has the levels 0..{len(known) - 1} with strides {known}")
    return tuple(sorted({i % len(known) for i in out_indices}))


def _feature_strides(name: str, arguments: dict[str, Any]) -> list[int]:
    with torch.device("meta"):
        network = create_timm(name, False, **arguments)
    levels = getattr(network, "feature_info", None)
    if not levels:
        raise InputError(f"timm's {name} has no feature maps to return; use an encoder (TimmEncoder) for classification")
    return [int(level["reduction"]) for level in levels]


def _stride_in_first_convolution(body: nn.Module, name: str) -> None:
    convolutions = [[getattr(m, f"conv{i}", None) for i in (1, 2, 3)] for m in body.modules()]
    changed = 0
    for first, second, third in convolutions:
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d) and isinstance(third, nn.Conv2d) and first.kernel_size == (1, 1):
            first.stride, second.stride, changed = second.stride, (1, 1), changed + 1
    if not changed:
        raise InputError(f"stride_in: 1x1 needs bottlenecks of three convolutions, as in ResNet-50; {name} has none")


def _dilate_first_blocks(body: nn.Module, name: str) -> None:
    """Gives the 3x3 convolution that opens a stage the dilation of the other blocks of its stage."""
    changed = 0
    for stage in body.children():
        if not isinstance(stage, nn.Sequential) or len(stage) < 2 or not isinstance(getattr(stage[0], "conv2", None), nn.Conv2d):
            continue
        first, second = _spatial(stage[0]), _spatial(stage[1])
        if first.dilation != second.dilation:
            first.dilation, first.padding, changed = second.dilation, second.dilation, changed + 1
    if not changed:
        raise InputError(f"first_block_dilation: own changes nothing in {name}; it needs a ResNet with output_stride 8 or 16")


def _spatial(block: Any) -> nn.Conv2d:
    """The 3x3 convolution that opens a block: the first of a basic block, the second of a bottleneck."""
    return block.conv1 if block.conv1.kernel_size == (3, 3) else block.conv2


def _round_pooling_up(body: nn.Module, name: str) -> None:
    pools = [m for m in body.modules() if isinstance(m, nn.MaxPool2d)]
    if not pools:
        raise InputError(f"ceil_pooling: {name} has no max-pooling")
    for pool in pools:
        pool.ceil_mode = True


def _freeze(body: Any, stages: int, name: str) -> frozenset[str]:
    """Takes the gradients from the stem and the first `stages` stages; returns the names of their parameters and buffers."""
    if stages == 0:
        return frozenset()
    levels = [level for level in body.feature_info.info if level["reduction"] >= 4]
    if not 0 < stages <= len(levels):
        raise InputError(f"frozen_stages {stages}: {name} has {len(levels)} stages")
    # Registration order is execution order in timm's feature networks, so what is registered up to the stage's last module lies before or in it.
    last_module = str(levels[stages - 1]["module"])
    modules = list(body.named_modules())
    inside = [i for i, (key, _) in enumerate(modules) if _within(key, last_module)]
    if not inside:
        raise InputError(f"frozen_stages: the module {last_module} that ends the stage can't be told in {name}")
    frozen = {f"{key}.{leaf}": value for key, module in modules[: inside[-1] + 1] for leaf, value in module.named_parameters(recurse=False)}
    for value in frozen.values():
        value.requires_grad_(False)
    return frozenset(frozen)


def _within(key: str, module: str) -> bool:
    """Whether `key` is `module` or part of it; timm may have flattened ("stages.0" as "stages_0") or wrapped ("model.") the name."""
    plain = key.removeprefix("model.") + "."
    return plain.startswith((f"{module}.", f"{module.replace('.', '_')}."))
