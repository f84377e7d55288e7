"""Online adaptation predicts before it learns, starts anew where asked, and keeps no more than its window."""
from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from adapting_learners import mean_teacher, state_of, tent
from saccade.adaptation.online import OnlineAdapter, OnlineSettings, Predictor
from saccade.errors import InputError
from saccade.models.contract import Model
from saccade.structures import Batch, Classification
from small_networks import images


def follow(model: Model) -> Predictor:
    """Each frame by itself."""
    return lambda batch: model.predictions(model(batch), batch)


def frame(number: int, video: str = "a", size: int = 64) -> Batch:
    """Frame `number` of a video."""
    batch = images(1, size=size, seed=number)
    batch.metas = [replace(batch.metas[0], video=video, frame=number)]
    return batch


def scores(prediction: object) -> torch.Tensor:
    """The class scores of a classifier's prediction."""
    assert isinstance(prediction, Classification)
    return prediction.scores


def test_a_frame_is_predicted_by_what_was_learnt_before_it() -> None:
    adapter = OnlineAdapter(tent(), OnlineSettings(), follow)
    before = copy.deepcopy(adapter.model)
    first, record = adapter(frame(0))
    torch.testing.assert_close(scores(first), scores(follow(before.eval())(frame(0))[0]))
    assert record.figures["entropy_loss"] > 0 and record.predicting > 0 and record.adapting > 0
    between = copy.deepcopy(adapter.model)
    second, _ = adapter(frame(1))
    torch.testing.assert_close(scores(second), scores(follow(between.eval())(frame(1))[0]))
    assert not torch.allclose(scores(second), scores(follow(before)(frame(1))[0]))


def test_steps_are_taken_as_often_as_settings_say() -> None:
    learner = tent()
    adapter = OnlineAdapter(learner, OnlineSettings(steps=2, every=3), follow)
    done = []
    for number in range(6):
        _, record = adapter(frame(number))
        done.append((learner.steps, bool(record.figures)))
    assert done == [(0, False), (0, False), (2, True), (2, False), (2, False), (4, True)]
    still = OnlineAdapter(tent(), OnlineSettings(steps=0), follow)
    weights = state_of(still.model)
    still(frame(0))
    assert all(torch.equal(value, weights[name]) for name, value in still.model.state_dict().items())


@pytest.mark.parametrize("make", [tent, mean_teacher, lambda: mean_teacher(evaluates="teacher")])
def test_every_video_can_start_from_the_source(make: object) -> None:
    learner = make()  # type: ignore[operator]
    source = state_of(learner.student)
    adapter = OnlineAdapter(learner, OnlineSettings(reset="video"), follow)

    def course(video: str) -> list[float]:
        torch.manual_seed(0)
        return [adapter(frame(number, video))[1].figures["loss"] for number in range(3)]

    first = course("a")
    assert any(not torch.equal(value, source[name]) for name, value in learner.student.state_dict().items())
    assert course("b") == first and learner.steps == 3
    going_on = OnlineAdapter(make(), OnlineSettings(), follow)  # type: ignore[operator]
    adapter = going_on
    assert course("a") == first
    assert course("b") != first and going_on.learner.steps == 6


def test_the_window_holds_the_last_frames_of_one_video_alone() -> None:
    learner = tent()
    adapter = OnlineAdapter(learner, OnlineSettings(window=3), follow)
    seen = []
    step = learner.step
    learner.step = lambda *parts: seen.append([meta.frame for meta in parts[0].metas]) or step(*parts)  # type: ignore[method-assign]
    for number in range(5):
        adapter(frame(number))
    adapter(frame(0, "b"))
    adapter(frame(1, "b", size=32))
    assert seen == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [0], [1]]


def test_the_teacher_can_predict() -> None:
    adapter = OnlineAdapter(mean_teacher(), OnlineSettings(predicts="teacher"), follow)
    assert adapter.model is adapter.learner.teacher
    with pytest.raises(InputError, match="the method has none"):
        OnlineAdapter(tent(), OnlineSettings(predicts="teacher"), follow)
