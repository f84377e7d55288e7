"""F6: a loss or gradient that is not finite, on one process alone, stops all of them before the update."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import end, in_process, in_ranks, losses, train

from saccade.engine.checkpoints import load_tensors, newest_valid
from saccade.engine.experiment import Experiment
from saccade.engine.launch import find_place
from saccade.structures import Batch

SAMPLE = 22


class Poison:
    """Tampers with the model: the loss (or only its gradient) of batches with sample `SAMPLE` is not a number."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, experiment: Experiment) -> None:
        plain, what = experiment.model.losses, self.what

        def losses(outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
            terms = plain(outputs, batch)
            if SAMPLE not in [meta.id for meta in batch.metas]:
                return terms
            if what == "loss":
                return {**terms, "cls_loss": terms["cls_loss"] * float("nan")}
            terms["cls_loss"].register_hook(lambda gradient: gradient * float("inf"))
            return terms

        experiment.model.losses = losses  # type: ignore[method-assign]


def poisoned_run(folder: Path, what: str) -> None:
    train(folder, change=Poison(what), run={"steps": 12, "save_every": 1, "keep_last": 20, "evaluate_every": None})
    raise AssertionError(f"process {find_place().rank} went on")


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_all_processes_stop_before_the_update_and_say_where(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "run"
    assert end(in_ranks(poisoned_run, folder, what, stderr=tmp_path / "stderr")) == [4, 4]
    report = json.loads((folder / "not_finite.json").read_text())
    bad = report["step"]
    assert bad == max(losses(folder)) + 1
    poisoned = [p for p in report["processes"] if f"noise/{SAMPLE}" in p["samples"]]
    assert len(poisoned) == 1 and len(report["processes"]) == 2
    message = (tmp_path / "stderr").read_text()
    assert f"step {bad}" in message and f"noise/{SAMPLE}" in message
    if what == "loss":
        assert f"cls_loss = nan on process {poisoned[0]['rank']}" in message
    else:
        assert "backbone" in message and "gradient" in message
    newest = newest_valid(folder / "checkpoints")
    assert newest is not None and newest.name == f"step_{bad - 1:08d}"
    assert all(bool(torch.isfinite(value).all()) for value in load_tensors(newest).values())


def test_one_process_stops_as_well(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert end([in_process(poisoned_run, folder, "loss")]) == [4]
    report = json.loads((folder / "not_finite.json").read_text())
    assert f"noise/{SAMPLE}" in report["processes"][0]["samples"]
