"""B9: what a step of adaptation costs beyond the passes through the networks that it can't do without.

A QDTrack with ResNet-50 adapts to one picture of town. The lower bound is written in plain torch: every pass of the teacher, every pass of the
student forwards and backwards (from the squares of the same outputs), the optimiser's step; no views, no losses of the method, no moving average, no
checks. "consistency" has one pass of each network, "DARTH" two of each: its teacher also looks for objects, its student also sees the contrastive
view. Whole steps and bare passes take turns in one process; medians. Goal: 1.10 times the bound.

    python benchmarks/b09_adaptation_step.py [--height 480] [--width 640] [--repeats 7] [--threads 2]
"""
from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from saccade.adaptation.adapting import Adapting
from saccade.adaptation.context import RAW, Context
from saccade.data.town.dataset import Town
from saccade.recipes import build, load_recipe
from saccade.structures import Batch, collate

GOAL = 1.10
DISTORTED = {"type": "View", "after": "teacher", "transforms": [{"type": "PhotometricDistort"}]}


def learner_of(method: str) -> Adapting:
    """A set-up learner of the method with its own networks, of random weights."""
    values = load_recipe("darth_mot17_dancetrack").values["learner"]
    views = {"teacher": {"type": "View", "transforms": []}, "student": DISTORTED}
    if method == "DARTH":
        views["contrastive"] = {"type": "View", "transforms": [{"type": "RandomHorizontalFlip", "p": 1.0}, {"type": "PhotometricDistort"}]}
        views["teacher"] = {"type": "View", "transforms": [{"type": "RandomHorizontalFlip", "p": 1.0}]}
    else:
        values["terms"], values["objects"] = values["terms"][:1], None
    torch.manual_seed(0)
    spec = load_recipe("qdtrack_r50_fpn_mot17").values["model"]
    spec["backbone"]["pretrained"] = False
    model = build({**spec, "classes": ["person"]}, where="model")
    learner: Adapting = build({**values, "views": views}, where="learner", model=model)
    learner.setup(Fabric(accelerator="cpu", devices=1), 10_000, 1000)
    return learner


def bare_step(learner: Adapting, views: dict[str, Batch]) -> Callable[[], None]:
    """The passes alone. `views`: what the networks see, made beforehand."""
    student, teacher = learner.student, learner.teacher
    assert teacher is not None
    optimizer = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=0.0, momentum=0.9)

    def step() -> None:
        with torch.no_grad():
            if "contrastive" in views:
                teacher.detect(teacher(views[RAW]))  # type: ignore[operator]
            theirs = teacher(views["teacher"])
            teacher.box_outputs(theirs["features"], theirs["proposals"])  # type: ignore[operator]
        own = student(views["student"])
        read: list[Tensor] = [*own["rpn_logits"], *own["rpn_deltas"], *student.box_outputs(own["features"], theirs["proposals"])]  # type: ignore[operator]
        if "contrastive" in views:
            other = student(views["contrastive"])
            for outputs, view in ((own, views["student"]), (other, views["contrastive"])):
                samples = student.sample_instances(outputs, view.targets, objects_only=False)  # type: ignore[operator]
                read += student.embed(outputs["features"], [boxes for boxes, _ in samples])  # type: ignore[operator]
        torch.stack([output.square().mean() for output in read]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def views_of(learner: Adapting, batch: Batch) -> dict[str, Batch]:
    """The views that a step of `learner` makes."""
    from saccade.adaptation.views import make_views

    objective = learner.objective
    found = None
    if objective.objects is not None:
        found = objective.objects.find(Context(learner.student, learner.teacher, {RAW: batch}, 0))
    return make_views(objective.views, batch, found)


def measure(sides: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of each side, which take turns."""
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(repeats + 1):
        for side, own in zip(sides, times, strict=True):
            begun = time.perf_counter()
            side()
            if turn:  # the first is for warming up
                own.append(time.perf_counter() - begun)
    return [statistics.median(own) for own in times]


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, default in (("height", 480), ("width", 640), ("repeats", 7), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    town = Town(split="val", domain="day", size=(arguments.height, arguments.width), num_videos=1, frames_per_video=4)
    batch = collate([town[0]])
    print(f"one picture of {arguments.height} x {arguments.width}, ResNet-50, {arguments.threads} threads, median of {arguments.repeats}")
    for method in ("consistency", "DARTH"):
        learner = learner_of(method)
        views = views_of(learner, batch)
        learner.student.eval()
        bare, whole = measure([bare_step(learner, views), lambda learner=learner: learner.step(batch)], arguments.repeats)
        verdict = "within" if whole <= GOAL * bare else "ABOVE"
        figures = f"bare passes {bare * 1e3:7.0f} ms   whole step {whole * 1e3:7.0f} ms   {whole / bare:.3f} x"
        print(f"{method:<12} {figures} ({verdict} the goal of {GOAL:.2f})")


if __name__ == "__main__":
    main()
