"""A small QDTrack and pairs of frames for tests, made of real parts."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from saccade.data.pairs import FramePairs
from saccade.data.randomness import seeded
from saccade.data.town.dataset import Town
from saccade.layers.backbone import TimmBackbone
from saccade.layers.pixels import PixelNorm
from saccade.layers.track_head import TrackHead
from saccade.models.qdtrack import QDTRACK, QDTrack
from saccade.structures import Batch, collate

SETTINGS = replace(
    QDTRACK, channels=16, hidden=(32,), anchor_scale=4.0, test_per_level=50, test_proposals=30, train_per_level=100, train_proposals=60
)


def tracker_model(seed: int = 0, **changes: Any) -> QDTrack:
    """A QDTrack of Town's classes with few channels."""
    torch.manual_seed(seed)
    backbone = TimmBackbone(name="resnet10t", out_indices=[1, 2, 3, 4], options={"stem_type": "", "stem_width": 64})
    head = TrackHead(in_channels=16, convs=1, channels=16, groups=4, hidden=(32,), embedding=24)
    given = {"classes": Town(num_videos=1).classes, "backbone": backbone, "settings": SETTINGS, "track_head": head, "pixel_norm": PixelNorm()}
    return QDTrack(**{**given, **changes})


def town(frames: int = 6, videos: int = 2, size: int = 96) -> Town:
    """Videos of the town with boxes and ids alone."""
    return Town(size=size, num_videos=videos, frames_per_video=frames, masks=False, segmentation=False, panoptic=False)


def pairs(count: int = 2) -> Batch:
    """A batch of pairs of frames of the town."""
    data = FramePairs(dataset=town(), reach=3)
    with seeded(0):
        return collate([data[2 * i + 1] for i in range(count)], divisor=32)
