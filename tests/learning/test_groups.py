"""Parameter groups by mmcv's rules: the longest key first, norms and biases for the rest."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.errors import InputError
from saccade.layers.pixels import PixelNorm
from saccade.learning.groups import GroupRules, parameter_groups
from saccade.learning.optimizers import SGD, Adam, AdamW, OptimizerSpec
from saccade.models.contract import Model


class Small(Model):
    """Two blocks and a head, with a norm and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__(("a", "b"), PixelNorm())
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
        self.head = nn.Linear(4, 2)
        self.position = nn.Parameter(torch.zeros(4))


def assigned(rules: GroupRules, model: Model | None = None) -> dict[str, tuple[float, float]]:
    """(learning rate, weight decay) by parameter, for a base of 1 and 1."""
    return {name: (g.lr, g.weight_decay) for g in parameter_groups(model or Small(), 1.0, 1.0, rules) for name in g.parameters}


def test_every_trainable_parameter_is_in_one_group() -> None:
    model = Small()
    model.backbone[0].requires_grad_(False)
    names = [n for g in parameter_groups(model, 1.0, 1.0, GroupRules({"head": {"lr": 2.0}}, norm_decay=0.0)) for n in g.parameters]
    assert sorted(names) == sorted(n for n, p in model.named_parameters() if p.requires_grad)


def test_a_named_group_of_the_model_and_a_part_of_a_name_both_work() -> None:
    rates = assigned(GroupRules({"backbone": {"lr": 0.1}, "position": {"weight_decay": 0.0}}))
    assert rates["backbone.2.weight"] == (0.1, 1.0)
    assert rates["head.weight"] == (1.0, 1.0)
    assert rates["position"] == (1.0, 0.0)


def test_the_longest_key_that_fits_wins_and_is_all_that_counts() -> None:
    rates = assigned(GroupRules({"backbone": {"lr": 0.1}, "backbone.1": {"weight_decay": 0.5}}, norm_decay=0.0, bias_decay=0.0))
    assert rates["backbone.1.weight"] == (1.0, 0.5)  # neither the backbone's rate nor the norms' decay
    assert rates["backbone.0.bias"] == (0.1, 1.0)


def test_norms_and_biases_have_rules_of_their_own() -> None:
    rates = assigned(GroupRules(norm_decay=0.0, bias_decay=0.5, bias_lr=2.0))
    assert rates["backbone.1.weight"] == rates["backbone.1.bias"] == (1.0, 0.0)
    assert rates["head.bias"] == (2.0, 0.5)
    assert rates["head.weight"] == rates["position"] == (1.0, 1.0)


@pytest.mark.parametrize("groups", [{"neck": {"lr": 0.1}}, {"head": {"rate": 0.1}}, {"head": {"lr": -1.0}}])
def test_a_key_that_fits_nothing_and_unknown_multipliers_are_refused(groups: dict[str, dict[str, float]]) -> None:
    with pytest.raises(InputError, match=r"learner\.groups"):
        assigned(GroupRules(groups))


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(InputError, match="frozen"):
        assigned(GroupRules(), Small().requires_grad_(False))


@pytest.mark.parametrize(
    "spec, reference",
    [
        (SGD(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True), lambda p: torch.optim.SGD(p, 0.1, 0.9, 0.0, 0.01, True, foreach=False)),
        (Adam(lr=0.1, weight_decay=0.01), lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.01, foreach=False)),
        (AdamW(lr=0.1, betas=(0.8, 0.99)), lambda p: torch.optim.AdamW(p, 0.1, (0.8, 0.99), weight_decay=0.01, foreach=False)),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_the_fast_optimisers_are_torchs_plain_ones_up_to_rounding(spec: OptimizerSpec, reference: object, fused: bool) -> None:
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    fast = spec.build([{"params": [ours]}], fused=fused)
    plain = reference([theirs])  # type: ignore[operator]
    for step in range(5):
        for parameter, optimizer in ((ours, fast), (theirs, plain)):
            parameter.grad = torch.cos(torch.arange(7.0) + step)
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
