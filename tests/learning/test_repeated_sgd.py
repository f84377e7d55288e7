"""Several passes a step over some parameters: what torch's one-by-one SGD made of lists with duplicates, of which the original training consisted."""
from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.errors import InputError
from saccade.layers.backbone import TimmBackbone
from saccade.learning.groups import GroupRules, parameter_groups
from saccade.learning.optimizers import SGD, Adam, AdamW, RepeatedSGD
from saccade.models.deeplab import DeepLabV2

torch.set_num_threads(1)


def trajectory(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: int = 4) -> list[Tensor]:
    """The parameters after `steps` steps with the gradients 1, 2, 3, ..."""
    for number in range(1, steps + 1):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, float(number))
        optimizer.step()
    return [p.detach().clone() for p in parameters]


def one() -> nn.Parameter:
    return nn.Parameter(torch.ones(1, dtype=torch.float64))


def repeated(parameter: nn.Parameter, repeats: int) -> torch.optim.Optimizer:
    spec = RepeatedSGD(lr=0.1, momentum=0.9, weight_decay=0.01)
    return spec.build([{"params": [parameter], "repeats": repeats}])


def listed(parameter: nn.Parameter, times: int, **version: Any) -> torch.optim.Optimizer:
    """The original's way: the parameter stands several times in the list."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of duplicates
        return torch.optim.SGD([parameter] * times, lr=0.1, momentum=0.9, weight_decay=0.01, **version)


def test_the_toy_of_the_specification_ends_where_it_says() -> None:
    # From 1 with the gradients 1 to 4, rate 0.1, momentum 0.9, weight decay 0.01: three passes, torch's foreach on a list of three, one pass.
    ends = [float(trajectory(make(p := one()), [p])[0]) for make in (
        lambda p: repeated(p, 3), lambda p: listed(p, 3, foreach=False), lambda p: listed(p, 3, foreach=True), lambda p: repeated(p, 1),
    )]
    assert ends == [pytest.approx(value, abs=5e-4) for value in (-9.136, -9.136, -12.083, -0.863)]


@pytest.mark.parametrize("repeats", [1, 3, 4])
@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 5e-4), (0.0, 0.1), (0.9, 0.0)])
def test_passes_equal_torchs_one_by_one_version_exactly(repeats: int, momentum: float, decay: float) -> None:
    torch.manual_seed(0)
    mine = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(5))]
    theirs = [nn.Parameter(p.detach().clone()) for p in mine]
    spec = RepeatedSGD(lr=0.05, momentum=momentum, weight_decay=decay)
    optimizer = spec.build([{"params": mine[:1], "repeats": repeats}, {"params": mine[1:], "lr": 0.5}])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        groups = [{"params": theirs[:1] * repeats}, {"params": theirs[1:], "lr": 0.5}]
        reference = torch.optim.SGD(groups, lr=0.05, momentum=momentum, weight_decay=decay, foreach=False)
    for a, b in zip(trajectory(optimizer, mine), trajectory(reference, theirs), strict=True):
        assert torch.equal(a, b)


def test_a_parameter_that_gets_its_first_gradient_later_begins_then() -> None:
    early, late, alone = one(), one(), one()
    optimizer = RepeatedSGD(lr=0.1, momentum=0.9).build([{"params": [early, late], "repeats": 3}])
    trajectory(optimizer, [early], 2)
    early.grad = None
    both = trajectory(optimizer, [late], 3)
    assert torch.equal(both[0], trajectory(RepeatedSGD(lr=0.1, momentum=0.9).build([{"params": [alone], "repeats": 3}]), [alone], 3)[0])


def test_it_goes_on_where_its_state_was_taken() -> None:
    parameter, other = one(), one()
    optimizer = repeated(parameter, 3)
    trajectory(optimizer, [parameter], 2)
    other.data.copy_(parameter.data)
    resumed = repeated(other, 3)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(trajectory(optimizer, [parameter], 3)[0], trajectory(resumed, [other], 3)[0])


@pytest.mark.parametrize(("affine", "expected"), [(False, {1: 1, 3: 99, 4: 4}), (True, {1: 3, 3: 297, 4: 12})])
def test_a_recipe_can_name_what_the_originals_repeat(affine: bool, expected: dict[int, int]) -> None:
    backbone = TimmBackbone(name="resnet101", out_indices=[3, 4], output_stride=8, first_block_dilation="own", stride_in="1x1", norm_affine=affine)
    model = DeepLabV2(classes=["a", "b"], backbone=backbone)
    rules = GroupRules({"head": {"lr": 10.0}, "repeated_3": {"repeats": 3}, "repeated_4": {"repeats": 4}})
    groups = parameter_groups(model, 2.5e-4, 5e-4, rules)
    assert {g.repeats: len(g.parameters) for g in groups if g.name != "head"} == expected
    head = next(g for g in groups if g.name == "head")
    assert (head.lr, head.repeats, head.rate) == (2.5e-3, 1, "0.0025")
    assert next(g for g in groups if g.repeats == 3).rate == "0.00025, 3 times a step"
    built = RepeatedSGD(lr=2.5e-4, momentum=0.9).build([g.for_optimizer() for g in groups])
    assert sorted(group["repeats"] for group in built.param_groups) == sorted(g.repeats for g in groups)


def test_other_optimizers_and_halves_of_a_pass_are_refused() -> None:
    for spec in (SGD(lr=0.1), Adam(lr=0.1), AdamW(lr=0.1)):
        with pytest.raises(InputError, match=r"learner\.groups\.repeated_3: repeats needs the optimizer RepeatedSGD"):
            spec.build([{"params": [one()], "name": "repeated_3", "repeats": 3}])
    for value in (0.5, 0.0, 2.5):
        with pytest.raises(InputError, match="a whole number from 1"):
            GroupRules({"backbone": {"repeats": value}})
