"""The dilated heads: what is added up, what learns, how they begin."""
from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from saccade.layers.aspp import Aspp, AsppGroupNorm

torch.set_num_threads(1)


@pytest.mark.parametrize("active", [2, 4])
def test_the_output_is_the_sum_of_the_active_branches_exactly(active: int) -> None:
    torch.manual_seed(0)
    head, features = Aspp(in_channels=8, num_classes=5, active_branches=active), torch.randn(2, 8, 9, 13)  # type: ignore[arg-type]
    embeddings, logits = head(features)
    expected = head.branches[0](features)
    for branch in head.branches[1:active]:
        expected = expected + branch(features)
    assert torch.equal(logits, expected) and logits.shape == (2, 5, 9, 13)
    assert embeddings is features
    assert [(b.dilation, b.padding) for b in head.branches] == [((rate, rate), (rate, rate)) for rate in (6, 12, 18, 24)]


def test_idle_branches_are_kept_and_never_learn() -> None:
    head = Aspp(in_channels=8, num_classes=5, active_branches=2)
    head(torch.randn(1, 8, 5, 5))[1].sum().backward()
    assert [b.weight.grad is not None for b in head.branches] == [True, True, False, False]
    assert [b.weight.requires_grad for b in head.branches] == [True, True, False, False]


@torch.no_grad()
def test_prodas_head_is_its_definition() -> None:
    torch.manual_seed(0)
    head, features = AsppGroupNorm(in_channels=6, num_classes=3).eval(), torch.randn(1, 6, 7, 9)
    parts = []
    for rate, branch in zip((0, 6, 12, 18, 24), head.branches, strict=True):
        convolved = F.conv2d(features, branch[0].weight, branch[0].bias, padding=rate, dilation=max(rate, 1))
        parts.append(F.group_norm(convolved, 32, branch[1].weight, branch[1].bias).relu())
    together = torch.cat(parts, 1)
    weights = F.linear(F.linear(together.mean((2, 3)), head.weighing.reduce.weight, head.weighing.reduce.bias).relu(), head.weighing.expand.weight,
                       head.weighing.expand.bias).sigmoid()
    narrowed = F.conv2d(together * weights[..., None, None], head.bottleneck.weight, head.bottleneck.bias, padding=1)
    expected = F.group_norm(narrowed, 32, head.norm.weight, head.norm.bias)
    embeddings, logits = head(features)
    torch.testing.assert_close(embeddings, expected)
    torch.testing.assert_close(logits, F.conv2d(expected, head.classifier.weight))
    assert (embeddings < 0).any(), "no activation before the prototypes"


def test_whole_channels_of_the_embeddings_are_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    head, features = AsppGroupNorm(in_channels=6, num_classes=3), torch.randn(1, 6, 7, 9)
    dropped = (head.train()(features)[0] == 0).all((2, 3))
    assert 0 < int(dropped.sum()) < 80 and not (head.eval()(features)[0] == 0).all((2, 3)).any()


def test_heads_begin_with_small_weights() -> None:
    torch.manual_seed(0)
    for head in (Aspp(in_channels=256, num_classes=19), AsppGroupNorm(in_channels=256, num_classes=19)):
        for name, weight in head.named_parameters():
            if weight.ndim == 4:
                assert float(weight.detach().std()) == pytest.approx(0.01, rel=0.1), name
    bound = 1 / (9 * 256) ** 0.5
    bias = Aspp(in_channels=256, num_classes=400).branches[0].bias
    assert 0.9 * bound < float(bias.detach().abs().max()) <= bound  # torch's own
    assert not AsppGroupNorm(in_channels=8, num_classes=2).bottleneck.bias.any()
    with pytest.raises(ValueError, match="rates has 1"):
        Aspp(in_channels=8, num_classes=2, active_branches=2, rates=[6])
