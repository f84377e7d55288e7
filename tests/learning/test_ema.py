"""The teacher follows by DARTH's rule."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.learning.ema import MovingAverage


def pair() -> tuple[nn.Module, nn.Module]:
    """A teacher of zeros and a student of ones."""
    teacher, student = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    for network, value in ((teacher, 0.0), (student, 1.0)):
        for tensor in (*network.parameters(), network.running_mean, network.running_var):
            assert tensor is not None
            nn.init.constant_(tensor, value)
    return teacher, student


def test_the_distance_shrinks_by_the_momentum_at_each_step() -> None:
    teacher, student = pair()
    average = MovingAverage(momentum=0.1, warm_up=1)
    for step in range(5):
        average.update(teacher, student, step)
    torch.testing.assert_close(teacher.weight, torch.full((3,), 1 - 0.9**5))
    torch.testing.assert_close(teacher.running_mean, torch.full((3,), 1 - 0.9**5))


def test_the_warm_up_limits_the_share_of_early_steps() -> None:
    average = MovingAverage(momentum=0.5, warm_up=4)
    assert [average.share(t) for t in (0, 1, 2, 9)] == pytest.approx([1 / 4, 2 / 5, 0.5, 0.5])


def test_nothing_happens_between_the_intervals_and_to_buffers_that_do_not_follow() -> None:
    teacher, student = pair()
    average = MovingAverage(momentum=0.3, interval=2, warm_up=1, follows=lambda name: False)
    average.update(teacher, student, 1)
    assert not teacher.weight.any()
    average.update(teacher, student, 2)
    torch.testing.assert_close(teacher.weight, torch.full((3,), 0.3**2))
    assert not teacher.running_mean.any()  # type: ignore[union-attr]
