"""The adapting learner: what moves, what stays, who follows, and how a run goes on."""
from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from adapting_learners import mean_teacher, started, state_of, tent
from saccade.adaptation.adapting import Adapting
from saccade.adaptation.objects import ConfidentDetections, SelfEntropyDescent
from saccade.adaptation.terms.batch_norm_statistics import BatchNormStatistics
from saccade.adaptation.terms.entropy import Entropy
from saccade.errors import InputError
from saccade.learning.contract import Learner
from saccade.learning.ema import MovingAverage
from saccade.learning.gradients import NotFiniteError
from saccade.learning.optimizers import SGD
from small_networks import detector, images


def changed(before: dict[str, Tensor], network: nn.Module) -> set[str]:
    """The names of tensors that are not what they were."""
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def test_it_is_a_learner() -> None:
    assert isinstance(tent(), Learner)


def test_tent_lowers_the_entropy_and_moves_norms_alone() -> None:
    learner = tent()
    before = state_of(learner.student)
    losses = [learner.step(images(4))["entropy_loss"] for _ in range(5)]
    assert losses[-1] < losses[0]
    moved = changed(before, learner.student)
    norms = {f"{path}.{leaf}" for path, m in learner.student.named_modules() if isinstance(m, nn.BatchNorm2d) for leaf in dict(m.named_parameters())}
    assert moved & norms == norms
    assert all(name in norms or "running" in name or "num_batches" in name for name in moved)


def test_statistics_alone_adapt_without_any_gradient() -> None:
    learner = tent(terms=[BatchNormStatistics(moved_by="own")], trainable="nothing")
    before = state_of(learner.student)
    assert learner.step(images(4)) == {"loss": 0}
    assert changed(before, learner.student) and not changed(before, learner.student) & {n for n, _ in learner.student.named_parameters()}
    assert learner.steps == 1


def test_the_teacher_follows_the_student_and_gets_no_gradient() -> None:
    learner = mean_teacher()
    assert learner.teacher is not None
    start = state_of(learner.student)
    figures = learner.step(images(4))
    assert figures["pseudo_objects"] > 0
    for name, value in learner.teacher.named_parameters():
        assert value.grad is None and not value.requires_grad
        student = dict(learner.student.named_parameters())[name]
        torch.testing.assert_close(value, start[name] + 0.1 * (student.detach() - start[name]))


def test_the_network_to_evaluate_is_a_choice() -> None:
    learner = mean_teacher(evaluates="teacher")
    assert learner.model is learner.teacher
    assert mean_teacher().model is not learner.teacher


def test_the_same_state_gives_the_same_next_steps() -> None:
    def next_steps(learner: Adapting) -> list[float]:
        torch.manual_seed(7)
        return [learner.step(images(4, seed=s))["loss"] for s in range(2)]

    for make in (mean_teacher, tent, lambda: mean_teacher(evaluates="teacher")):
        first = make()
        first.step(images(4, seed=9))
        weights, state = state_of(first.model), copy.deepcopy(first.state_dict())
        expected = next_steps(first)
        second = make()
        second.model.load_state_dict(weights)
        second.load_state_dict(state)
        assert next_steps(second) == expected
        for name, value in second.student.state_dict().items():
            assert torch.equal(value, first.student.state_dict()[name]), name


def test_parts_of_a_batch_add_up() -> None:
    whole, parts = tent(terms=[Entropy()]), tent(terms=[Entropy()])
    batches = images(2, seed=0), images(2, seed=1)
    together = images(4)
    together.images = torch.cat([b.images for b in batches])
    assert whole.step(together)["loss"] == pytest.approx(parts.step(*batches)["loss"], rel=1e-4)


def test_a_step_without_pseudo_objects_changes_nothing() -> None:
    learner = mean_teacher(objects=ConfidentDetections(threshold=1.0))
    before = state_of(learner.student)
    assert learner.step(images(2))["loss"] == 0
    assert not changed(before, learner.student)


def test_a_loss_that_is_not_finite_stops_before_the_update() -> None:
    learner = tent()
    bad = images(2)
    bad.images = bad.images.float()
    bad.images[0, 0, 0, 0] = float("nan")
    before = {name: value.detach().clone() for name, value in learner.student.named_parameters()}
    with pytest.raises(NotFiniteError, match="entropy_loss"):
        learner.step(bad)
    assert all(torch.equal(value, before[name]) for name, value in learner.student.named_parameters())


def test_contradictions_are_named() -> None:
    optimizer, model = SGD(lr=0.1), detector()
    with pytest.raises(InputError, match="there is no teacher"):
        Adapting(model=model, terms=[Entropy()], optimizer=optimizer, evaluates="teacher")
    with pytest.raises(InputError, match="asks the teacher"):
        Adapting(model=model, terms=[Entropy()], optimizer=optimizer, objects=ConfidentDetections())
    with pytest.raises(InputError, match="class_head"):
        Adapting(model=model, terms=[Entropy()], optimizer=optimizer, trainable=["class_haeds"])
    with pytest.raises(InputError, match="two terms give the loss entropy_loss"):
        started(Adapting(model=detector(), terms=[Entropy(), Entropy()], optimizer=optimizer)).step(images(2))
    with pytest.raises(InputError, match="nothing to train"):
        started(Adapting(model=detector(), terms=[BatchNormStatistics()], optimizer=optimizer)).step(images(2))


def test_only_what_is_named_trains() -> None:
    learner = started(Adapting(model=detector(), terms=[Entropy()], optimizer=SGD(lr=0.1), trainable=["class_heads"]))
    before = state_of(learner.student)
    learner.step(images(2))
    assert changed(before, learner.student) and all(name.startswith("class_heads") for name in changed(before, learner.student))
    assert [group.name for group in learner.parameter_groups()] == ["all"]


def test_the_threshold_goes_down_until_the_student_grows_less_sure() -> None:
    def after(rounds: list[tuple[float, int]]) -> SelfEntropyDescent:
        search = SelfEntropyDescent(start=0.9, step=0.1, stop=0.3, every=2)
        for entropy, count in rounds:
            search._sum, search._count, search._seen = entropy, count, 2
            search._end_round()
        return search

    assert after([(1.0, 4), (0.8, 4)]).threshold == pytest.approx(0.7)
    settled = after([(1.0, 4), (0.8, 4), (1.2, 4)])
    assert settled.settled and settled.threshold == pytest.approx(0.8)
    assert not after([(0.0, 0), (0.0, 0)]).settled  # no detections say nothing
    lowest = after([(1.0 - 0.1 * i, 1) for i in range(7)])
    assert lowest.settled and lowest.threshold == pytest.approx(0.3)
    again = SelfEntropyDescent()
    again.load_state_dict(settled.state_dict())
    assert again.state_dict() == settled.state_dict()


def test_the_search_watches_the_student_through_the_learner() -> None:
    search = SelfEntropyDescent(start=0.4, step=0.05, stop=0.3, every=2)
    learner = mean_teacher(objects=search, teacher=MovingAverage(momentum=0.0))
    for _ in range(2):
        learner.step(images(2))
    assert search.threshold == pytest.approx(0.35)
