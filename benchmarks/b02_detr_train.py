"""B2: one training step of DETR ResNet-50 against transformers' `DetrForObjectDetection`: forward, matching, losses of six layers, backward, AdamW.

Equal weights, pictures and objects (2 pictures of 480 x 640 with 6 boxes each), float32, no dropout. The losses of five steps are compared first.
Speed alternates both sides in one process; peak memory is that of one process a side, started anew. Goals: images a second 1.0 times theirs or more,
losses equal to 1e-4.

    python benchmarks/b02_detr_train.py [--steps 6] [--threads 2]
"""
from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saccade.layers.backbone import TimmBackbone
from saccade.layers.transformer import Transformer
from saccade.models.detr import DETR
from saccade.structures import Annotations, Batch, Geometry, Meta
from saccade.weights.load import load_into

CLASSES, HEIGHT, WIDTH, OBJECTS, RATE, DECAY = 91, 480, 640, 6, 1e-4, 1e-4
Step = Callable[[], float]


def make_batch() -> Batch:
    """Two noisy pictures with six boxes each."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(2, 3, HEIGHT // 20, WIDTH // 20, generator=generator) * 255
    images = nn.functional.interpolate(noise, size=(HEIGHT, WIDTH), mode="bilinear").to(torch.uint8)
    targets = []
    for _ in range(2):
        corners = torch.rand(OBJECTS, 2, 2, generator=generator).sort(1).values * torch.tensor([WIDTH - 20.0, HEIGHT - 20.0])
        labels = torch.randint(CLASSES, (OBJECTS,), generator=generator)
        targets.append(Annotations(boxes=torch.cat([corners[:, 0], corners[:, 1] + 20], 1), labels=labels))
    meta = Meta(original_size=(HEIGHT, WIDTH), geometry=Geometry.identity((HEIGHT, WIDTH)))
    return Batch(images, targets, [meta, meta])


def make_theirs() -> Any:
    """transformers' model in train mode, seeded."""
    from transformers import DetrConfig, DetrForObjectDetection

    torch.manual_seed(0)
    settings = DetrConfig(
        use_timm_backbone=True, backbone="resnet50", use_pretrained_backbone=False, num_labels=CLASSES, dropout=0.0, auxiliary_loss=True,
    )
    return DetrForObjectDetection(settings).train()


def make_ours(weights: dict[str, Tensor]) -> DETR:
    """Ours with `weights` of theirs."""
    backbone = TimmBackbone(name="resnet50", norm="frozen", frozen_stages=1, out_indices=[4])
    model = DETR(classes=[f"class {k}" for k in range(CLASSES)], backbone=backbone, transformer=Transformer(dropout=0.0), reference_quirks=True)
    load_into(model, weights)
    return model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload,no-any-return]


def their_step(model: Any, batch: Batch) -> Step:
    """A step as their users write it: their collator's normalised pixels and relative boxes, `loss.backward()`, AdamW."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=DECAY)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    labels = [{"class_labels": t.labels, "boxes": relative(t.boxes)} for t in batch.targets if t.boxes is not None]

    def step() -> float:
        pixels = (batch.images.float() - mean) / std
        loss = model(pixel_values=pixels, pixel_mask=torch.ones(2, HEIGHT, WIDTH, dtype=torch.long), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def our_step(model: DETR, batch: Batch) -> Step:
    """The same through the model's own methods."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=DECAY, fused=True)

    def step() -> float:
        loss = torch.stack(list(model.losses(model(batch), batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def relative(boxes: Tensor) -> Tensor:
    """Relative (cx, cy, w, h)."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low], 1) / torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])


def peak(side: str, threads: int) -> float:
    """Peak memory in GiB of a process that makes three steps of one side."""
    command = [sys.executable, __file__, "--alone", side, "--threads", str(threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def alone(side: str) -> None:
    """Three steps of one side, then the process's peak memory."""
    theirs, batch = make_theirs(), make_batch()
    if side == "transformers":
        step = their_step(theirs, batch)
    else:
        ours = make_ours(theirs.state_dict())
        del theirs
        step = our_step(ours, batch)
    for _ in range(3):
        step()
    print(peak_of_this_process())


def peak_of_this_process() -> float:
    """GiB. On Linux from the kernel's own mark: what getrusage tells begins with the size of the process that started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        return float(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Compare, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", choices=("transformers", "saccade"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.alone:
        alone(options.alone)
        return
    theirs, batch = make_theirs(), make_batch()
    steps = {"saccade": our_step(make_ours(theirs.state_dict()), batch), "transformers": their_step(theirs, batch)}
    losses = {name: [step() for _ in range(5)] for name, step in steps.items()}
    for name, values in losses.items():
        print(f"{name:14s} losses of five steps: {', '.join(f'{value:.5f}' for value in values)}")
    worst = max(abs(a - b) / abs(b) for a, b in zip(losses["saccade"], losses["transformers"], strict=True))
    print(f"largest relative difference of the losses: {worst:.1e} (goal 1e-4)")
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.steps):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begun)
    for name, seconds in times.items():
        speed = 2 / statistics.median(seconds)
        print(f"{name:14s} {speed:.3f} images/s (fastest {2 / min(seconds):.3f}), peak memory {peak(name, options.threads):.2f} GiB")
    by_median, by_fastest = (choose(times["transformers"]) / choose(times["saccade"]) for choose in (statistics.median, min))
    print(f"saccade / transformers: {by_median:.2f} times the images a second, {by_fastest:.2f} by the fastest (goal 1.0 or more)")


if __name__ == "__main__":
    main()
