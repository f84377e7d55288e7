"""Colour arithmetic on float pixels in 0..255, which torchvision's functionals (0..1 and clipped) do not offer."""
from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = torch.finfo(torch.float32).eps


def adjust_hue_saturation(pixels: Tensor, hue: float, saturation: float) -> Tensor:
    """RGB pixels (3, H, W) float, their hue turned by `hue` degrees and their saturation multiplied, through HSV as OpenCV defines it for floats.

    V is the largest channel, S = (largest - smallest) / |V|. Nothing is clipped: a saturation above 1 gives negative channels, as there.
    """
    largest, smallest = pixels.amax(0), pixels.amin(0)
    spread = largest - smallest
    red, green, blue = pixels.unbind(0)
    step = 60.0 / (spread + _EPSILON)
    # Blue wins over nothing, green over blue, red over green: the order in which OpenCV asks which channel is the largest.
    angle = torch.where(largest == red, (green - blue) * step, torch.where(largest == green, 120 + (blue - red) * step, 240 + (red - green) * step))
    angle = (angle + hue) % 360
    chroma = largest * (spread / (largest.abs() + _EPSILON)) * saturation
    # Channel n of (red 5, green 3, blue 1) is V - chroma * max(0, min(k, 4 - k, 1)) with k = (n + H / 60) mod 6.
    k = (angle / 60 + pixels.new_tensor([5.0, 3.0, 1.0]).reshape(3, 1, 1)) % 6
    return largest - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)
