"""Maps of class scores at the size of the pictures, where the terms of segmentation work (segmentation_adaptation.md 1.9)."""
from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.adaptation.context import Context, Network
from saccade.errors import InputError
from saccade.ops.class_maps import resize_maps
from saccade.structures import Batch

Output = Literal["logits", "aux_logits"]
_PADDING = {"logits": "padding", "aux_logits": "aux_padding"}


def level_name(name: str, output: Output) -> str:
    """The name of a loss or of an opponent at the level of `output`: "aux_..." for the auxiliary head."""
    return name if output == "logits" else f"aux_{name}"


def logit_maps(term: object, context: Context, which: Network, view: str, output: Output = "logits") -> Tensor:
    """(N, C, H, W) float32: the logits of a network for a view at the size of its images, corners aligned; 0 where these are padding.

    Raises InputError for models that give no maps.
    """
    (logits,) = context.read(term, which, view, output)
    if logits.ndim != 4:
        model = type(context.network(which)).__name__
        raise InputError(f"{type(term).__name__} reads maps (N, C, h, w); {output} of {model} is {tuple(logits.shape)}")
    batch, hidden = context.view(view), context.outputs(which, view).get(_PADDING[output])
    height, width = batch.images.shape[-2:]
    if batch.padding is None or hidden is None:
        return resize_maps(logits.float(), (height, width))
    pictures = []
    for own, own_hidden, padding in zip(logits.float(), hidden, batch.padding, strict=True):
        rows, columns = _shown_size(own_hidden)
        size = _shown_size(padding)
        enlarged = resize_maps(own[None, :, :rows, :columns], size)
        pictures.append(F.pad(enlarged, (0, width - size[1], 0, height - size[0])))
    return torch.cat(pictures)


def pixels_of(values: Tensor, batch: Batch) -> list[Tensor]:
    """For each image the values (pixels, ...) of `values` (N, H, W, ...) at its pixels, padding left out."""
    if batch.padding is None:
        return [own.flatten(0, 1) for own in values]
    return [own[~padding] for own, padding in zip(values, batch.padding, strict=True)]


def _shown_size(padding: Tensor) -> tuple[int, int]:
    """(height, width) of what `padding` (H, W) on the right and below leaves."""
    return int((~padding[:, 0]).sum()), int((~padding[0]).sum())
