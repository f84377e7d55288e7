"""F4: Ctrl-C and SIGTERM end a run of two processes within seconds, with one checkpoint, the signal's exit code and nobody left over."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import SlowSteps, end, in_process, losses, records, run_to_end, same, train, wait_until, weights

from saccade.engine.checkpoints import find_damage, newest_valid, step_of

RECIPE = """
model: {type: ImageClassifier, backbone: {type: LeNet5}}
data: {train: {type: TownClassification, size: 32, num_images: 16}}
learner: {type: Supervised, optimizer: {type: SGD, lr: 0.01}}
run: {steps: 100000, batch_size: 4, log_every: 1}
"""


def processes_of(folder: Path) -> list[int]:
    """Those whose command line names the run folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(folder).encode() in command:
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for left-over processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_processes_stop_together_with_one_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    recipe, folder = tmp_path / "tiny.yaml", tmp_path / "run"
    recipe.write_text(RECIPE)
    command = [sys.executable, "-m", "saccade", "train", str(recipe), "--out", str(folder), "--devices", "2", "--accelerator", "cpu"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)
    try:
        wait_until(lambda: max(losses(folder), default=0) >= 5 or run.poll() is not None, timeout=120)
        assert run.poll() is None
        begun = time.monotonic()
        run.send_signal(number)
        said = run.communicate(timeout=30)[1]
        assert time.monotonic() - begun < 10
    finally:
        run.kill()
    assert run.returncode == 128 + number, said
    newest = newest_valid(folder / "checkpoints")
    assert newest is not None and step_of(newest) == max(losses(folder))
    assert len(list((folder / "checkpoints").glob("step_*"))) == 1
    assert said.count("Stopped at step") == 1 and "--resume" in said
    assert not processes_of(folder)


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    run_to_end(whole)
    process = in_process(train, folder, callbacks=[SlowSteps(0.02)])
    wait_until(lambda: max(losses(folder), default=0) >= 13, process)
    process.terminate()
    assert end([process]) == [143]
    newest = newest_valid(folder / "checkpoints")
    assert newest is not None and step_of(newest) == max(losses(folder)) and find_damage(newest) is None
    run_to_end(folder, resume=True)
    assert losses(folder) == losses(whole)
    assert same(weights(folder), weights(whole))


class SlowEvaluation:
    """A change to the experiment: every prediction takes a while, so that a signal hits the evaluation."""

    def __init__(self, seconds: float, mark: Path) -> None:
        self.seconds, self.mark = seconds, mark

    def __call__(self, experiment: object) -> None:
        model = experiment.model  # type: ignore[attr-defined]
        plain = model.predictions

        def predictions(*arguments: object) -> object:
            self.mark.touch()
            time.sleep(self.seconds)
            return plain(*arguments)

        model.predictions = predictions


def test_a_signal_during_an_evaluation_stops_it_and_it_is_done_after_resuming(tmp_path: Path) -> None:
    whole, folder, mark = tmp_path / "whole", tmp_path / "run", tmp_path / "evaluating"
    run_to_end(whole, run={"steps": 20})
    process = in_process(train, folder, run={"steps": 20}, change=SlowEvaluation(0.3, mark))
    wait_until(mark.exists, process)
    process.terminate()
    assert end([process]) == [143]
    newest = newest_valid(folder / "checkpoints")
    assert newest is not None and step_of(newest) == 10
    run_to_end(folder, resume=True, run={"steps": 20})
    assert [r["step"] for r in records(folder, "evaluation")] == [10, 20]
    assert same(weights(folder), weights(whole))
