"""Counts that all processes share."""
from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing

from saccade.layers.multibox import match_priors, multibox_losses, pad_truth
from saccade.layers.priors import make_priors
from saccade.ops.distributed import gathered, mean_over_processes
from saccade.structures import Annotations


def losses_of(images: slice) -> dict[str, float]:
    """The losses of some of four images with 5, 0, 0 and 2 objects."""
    generator = torch.Generator().manual_seed(0)
    priors = make_priors(64, [(8, 8), (4, 4)], [8, 24], [24, 48], [[2], [2]])
    targets = []
    for count in (5, 0, 0, 2):
        low = torch.rand(count, 2, generator=generator) * 40
        targets.append(Annotations(boxes=torch.cat([low, low + 16], 1), labels=torch.zeros(count, dtype=torch.int64)))
    logits, offsets = torch.randn(4, len(priors), 3, generator=generator), torch.randn(4, len(priors), 4, generator=generator)
    match = match_priors(pad_truth(targets[images], (64, 64), torch.device("cpu")), priors, 0.5)
    losses = multibox_losses(logits[images], offsets[images], match, priors, center_variance=0.1, size_variance=0.2, negative_ratio=3)
    return {name: float(value) for name, value in losses.items()}


def _run(rank: int, rendezvous: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    mean, rows = float(mean_over_processes(torch.tensor(float(rank)))), gathered(torch.tensor([[rank, 0], [rank, 1], [rank, 2]]))
    torch.save((losses_of(slice(2 * rank, 2 * rank + 2)), mean, rows), f"{results}.{rank}")
    dist.destroy_process_group()


def test_losses_and_rows_of_all_processes_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    arguments = (str(tmp_path / "rendezvous"), str(tmp_path / "result"))
    multiprocessing.start_processes(_run, arguments, nprocs=2, start_method="fork")  # spawning would import torch twice more
    (first, mean, rows), (second, _, others) = (torch.load(tmp_path / f"result.{rank}", weights_only=True) for rank in range(2))
    assert mean == 0.5
    assert rows.tolist() == others.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2], [1, 2]]
    for name, whole in losses_of(slice(0, 4)).items():
        assert abs((first[name] + second[name]) / 2 - whole) < 1e-6 * max(1.0, whole), name


def test_one_process_keeps_its_own_count() -> None:
    assert float(mean_over_processes(torch.tensor(3.0))) == 3.0 and gathered(torch.tensor([3.0])).tolist() == [3.0]
