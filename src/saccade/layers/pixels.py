"""Pixel statistics that belong to a model's weights, so that a model takes raw uint8 RGB."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

_ROWS = 64  # of a block: 64 rows of 1066 pixels are 0.8 MB as float32
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class PixelNorm(nn.Module):
    """uint8 RGB (N, 3, H, W) or (N, T, 3, H, W) to the float input that a network was trained on.

    `mean` and `std` are in 0..255 and in RGB order; the result is (pixel - mean) / std, its channels reversed where `channel_order` is "bgr".
    Padded pixels become 0 (after normalisation, as DETR and mmdetection do). No buffers: statistics are configuration, not weights.
    """

    def __init__(
        self, *, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD, channel_order: Literal["rgb", "bgr"] = "rgb"
    ) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean and std need three numbers, std positive; got mean {mean}, std {std}")
        self.mean, self.std, self.channel_order = tuple(mean), tuple(std), channel_order
        self._mean = torch.tensor(self.mean).reshape(3, 1, 1)
        self._std = torch.tensor(self.std).reshape(3, 1, 1)

    def forward(self, images: Tensor, padding: Tensor | None = None) -> Tensor:
        """`images` uint8 or float in 0..255; `padding` (N, H, W), for clips (N, T, H, W), bool or None. Returns float32, same shape."""
        self._mean, self._std = self._mean.to(images.device), self._std.to(images.device)
        if images.device.type != "cpu" or images.requires_grad or torch.compiler.is_compiling():
            result = (images.float() - self._mean) / self._std
        else:
            result = self._in_blocks(images)
        if self.channel_order == "bgr":
            result = result.flip(-3)
        return result if padding is None else _clear(result, padding)

    def _in_blocks(self, images: Tensor) -> Tensor:
        """The same numbers, some rows at a time within the processor's cache: ten times as fast for an image of 800 x 1066.

        Channels that lie innermost in memory stay there.
        """
        innermost = images.stride(-3) == 1 and images.shape[-1] * images.shape[-2] > 1
        if not innermost:
            result = torch.empty(images.shape, dtype=torch.float32)
            self._fill(images.flatten(0, -4), result.flatten(0, -4), self._mean, self._std)
            return result
        rows = images.movedim(-3, -1)  # (..., H, W, 3)
        result = torch.empty(rows.shape, dtype=torch.float32)
        mean, std = (values.flatten().repeat(rows.shape[-2]) for values in (self._mean, self._std))  # of a whole row, W * 3
        self._fill(rows.flatten(-2).flatten(0, -3), result.flatten(-2).flatten(0, -3), mean, std)
        return result.movedim(-1, -3)

    @staticmethod
    def _fill(images: Tensor, result: Tensor, mean: Tensor, std: Tensor) -> None:
        """`result` (N, ..., H, W) from `images`, block by block."""
        for start in range(0, images.shape[-2], _ROWS):
            rows = slice(start, start + _ROWS)
            for image, out in zip(images, result, strict=True):
                out[..., rows, :].copy_(image[..., rows, :]).sub_(mean).div_(std)

    def extra_repr(self) -> str:
        """The statistics, for `print(model)`."""
        return f"mean={self.mean}, std={self.std}, channel_order={self.channel_order!r}"


def _clear(images: Tensor, padding: Tensor) -> Tensor:
    """`images` (..., 3, H, W) with zeros where `padding` (..., H, W) is true; on the CPU in place, side by side, which is many times as fast."""
    if images.device.type != "cpu" or images.requires_grad or torch.compiler.is_compiling():
        return images.masked_fill(padding.unsqueeze(-3), 0.0)
    for image, outside in zip(images.flatten(0, -4), padding.flatten(0, -3), strict=True):
        height, width = int((~outside[:, 0]).sum()), int((~outside[0]).sum())
        if np.count_nonzero(outside.numpy()) == outside.numel() - height * width and not np.count_nonzero(outside[:height, :width].numpy()):
            image[:, height:], image[:, :height, width:] = 0.0, 0.0
        else:  # not on the right and below alone
            image.masked_fill_(outside, 0.0)
    return images
