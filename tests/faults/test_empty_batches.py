"""F8, the training side: what is legal in annotations trains, also where one process of two has pictures without any object."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import end, in_process, in_ranks, losses, records, weights

from saccade.data.contract import Video
from saccade.data.sampling import InSequence
from saccade.data.settings import DataSettings
from saccade.engine.experiment import Experiment, build_metrics, build_model
from saccade.engine.launch import seed_everything
from saccade.recipes import build_section, recipe_from_values
from saccade.structures import Annotations, Sample, make_sample

CLASSES = ("square", "other")
OBJECTS = {
    "in every second picture": lambda index: index % 2 == 0,  # the second of two processes has none
    "in no picture of a step": lambda index: index < 4,
    "in one picture of the data": lambda index: index == 5,
}


class Squares:
    """Sixteen pictures of 64 pixels; those that `shows` names have a crowd, an object at the edge, one pixel of an object and two equal boxes."""

    name, classes, videos = "squares", CLASSES, tuple[Video, ...]()

    def __init__(self, where: str) -> None:
        self.where = where

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Sample:
        image = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        return make_sample(image, self.annotations(index), dataset=self.name, id=index)

    def annotations(self, index: int) -> Annotations:
        if not OBJECTS[self.where](index):
            return Annotations(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64), crowd=torch.zeros(0, dtype=torch.bool))
        boxes = torch.tensor([[0.0, 0, 64, 64], [40, 30, 64, 64], [7, 9, 8, 10], [10, 10, 30, 34], [10, 10, 30, 34]])
        return Annotations(boxes=boxes, labels=torch.tensor([0, 1, 0, 1, 0]), crowd=torch.tensor([True, False, False, False, False]))

    def item_id(self, index: int) -> str:
        return str(index)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


def train_detector(folder: Path, where: str) -> None:
    """Four steps of a small SSD; every parameter of every head must get a finite gradient in each of them."""
    torch.set_num_threads(1)
    backbone = {"type": "TimmSSD", "name": "resnet10t", "extra_channels": [], "norm": "frozen", "options": {"channels": [8, 16, 24, 32]}}
    recipe = recipe_from_values({
        "model": {"type": "SSD", "backbone": backbone, "image_size": 64},
        "learner": {"type": "Supervised", "optimizer": {"type": "SGD", "lr": 0.001}},
        "metrics": [{"type": "CocoDetection"}, {"type": "VocDetection"}],
        "run": {"steps": 4, "batch_size": 4, "log_every": 1},
    }, "tiny", "test")
    seed_everything(0)
    model = build_model(recipe, CLASSES)
    finite: dict[str, list[bool]] = {}
    heads = {name: parameter for name, parameter in model.named_parameters() if not name.startswith("backbone.")}
    for name, parameter in heads.items():
        parameter.register_hook(lambda gradient, name=name: finite.setdefault(name, []).append(bool(gradient.isfinite().all())))
    data = DataSettings(train=Squares(where), evaluate={"val": Squares(where)}, sampler=InSequence())
    settings, learner = build_section(recipe, "run"), build_section(recipe, "learner", model=model)
    experiment = Experiment(recipe, data, model, learner, build_metrics(recipe, CLASSES), settings)
    experiment.train(folder, accelerator="cpu")
    assert heads and finite == {name: [True] * 4 for name in heads}


@pytest.mark.parametrize("where", OBJECTS)
def test_two_processes_of_which_one_has_no_objects_learn_what_one_process_does(tmp_path: Path, where: str) -> None:
    alone, together, log = tmp_path / "alone", tmp_path / "together", tmp_path / "stderr"
    assert end([in_process(train_detector, alone, where, stderr=log)]) == [0], log.read_text()
    assert end(in_ranks(train_detector, together, where, stderr=log)) == [0, 0], log.read_text()
    assert len(losses(alone)) == 4 and all(torch.isfinite(torch.tensor(loss)) for loss in losses(alone).values())
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4, abs=1e-6)
    ours, theirs = weights(together), weights(alone)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5)
    if where == "in no picture of a step":
        assert [losses(alone)[step] for step in (2, 3, 4)] == [0, 0, 0]
    figures = [{key: value for key, value in records(folder, "evaluation")[0].items() if key != "time"} for folder in (alone, together)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-6, nan_ok=True)
