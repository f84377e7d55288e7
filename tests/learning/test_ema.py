"""The teacher follows its student as far as the rule says."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.errors import InputError
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
    average = MovingAverage(momentum=0.1)
    for step in range(5):
        average.update(teacher, student, step)
    torch.testing.assert_close(teacher.weight, torch.full((3,), 1 - 0.9**5))
    torch.testing.assert_close(teacher.running_mean, torch.full((3,), 1 - 0.9**5))


def test_the_warm_up_slows_the_first_steps_down() -> None:
    average = MovingAverage(momentum=0.002, warm_up=4)
    assert [average.share(t) for t in (0, 1, 3, 9)] == pytest.approx([0.0005, 0.001, 0.002, 0.002])


def test_statistics_can_be_copied_instead_of_averaged() -> None:
    teacher, student = pair()
    MovingAverage(momentum=0.1, buffers="copy").update(teacher, student, 0)
    torch.testing.assert_close(teacher.running_mean, torch.ones(3))
    torch.testing.assert_close(teacher.weight, torch.full((3,), 0.1))


def test_the_teacher_can_begin_as_the_mean_of_its_students() -> None:
    teacher, student = pair()
    average = MovingAverage(momentum=0.1, mean_first=True)
    for step, value in enumerate((3.0, 5.0, 10.0)):
        nn.init.constant_(student.weight, value)  # type: ignore[arg-type]
        average.update(teacher, student, step)
    torch.testing.assert_close(teacher.weight, torch.full((3,), 6.0))
    assert average.share(100) == pytest.approx(0.1) and average.share(7) == pytest.approx(0.125)
    with pytest.raises(InputError, match="give one of them"):
        MovingAverage(momentum=0.1, mean_first=True, warm_up=5)


def test_an_interval_moves_as_far_as_its_single_steps() -> None:
    every, second = MovingAverage(momentum=0.3), MovingAverage(momentum=0.3, interval=2)
    distances = []
    for average in (every, second):
        teacher, student = pair()
        for step in range(1, 5):
            average.update(teacher, student, step)
        distances.append(teacher.weight.detach())
    torch.testing.assert_close(*distances)


def test_the_published_rule_has_a_warm_up_that_binds_at_large_momenta_only() -> None:
    published = MovingAverage(momentum=0.5, warm_up=4, reference_quirks=True)
    assert [published.share(t) for t in (0, 1, 2, 9)] == pytest.approx([1 / 4, 2 / 5, 0.5, 0.5])
    darth = MovingAverage(momentum=0.002, warm_up=100, reference_quirks=True)
    assert {darth.share(t) for t in range(1000)} == {0.002}
    assert MovingAverage(momentum=0.3, interval=2, warm_up=1, reference_quirks=True).share(10) == pytest.approx(0.09)


def test_nothing_happens_between_the_intervals_and_to_buffers_that_do_not_follow() -> None:
    teacher, student = pair()
    average = MovingAverage(momentum=0.3, interval=2, follows=lambda name: False)
    average.update(teacher, student, 1)
    assert not teacher.weight.any()
    average.update(teacher, student, 2)
    torch.testing.assert_close(teacher.weight, torch.full((3,), 1 - 0.7**2))
    assert not teacher.running_mean.any()  # type: ignore[union-attr]


def test_a_momentum_of_zero_keeps_the_teacher() -> None:
    teacher, student = pair()
    MovingAverage(momentum=0.0).update(teacher, student, 0)
    assert not teacher.weight.any()
