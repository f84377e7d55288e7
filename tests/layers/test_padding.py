"""What is padded in a map follows from the layers that made it, so a picture gives the same maps alone and among larger ones."""
from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from saccade.layers.padding import PaddingGuard

torch.set_num_threads(1)

NETWORKS = {
    "rounds up": lambda: [nn.Conv2d(3, 4, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Conv2d(4, 4, 3, padding=2, dilation=2)],
    "rounds down": lambda: [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
                            nn.MaxPool2d(2, 2), nn.Conv2d(4, 4, 3, padding=4, dilation=4)],
    "patches": lambda: [nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 7, padding=3), nn.Conv2d(4, 4, 2, 2), nn.Conv2d(4, 4, 3, padding=1)],
    "strides in 1x1": lambda: [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1, 2), nn.Conv2d(4, 4, 3, padding="same")],
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("size", "canvas"), [((33, 41), (48, 64)), ((34, 42), (35, 43)), ((35, 43), (63, 47)), ((36, 47), (37, 48))])
@torch.no_grad()
def test_a_picture_gives_the_same_maps_with_padding(name: str, size: tuple[int, int], canvas: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*NETWORKS[name]())
    guard, picture = PaddingGuard(network), torch.randn(1, 3, *size)
    padding = torch.ones(1, *canvas, dtype=torch.bool)
    padding[:, : size[0], : size[1]] = False
    filled = F.pad(picture, (0, canvas[1] - size[1], 0, canvas[0] - size[0]))
    alone = network(picture)
    with guard.hide(padding):
        maps = network(filled)
        outside = guard.padding_of(maps)
    height, width = alone.shape[-2:]
    assert outside is not None
    assert (~outside[0]).nonzero().amax(0).tolist() == [height - 1, width - 1] and int((~outside).sum()) == height * width
    torch.testing.assert_close(maps[..., :height, :width], alone)
    assert guard.padding_of(maps) is None, "only while it is told what is padded"
