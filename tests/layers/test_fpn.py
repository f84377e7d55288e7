"""The pyramid is torchvision's, and works at any size."""
from __future__ import annotations

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from saccade.layers.fpn import FPN


@torch.inference_mode()
def test_the_pyramid_is_torchvisions_at_odd_sizes() -> None:
    torch.manual_seed(0)
    ours = FPN(in_channels=[3, 5, 7], channels=4, levels=5)
    theirs = FeaturePyramidNetwork([3, 5, 7], 4, LastLevelMaxPool())
    for own, other in zip((*ours.lateral, *ours.output), (*theirs.inner_blocks, *theirs.layer_blocks), strict=True):
        other[0].load_state_dict(own.state_dict())
    maps = [torch.randn(2, c, h, w) for c, h, w in ((3, 13, 17), (5, 7, 9), (7, 4, 5))]
    found = ours(maps)
    expected = list(theirs(dict(enumerate(maps))).values())  # type: ignore[arg-type]
    assert len(found) == 5 and found[4].shape[-2:] == (1, 2)
    for own, other in zip(found, expected, strict=False):
        torch.testing.assert_close(own, other)


def test_fewer_levels_than_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least as many levels; got 2"):
        FPN(in_channels=[3, 5, 7], levels=2)
