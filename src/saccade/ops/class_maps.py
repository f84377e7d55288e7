"""Maps of class scores, as segmentation networks give them: sizes, probabilities, and how unsure they are.

Self-information as ADVENT has it (Vu et al. 2019, arXiv:1811.12833, section 3.2; `advent/utils/func.py:prob_2_entropy`).
"""
from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_TINY = 1e-30


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """`maps` (N, C, h, w) at `size` (height, width), bilinear with corners aligned: the rule of the DeepLab family, in training and in tests."""
    return maps if tuple(maps.shape[-2:]) == tuple(size) else F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)


def self_information(probabilities: Tensor) -> Tensor:
    """-p log2(p + 1e-30) / log2(C) of probabilities (N, C, H, W): each class's share of the normalised entropy, 1 / C where p is uniform."""
    return -probabilities * torch.log2(probabilities + _TINY) / math.log2(probabilities.shape[1])


def entropy_map(probabilities: Tensor) -> Tensor:
    """(N, H, W) the entropy of probabilities (N, C, H, W), over that of equal ones: 0 where a class is certain, 1 where all are equal."""
    return self_information(probabilities).sum(1)
