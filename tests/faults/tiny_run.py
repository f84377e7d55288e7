"""A run of seconds for the tests of faults: LeNet on 32-pixel pictures, in real processes that can be killed.

Processes come from a server that has imported everything once, because importing torch takes longer than the whole run.
"""
from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saccade.data.contract import Video
from saccade.engine.experiment import Experiment
from saccade.engine.launch import import_fabric
from saccade.engine.loop import Callback
from saccade.errors import SaccadeError
from saccade.recipes import build_section, recipe_from_values
from saccade.recipes.recipe import Recipe
from saccade.structures import Annotations, Sample, make_sample

CLASSES = ("dark", "grey", "light")
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tiny_run", "torch._dynamo"])
import_fabric()


class Noise:
    """`length` noisy pictures of 32 pixels whose brightness is their class."""

    def __init__(self, length: int = 48, name: str = "noise") -> None:
        self.length, self.name, self.classes, self.videos = length, name, CLASSES, tuple[Video, ...]()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        draw = torch.Generator().manual_seed(index)
        image = torch.randint(0, 120, (3, 32, 32), generator=draw) + 60 * (index % 3)
        return make_sample(image.to(torch.uint8), self.annotations(index), dataset=self.name, id=index)

    def annotations(self, index: int) -> Annotations:
        return Annotations(label=index % 3)

    def item_id(self, index: int) -> str:
        return str(index)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


def tiny_recipe(**run: Any) -> Recipe:
    """The recipe; its data is described by names that the tests' own `tiny_experiment` fills."""
    settings = {"steps": 40, "batch_size": 8, "save_every": 5, "evaluate_every": 10, "log_every": 1, "keep_last": 3, **run}
    values = {
        "model": {"type": "ImageClassifier", "backbone": {"type": "LeNet5"}, "dropout": 0.2},
        "data": {"train_transforms": [{"type": "RandomHorizontalFlip"}], "workers": 0},
        "learner": {"type": "Supervised", "optimizer": {"type": "AdamW", "lr": 0.002}, "schedule": {"type": "Cosine"}, "clip_norm": 1.0},
        "metrics": [{"type": "ClassificationAccuracy"}],
        "run": settings,
    }
    return recipe_from_values(values, "tiny", "test")


def tiny_experiment(recipe: Recipe, workers: int = 0, length: int = 48) -> Experiment:
    """The experiment of `tiny_recipe`, on `Noise`."""
    from dataclasses import replace

    from saccade.engine.experiment import build_metrics, build_model
    from saccade.engine.launch import seed_everything

    settings = build_section(recipe, "run")
    seed_everything(settings.seed)
    data = replace(build_section(recipe, "data"), train=Noise(length), evaluate={"val": Noise(13, "val")}, workers=workers)
    model = build_model(recipe, CLASSES)
    return Experiment(recipe, data, model, build_section(recipe, "learner", model=model), build_metrics(recipe, CLASSES), settings)


def train(
    folder: Path, *, resume: bool = False, workers: int = 0, length: int = 48, run: dict[str, Any] | None = None, callbacks: Sequence[Callback] = (),
    change: Callable[[Experiment], object] | None = None, **options: Any,
) -> None:
    """Train the tiny run in this process; `change` may tamper with the experiment first."""
    torch.set_num_threads(1)
    experiment = tiny_experiment(tiny_recipe(**(run or {})), workers, length)
    if change is not None:
        change(experiment)
    experiment.train(folder, resume=resume, accelerator="cpu", callbacks=callbacks, **options)


def in_process(
    target: Callable[..., object], *arguments: Any, rank: int | None = None, ranks: int = 1, port: int = 0, stderr: Path | None = None, **named: Any
) -> BaseProcess:
    """Start `target` in a process of its own that ends as the command line does; as one of several ranks where `rank` says so.

    What it says goes to the file `stderr`, where there is one.
    """
    environment = {} if rank is None else {
        "LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }
    process = CONTEXT.Process(target=_as_command, args=(target, arguments, named, environment, stderr))
    process.start()
    return process


def _as_command(
    target: Callable[..., object], arguments: Sequence[Any], named: dict[str, Any], environment: dict[str, str], stderr: Path | None
) -> None:
    os.environ.update(environment)
    if stderr is not None:
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    multiprocessing.set_start_method("fork", force=True)  # for the data workers, as in a program that no server started
    try:
        target(*arguments, **named)
    except SaccadeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def in_ranks(target: Callable[..., object], *arguments: Any, ranks: int = 2, **named: Any) -> list[BaseProcess]:
    """Start `target` in `ranks` processes that form one run over gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    return [in_process(target, *arguments, rank=rank, ranks=ranks, port=port, **named) for rank in range(ranks)]


def end(processes: Sequence[BaseProcess], timeout: float = 90.0) -> list[int | None]:
    """Wait for all; the exit codes. What does not end in time is killed, and its code is None."""
    deadline = time.monotonic() + timeout
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.exitcode is None:
            process.kill()
            process.join()
    return codes


def run_to_end(folder: Path, **named: Any) -> None:
    """The run in a process of its own, to its end."""
    codes = end([in_process(train, folder, **named)])
    assert codes == [0], f"the run ended with {codes}"


def kill(process: BaseProcess) -> None:
    """SIGKILL: nothing can be tidied up."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def wait_until(condition: Callable[[], bool], process: BaseProcess | None = None, timeout: float = 60.0) -> None:
    """Wait for `condition`, at most `timeout` seconds and while `process` runs."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert process is None or process.is_alive() or condition(), f"the process ended with {process.exitcode}"
        time.sleep(0.005)


def records(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The records of that kind in metrics.jsonl; a cut-off last line is left out."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [r for r in found if r["kind"] == kind]


def losses(folder: Path) -> dict[int, float]:
    """Loss by step."""
    return {r["step"]: r["loss"] for r in records(folder)}


def weights(folder: Path) -> dict[str, Tensor]:
    """Of the last checkpoint."""
    from safetensors.torch import load_file

    last = (folder / "checkpoints" / "last").read_text().strip()
    return load_file(folder / "checkpoints" / last / "model.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def stale_files(folder: Path) -> list[str]:
    """Temporary names that are left anywhere in the run folder."""
    return [str(p) for p in folder.rglob("*saccade-tmp*")]


class SlowSteps:
    """A callback that makes each step last, so that a kill hits the middle of the run."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, step: int, figures: object) -> None:
        time.sleep(self.seconds)
