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
from collections.abc import Callable, Iterator
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

    def __len__(self) -> int:
        return 16

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """Endlessly, from a step on."""
        return itertools.islice(itertools.cycle(self.made), start_step % 16, None)


def bare(steps: int) -> list[float]:
    """The loop that one would write by hand: the same forward, norm and update, the loss looked at in every step."""
    model = Tiny().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=True)
    batches = ReadyBatches().batches()
    losses = []
    for _ in range(steps):
        batch = next(batches)
        loss = model.losses(model(batch), batch)["cls_loss"]
        loss.backward()
        nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def ours(steps: int, shown: bool = True) -> list[float]:
    """The same through the engine: finite checks, records every ten steps, progress."""
    losses: list[float] = []
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
            evaluation_loaders={}, metrics=[], folder=run, card=ModelCard({}, (), [], {}),
            callbacks=[lambda step, figures: losses.append(figures["loss"])],
            progress=(lambda start, total: TrainingProgress(console, start, total)) if shown else None,
        )
        training.run()
    return losses


def seconds(call: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def setup_seconds() -> float:
    """What a run costs beside its steps (folder, Fabric, one checkpoint), to be taken off."""
    return statistics.median(seconds(lambda: ours(1)) for _ in range(5))


def start_times(repeats: int) -> None:
    """`saccade --help`, `import saccade`, and an empty interpreter for comparison."""
    commands = {
        "python -c pass": ["-c", "pass"], "import saccade": ["-c", "import saccade"], "saccade --help": ["-m", "saccade", "--help"],
        "import torch": ["-c", "import torch"], "import saccade.engine.experiment": ["-c", "import saccade.engine.experiment"],
    }
    for name, words in commands.items():
        times = [seconds(lambda words=words: subprocess.run([sys.executable, *words], capture_output=True, check=True)) for _ in range(repeats)]
        print(f"{name:34s} median {statistics.median(times):.3f} s   fastest {min(times):.3f} s")


def main() -> None:
    """Print both sides and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    largest = max(abs(a - b) for a, b in zip(bare(50), ours(50), strict=True))
    print(f"largest difference of 50 losses: {largest:.1e}")
    assert largest < 1e-5
    fixed = setup_seconds()
    pairs = []
    for turn in range(options.repeats):
        order = (bare, ours) if turn % 2 else (ours, bare)
        times = {call: seconds(lambda call=call: call(options.steps)) for call in order}
        pairs.append((times[bare] / options.steps * 1e6, (times[ours] - fixed) / options.steps * 1e6))
    differences = [b - a for a, b in pairs]
    print(f"bare loop {statistics.median(a for a, _ in pairs):8.1f} us/step   saccade {statistics.median(b for _, b in pairs):8.1f} us/step")
    print(f"overhead: median {statistics.median(differences):.1f} us/step, fastest pair {min(differences):.1f} (goal: at most {GOAL:.0f})")
    start_times(options.repeats)


if __name__ == "__main__":
    main()
