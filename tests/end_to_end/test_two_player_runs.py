"""A run with two players, a labelled source beside an unlabelled target: killed and resumed, and in several processes, it is the same run."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import SlowSteps, end, in_process, in_ranks, kill, losses, run_to_end, same, train, wait_until, weights
from torch import Tensor

from saccade.adaptation.adapting import Adapting
from saccade.adaptation.terms.adversarial import Adversarial
from saccade.adaptation.terms.class_prior import ClassPrior
from saccade.adaptation.terms.supervision import Supervision
from saccade.data.contract import Video
from saccade.engine.checkpoints import load_training, newest_valid
from saccade.layers.discriminator import Discriminator
from saccade.learning.optimizers import SGD, Adam
from saccade.structures import Annotations, Sample, make_sample
from small_networks import segmenter

RUN: dict[str, Any] = {"steps": 12, "batch_size": 2, "save_every": 3, "evaluate_every": None}


class Streets:
    """Noise with a map of three classes, or without one."""

    def __init__(self, name: str, labelled: bool) -> None:
        self.name, self.labelled, self.classes, self.videos = name, labelled, ("a", "b", "c"), tuple[Video, ...]()

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Sample:
        draw = torch.Generator().manual_seed(index + 100 * self.labelled)
        image = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8, generator=draw), scale_factor=8)[0] * 255
        return make_sample(image.to(torch.uint8), self.annotations(index), dataset=self.name, id=index)

    def annotations(self, index: int) -> Annotations:
        draw = torch.Generator().manual_seed(index)
        return Annotations(segmentation=torch.randint(0, 3, (64, 64), generator=draw, dtype=torch.uint8) if self.labelled else None)

    def item_id(self, index: int) -> str:
        return str(index)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


class TwoPlayers:
    """A change to the experiment: a small AdaptSegNet, with a term that counts."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def __call__(self, experiment: Any) -> None:
        model = segmenter(auxiliary=False)
        judge = Adversarial(weight=0.1, discriminator=Discriminator(channels=8), optimizer=Adam(lr=1e-3))
        experiment.model = model
        experiment.learner = Adapting(
            model=model, terms=[Supervision(), judge, ClassPrior(slack=1.0)], optimizer=SGD(lr=1e-3, momentum=0.9), mode=self.mode,  # type: ignore[arg-type]
        )
        experiment.data = replace(experiment.data, train=Streets("target", False), source=Streets("source", True), evaluate={}, train_transforms=[])
        experiment.metrics = []


def players(folder: Path) -> dict[str, Tensor]:
    """The weights of the student and of its opponent, and what the prior counted, at the end of a run."""
    newest = newest_valid(folder / "checkpoints")
    assert newest is not None
    state = load_training(newest)["learner"]
    return weights(folder) | {f"opponent.{n}": v for n, v in state["opponents"]["discriminator"]["network"].items()} | state["terms"][2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_to_end(folder, run=RUN, change=TwoPlayers("train"))
    return folder


def test_a_killed_run_of_two_players_ends_with_the_weights_of_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = in_process(train, folder, run=RUN, change=TwoPlayers("train"), callbacks=[SlowSteps(0.05)])
    wait_until(lambda: max(losses(folder), default=0) >= 7, process)
    kill(process)
    run_to_end(folder, run=RUN, change=TwoPlayers("train"), resume=True)
    assert losses(folder) == losses(whole)
    assert same(players(folder), players(whole))
    assert int(players(whole)["counts"].sum()) == 12 * 2 * 64 * 64


def test_two_processes_play_as_one(tmp_path: Path) -> None:
    alone, folder, log = tmp_path / "alone", tmp_path / "run", tmp_path / "stderr"
    run_to_end(alone, run=RUN, change=TwoPlayers("evaluate"))
    codes = end(in_ranks(train, folder, run=RUN, change=TwoPlayers("evaluate"), stderr=log))
    assert codes == [0, 0], log.read_text()
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-5)
    ours, theirs = players(folder), players(alone)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4, msg=name)
