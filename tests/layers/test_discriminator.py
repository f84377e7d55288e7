"""The discriminator's two forms."""
from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from saccade.layers.discriminator import Discriminator

torch.set_num_threads(1)


@pytest.mark.parametrize(("preset", "parameters", "sizes"), [
    ("adaptsegnet", 2_781_121, {(512, 1024): (16, 32), (720, 1280): (22, 40)}), ("proda", 1_560_705, {(512, 896): (32, 56)}),
])
def test_parameters_and_sizes_are_the_originals(preset: str, parameters: int, sizes: dict[tuple[int, int], tuple[int, int]]) -> None:
    with torch.device("meta"):
        network = Discriminator(preset=preset).build(19)  # type: ignore[arg-type]
        assert sum(p.numel() for p in network.parameters()) == parameters
        for size, expected in sizes.items():
            assert network(torch.zeros(2, 19, *size)).shape == (2, 1, *expected)


@pytest.mark.parametrize("preset", ["adaptsegnet", "proda"])
@torch.no_grad()
def test_activations_stand_between_the_layers_and_none_behind(preset: str) -> None:
    torch.manual_seed(0)
    network, maps = Discriminator(preset=preset, channels=4).build(3), torch.rand(1, 3, 64, 64)  # type: ignore[arg-type]
    x = maps
    for number, layer in enumerate(network.convs):
        assert isinstance(layer, nn.Conv2d)
        x = layer(x)
        if number < 4:
            x = F.leaky_relu(x, 0.2) if preset == "adaptsegnet" or number == 3 else x.relu()
    torch.testing.assert_close(network(maps), x)
