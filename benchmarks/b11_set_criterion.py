"""B11: matching and criterion of a training step of DETR, forward and backward, against the published algorithm, at equal outputs.

"published" has the structure of Carion et al.'s code: for each decoder layer the cost of every query of the batch with every object of the batch,
of which the blocks of one image are then solved; for each layer and loss the matched pairs of the images concatenated; the overlap of all pairs, of
which the diagonal counts. Both sides leave out the figures that are only logged. Matches, losses and gradients are compared first; then the two take
turns in one process. Goal: a third of the published algorithm's time.

    python benchmarks/b11_set_criterion.py [--images 32] [--objects 30] [--queries 100] [--layers 6] [--repeats 9] [--threads 1]
"""
from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou

from saccade.layers.set_criterion import SetCriterion
from saccade.layers.set_matching import SetTruth

LOGITS, EOS = 92, 0.1
COSTS = {"class": 1.0, "bbox": 5.0, "giou": 2.0}
WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
GOAL = 3.0

Targets = list[dict[str, Tensor]]
Pairs = list[tuple[Tensor, Tensor]]  # (queries, objects) of every image


def published_match(logits: Tensor, boxes: Tensor, targets: Targets) -> Pairs:
    """One layer: `logits` (N, Q, 92), `boxes` (N, Q, 4)."""
    with torch.no_grad():
        images, queries = logits.shape[:2]
        probability, flat = logits.flatten(0, 1).softmax(-1), boxes.flatten(0, 1)
        labels, wanted = torch.cat([t["labels"] for t in targets]), torch.cat([t["boxes"] for t in targets])
        distance = torch.cdist(flat, wanted, p=1)
        overlap = generalized_box_iou(box_convert(flat, "cxcywh", "xyxy"), box_convert(wanted, "cxcywh", "xyxy"))
        cost = COSTS["bbox"] * distance - COSTS["class"] * probability[:, labels] - COSTS["giou"] * overlap
        blocks = cost.view(images, queries, -1).cpu().split([len(t["labels"]) for t in targets], -1)
        solved = [linear_sum_assignment(block[image]) for image, block in enumerate(blocks)]
        return [(torch.as_tensor(query), torch.as_tensor(target)) for query, target in solved]


def published_losses(logits: Tensor, boxes: Tensor, targets: Targets) -> tuple[dict[str, Tensor], list[Pairs]]:
    """Weighted terms of all layers, one after another, and their matches; `logits` (L, N, Q, 92), `boxes` (L, N, Q, 4)."""
    count = max(sum(len(t["labels"]) for t in targets), 1)
    class_weight = torch.ones(LOGITS)
    class_weight[-1] = EOS
    terms: dict[str, Tensor] = {}
    matches = []
    for layer in range(len(logits)):
        pairs = published_match(logits[layer], boxes[layer], targets)
        matches.append(pairs)
        suffix = "" if layer == len(logits) - 1 else f"_{layer}"
        where = _places(pairs)
        wanted = torch.full(logits.shape[1:3], LOGITS - 1, dtype=torch.int64)
        wanted[where] = torch.cat([t["labels"][target] for t, (_, target) in zip(targets, pairs, strict=True)])
        terms[f"loss_ce{suffix}"] = F.cross_entropy(logits[layer].transpose(1, 2), wanted, class_weight)
        where = _places(pairs)  # every loss of the published code gathers its pairs anew
        got = boxes[layer][where]
        true = torch.cat([t["boxes"][target] for t, (_, target) in zip(targets, pairs, strict=True)])
        terms[f"loss_bbox{suffix}"] = F.l1_loss(got, true, reduction="none").sum() / count
        overlap = generalized_box_iou(box_convert(got, "cxcywh", "xyxy"), box_convert(true, "cxcywh", "xyxy")).diag()
        terms[f"loss_giou{suffix}"] = (1 - overlap).sum() / count
    return {name: value * WEIGHTS[name.rstrip("_0123456789")] for name, value in terms.items()}, matches


def _places(pairs: Pairs) -> tuple[Tensor, Tensor]:
    return torch.cat([torch.full_like(query, image) for image, (query, _) in enumerate(pairs)]), torch.cat([query for query, _ in pairs])


def make_inputs(images: int, objects: int, queries: int, layers: int) -> tuple[Tensor, Tensor, Targets, SetTruth]:
    """Outputs as an untrained head gives them, and the same number of objects in every image."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(layers, images, queries, LOGITS, generator=draw)
    boxes = torch.randn(layers, images, queries, 4, generator=draw).sigmoid()
    sizes = torch.rand(images, objects, 2, generator=draw) * 0.5 + 0.01
    wanted = torch.cat([torch.rand(images, objects, 2, generator=draw) * (1 - sizes) + sizes / 2, sizes], -1)
    labels = torch.randint(0, LOGITS - 1, (images, objects), generator=draw)
    targets = [{"labels": own, "boxes": box} for own, box in zip(labels, wanted, strict=True)]
    image = torch.arange(images).repeat_interleave(objects)
    return logits, boxes, targets, SetTruth(labels.flatten(), wanted.flatten(0, 1), image, torch.full((images,), objects))


def check_equal(logits: Tensor, boxes: Tensor, targets: Targets, truth: SetTruth, criterion: SetCriterion) -> None:
    """Stops where matches, losses or gradients differ."""
    outputs = {"logits": logits.clone().requires_grad_(), "boxes": boxes.clone().requires_grad_()}
    leaves = list(outputs.values())
    expected, pairs = published_losses(outputs["logits"], outputs["boxes"], targets)
    matches = criterion.match(outputs, truth)
    got = criterion.losses(outputs, truth, matches=matches)
    starts = truth.counts.cumsum(0) - truth.counts
    assert torch.equal(matches.query, torch.cat([query for layer in pairs for query, _ in layer]))
    assert torch.equal(matches.target - starts[matches.image], torch.cat([target for layer in pairs for _, target in layer]))
    worst = max(abs(float(got[name].detach()) / float(value.detach()) - 1) for name, value in expected.items())
    gradients = [torch.autograd.grad(sum(terms.values(), torch.zeros(())), leaves, retain_graph=True) for terms in (got, expected)]
    off = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*gradients, strict=True))
    print(f"  {len(matches.query)} matches equal; losses differ by {worst:.1e} at most, gradients by {off:.1e} of the largest")
    assert got.keys() == expected.keys() and worst < 1e-5 and off < 1e-5


def main() -> None:
    """Parse the arguments, check and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, default in (("images", 32), ("objects", 30), ("queries", 100), ("layers", 6), ("repeats", 9), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logits, boxes, targets, truth = make_inputs(arguments.images, arguments.objects, arguments.queries, arguments.layers)
    sizes = f"{arguments.images} images x {arguments.objects} objects, {arguments.queries} queries, {arguments.layers} layers, {LOGITS} logits"
    print(f"{sizes}, {arguments.threads} thread(s), float32")
    criterion = SetCriterion()
    check_equal(logits, boxes, targets, truth, criterion)

    def step(losses: Callable[[Tensor, Tensor], dict[str, Tensor]]) -> None:
        leaves = logits.detach().requires_grad_(), boxes.detach().requires_grad_()
        torch.stack(list(losses(*leaves).values())).sum().backward()

    sides: dict[str, Callable[[Tensor, Tensor], dict[str, Tensor]]] = {
        "saccade": lambda logits, boxes: criterion.losses({"logits": logits, "boxes": boxes}, truth),
        "published": lambda logits, boxes: published_losses(logits, boxes, targets)[0],
    }
    clock: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(arguments.repeats + 1):  # the first round warms up
        for name, losses in sides.items():
            begin, busy = time.perf_counter(), time.process_time()
            step(losses)
            if repeat:
                clock[name].append(time.perf_counter() - begin)
                processor[name].append(time.process_time() - busy)
    for name in sides:
        median, fastest = statistics.median(clock[name]) * 1e3, min(clock[name]) * 1e3
        print(f"  {name:<10} {median:7.1f} ms a step (fastest {fastest:.1f}, processor {statistics.median(processor[name]) * 1e3:.1f})")
    by_clock, by_processor = (statistics.median(t["published"]) / statistics.median(t["saccade"]) for t in (clock, processor))
    shares = f"{by_clock:.1f} by the clock, {min(clock['published']) / min(clock['saccade']):.1f} of the fastest, {by_processor:.1f} by the processor"
    print(f"  published / saccade: {shares} (goal {GOAL:.0f} or more)")


if __name__ == "__main__":
    main()
