"""Several processes are one: the same losses as a single process with the same total batch, every image counted once."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import end, in_ranks, losses, records, run_to_end, same, train, weights

# Dropout draws other numbers in every process, so the model here has none.
PLAIN: dict[str, Any] = {"steps": 12, "evaluate_every": 6, "batch_size": 8}


class WithoutDropout:
    """A change to the experiment."""

    def __call__(self, experiment: Any) -> None:
        for module in experiment.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    run_to_end(folder, run=PLAIN, change=WithoutDropout())
    return folder


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"strategy": "fsdp"}], ids=["ddp", "accumulated", "fsdp"])
def test_two_processes_have_the_losses_and_figures_of_one(alone: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = tmp_path / "run"
    log = tmp_path / "stderr"
    codes = end(in_ranks(train, folder, run={**PLAIN, **settings}, change=WithoutDropout(), stderr=log))
    assert codes == [0, 0], log.read_text()
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-5)
    ours, theirs = weights(folder), weights(alone)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4)
    for mine, other in zip(records(folder, "evaluation"), records(alone, "evaluation"), strict=True):
        assert {k: v for k, v in mine.items() if k != "time"} == pytest.approx({k: v for k, v in other.items() if k != "time"})


def test_every_image_is_predicted_once_though_13_do_not_divide_by_2(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert end(in_ranks(train, folder, run={**PLAIN, "steps": 2}, change=WithoutDropout())) == [0, 0]
    ids = [entry["id"] for entry in json.loads((folder / "evaluation/val/predictions.json").read_text())]
    assert ids == list(range(13))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_of_two_processes_resumes_bit_for_bit(tmp_path: Path, strategy: str) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    run = {"steps": 10, "strategy": strategy, "evaluate_every": None, "batch_size": 8}
    assert end(in_ranks(train, whole, run=run)) == [0, 0]
    assert end(in_ranks(train, folder, run=run)) == [0, 0]
    import shutil

    shutil.rmtree(folder / "checkpoints" / "step_00000010")
    assert end(in_ranks(train, folder, resume=True, run=run)) == [0, 0]
    assert [r["step"] for r in records(folder, "resume")] == [5]
    assert losses(folder) == losses(whole)
    assert same(weights(folder), weights(whole))
