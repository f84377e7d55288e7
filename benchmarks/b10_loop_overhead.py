"""B10: what loop, learner, Fabric, records and progress bar cost a step, against a bare PyTorch loop; and how long commands take to start.

Both sides train the same tiny model (about a millisecond a step) with the same fused optimiser and gradient norm from the same ready batches, in one
process, taking turns; the order of each pair changes. Losses must be equal before anything is timed.

    python benchmarks/b10_loop_overhead.py [--steps 2000] [--repeats 7]
"""
from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from saccade.engine.checkpoints import ModelCard
from saccade.engine.launch import start_fabric
from saccade.engine.progress import TrainingProgress
from saccade.engine.run_folder import RunFolder
from saccade.engine.settings import RunSettings
from saccade.engine.training import Training
from saccade.layers.pixels import PixelNorm
from saccade.learning.optimizers import SGD
from saccade.learning.supervised import Supervised
from saccade.models.contract import Model
from saccade.recipes import recipe_from_values
from saccade.structures import Annotations, Batch, Meta, Outputs, Prediction

GOAL = 150.0  # microseconds a step
BATCH, SIZE, CLASSES = 8, 32, 10
WARM, TURN = 20, 200  # steps before the clock starts, and of one turn


class Tiny(Model):
    """Three convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__(tuple(map(str, range(CLASSES))), PixelNorm())
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(32, CLASSES)

    def forward(self, batch: Batch) -> Outputs:
        """`logits` (N, K)."""
        return {"logits": self.head(self.body(self.pixel_norm(batch.images)).mean((2, 3)))}

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """`cls_loss`."""
        labels = torch.tensor([int(t.label or 0) for t in batch.targets])
        return {"cls_loss": nn.functional.cross_entropy(outputs["logits"], labels)}

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """Not asked for here."""
        return []


class ReadyBatches:
    """Stands for the loader: the same sixteen batches again and again, already in memory."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.made = [
            Batch(
                torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), generator=draw, dtype=torch.uint8),
                [Annotations(label=(i * k) % CLASSES) for i in range(BATCH)], [Meta("ready", i) for i in range(BATCH)],
            )
            for k in range(16)
        ]
        self.dataset = self
        self.classes: tuple[str, ...] = tuple(map(str, range(CLASSES)))
        self.skipped: dict[str, str] = {}

    def __len__(self) -> int:
        return 16

    def close(self) -> None:
        """There are no processes to end."""

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """Endlessly, from a step on."""
        return itertools.islice(itertools.cycle(self.made), start_step % 16, None)


class Stopwatch:
    """Seconds a step from step `WARM` to the last, by the wall clock and of this process's computing; setting up and tidying up do not count."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        """After each step."""
        self.losses.append(figures["loss"])
        if step == WARM:
            self.begun = (time.perf_counter(), time.process_time())
        self.ended, self.steps = (time.perf_counter(), time.process_time()), step - WARM

    def microseconds(self) -> tuple[float, float]:
        """(wall, computing) a step."""
        wall, computing = ((b - a) / self.steps * 1e6 for a, b in zip(self.begun, self.ended, strict=True))
        return wall, computing


def bare(steps: int) -> Stopwatch:
    """The loop that one would write by hand: the same forward, norm and update, the loss looked at in every step."""
    model = Tiny().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=True)
    batches = ReadyBatches().batches()
    watch = Stopwatch()
    for step in range(1, steps + 1):
        batch = next(batches)
        loss = model.losses(model(batch), batch)["cls_loss"]
        loss.backward()
        nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad()
        watch(step, {"loss": loss.item()})
    return watch


def ours(steps: int) -> Stopwatch:
    """The same through the engine: finite checks, records every ten steps, progress."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, open("/dev/null", "w", encoding="utf-8") as nowhere:
        settings = RunSettings(steps=steps, batch_size=BATCH)
        console = Console(file=nowhere, force_terminal=True)
        recipe = recipe_from_values({"run": {"steps": steps}}, "benchmark", "benchmark")
        run = RunFolder(Path(folder) / "run")
        run.begin(recipe)
        ready: Any = ReadyBatches()
        training = Training(
            recipe=recipe, settings=settings, fabric=start_fabric(settings, "cpu"),
            learner=Supervised(model=Tiny(), optimizer=SGD(lr=0.01, momentum=0.9)), loader=ready,
            evaluation_loaders={}, metrics=[], folder=run, card=ModelCard({}, (), [], {}), callbacks=[watch],
            progress=lambda start, total: TrainingProgress(console, start, total),
        )
        training.run()
    return watch


def start_times(repeats: int) -> None:
    """`saccade --help`, `import saccade`, and others for comparison."""
    commands = {
        "python -c pass": ["-c", "pass"], "import saccade": ["-c", "import saccade"], "saccade --help": ["-m", "saccade", "--help"],
        "import torch": ["-c", "import torch"], "import saccade.engine.experiment": ["-c", "import saccade.engine.experiment"],
    }
    for name, words in commands.items():
        times = []
        for _ in range(repeats):
            begun = time.perf_counter()
            subprocess.run([sys.executable, *words], capture_output=True, check=True)
            times.append(time.perf_counter() - begun)
        print(f"{name:34s} median {statistics.median(times):.3f} s   fastest {min(times):.3f} s")


def main() -> None:
    """Print both sides and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="of each side, in turns of 200")
    parser.add_argument("--repeats", type=int, default=7, help="of the starts of commands")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    largest = max(abs(a - b) for a, b in zip(bare(50).losses, ours(50).losses, strict=True))
    print(f"largest difference of 50 losses: {largest:.1e}")
    assert largest < 1e-5
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for turn in range(max(1, options.steps // TURN)):
        order = (bare, ours) if turn % 2 else (ours, bare)
        times = {call: call(TURN + WARM).microseconds() for call in order}
        pairs.append((times[bare], times[ours]))
    for kind, name in enumerate(("wall clock", "computing")):
        differences = [b[kind] - a[kind] for a, b in pairs]
        theirs, own = (statistics.median(pair[side][kind] for pair in pairs) for side in (0, 1))
        print(
            f"{name}: bare loop {theirs:7.1f} us/step, saccade {own:7.1f}; "
            f"overhead median {statistics.median(differences):6.1f}, fastest pair {min(differences):6.1f} (goal: at most {GOAL:.0f})"
        )
    start_times(options.repeats)


if __name__ == "__main__":
    main()
