"""Folding batch norms changes how a network is computed, not what it computes."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.layers.backbone import TimmBackbone
from saccade.layers.folding import fold_at_first_call, fold_batch_norms
from saccade.layers.normalization import FrozenBatchNorm2d, batch_norms


def randomise(module: nn.Module) -> None:
    """Statistics and scales as a trained network has them."""
    for child in module.modules():
        if isinstance(child, FrozenBatchNorm2d | nn.BatchNorm2d):
            child.running_mean.normal_()
            child.running_var.uniform_(0.5, 2)
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias)


@pytest.mark.parametrize(("name", "norm"), [("resnet18", "frozen"), ("resnet10t", "batch"), ("mobilenetv3_small_050", "batch")])
def test_folded_network_computes_the_same(name: str, norm: str) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(name=name, norm=norm).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        randomise(backbone)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        before = backbone(images)
        folded = fold_batch_norms(backbone, images[:1])
        after = backbone(images)
    assert folded > 5
    assert not batch_norms(backbone) and not any(isinstance(child, FrozenBatchNorm2d) for child in backbone.modules())
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


def test_norm_whose_convolution_has_another_reader_stays() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.side = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y) + self.side(y)

    module = Forked().eval()
    assert fold_batch_norms(module, torch.randn(1, 3, 4, 4)) == 0
    assert isinstance(module.norm, nn.BatchNorm2d)


def test_folding_at_the_first_call_gives_the_same_there_and_later() -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(name="resnet10t").eval()
    with torch.no_grad():
        randomise(backbone)
        images = torch.randn(1, 3, 64, 64)
        before = backbone(images)[-1]
        fold_at_first_call(backbone)
        first, second = backbone(images)[-1], backbone(images)[-1]
    assert not batch_norms(backbone)
    torch.testing.assert_close(first, before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))
    torch.testing.assert_close(second, first)


def test_training_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="train mode"):
        fold_batch_norms(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), torch.randn(1, 3, 4, 4))
