"""Town for classifiers: one object, centred, in front of a piece of street; the label is its class, or what the person does."""
from __future__ import annotations

import math
import random
from typing import Any, Literal

import numpy as np
import torch

from saccade.data.contract import Video
from saccade.data.town.animals import dog, random_breed
from saccade.data.town.dataset import check_names, picture_size
from saccade.data.town.motion import FRONT
from saccade.data.town.people import person, random_appearance
from saccade.data.town.poses import pose_of
from saccade.data.town.props import bench
from saccade.data.town.rendering import frame_with, scene_of
from saccade.data.town.scene import Layer
from saccade.data.town.shapes import Figure
from saccade.data.town.vehicles import random_vehicle, rider_pose, vehicle
from saccade.data.town.vocabulary import ACTIONS, BICYCLE, CLASSES, DOG, NO_ACTION, PERSON, RIDE, RUN, SIT, TURN, WALK
from saccade.structures import Annotations, Sample, make_sample
from saccade.structures.ranges import PositiveInt


class TownClassification:
    """`num_images` pictures of one object each; `sample.label` is the index of its class, every class equally often.

    `target` "class": the classes of `Town` (person, car, ...); "action": people alone, labelled by what they do. `split`, `domain`, `size` and `seed`
    are those of `Town`.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "val", "test"] = "train",
        domain: Literal["day", "night", "fog", "rain", "sketch", "camera"] = "day",
        size: PositiveInt | tuple[PositiveInt, PositiveInt] = 64,
        num_images: PositiveInt = 1000,
        seed: int = 0,
        target: Literal["class", "action"] = "class",
    ) -> None:
        check_names(split, domain)
        self.size = picture_size(size)
        self.split, self.domain, self.num_images, self.seed, self.target = split, domain, num_images, seed, target
        self.name = f"town_{target}_{domain}_{split}"
        self.classes = CLASSES if target == "class" else ACTIONS
        self.videos: tuple[Video, ...] = ()

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> Sample:
        """Picture `index`. Raises IndexError."""
        known = self.annotations(index)
        key = self._key(index)
        scene = scene_of(key, self.size[1] / self.size[0], 1.0)
        frame = frame_with(scene, [self._portrait(index)], self.size)
        pixels = np.ascontiguousarray(frame.picture(self.domain, key).transpose(2, 0, 1))
        return make_sample(torch.from_numpy(pixels), known, dataset=self.name, id=self.item_id(index))

    def annotations(self, index: int) -> Annotations:
        """The label of picture `index`."""
        return Annotations(label=self._locate(index) % len(self.classes))

    def item_id(self, index: int) -> str:
        """Name of picture `index`, such as "val_00012"; the same in every domain."""
        return f"{self.split}_{self._locate(index):05d}"

    def describe(self) -> dict[str, Any]:
        """Counts and settings."""
        counts = {name: len(range(k, len(self), len(self.classes))) for k, name in enumerate(self.classes)}
        return {"name": self.name, "images": len(self), "size": self.size, "classes": list(self.classes), "labels": counts}

    def _locate(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name}: there is no picture {index}; it has {len(self)}")
        return index % len(self)

    def _key(self, index: int) -> str:
        return f"saccade town {self.target}/{self.split}/{self.seed}/{self._locate(index)}"

    def _portrait(self, index: int) -> Layer:
        """The object of picture `index`, as large as fits."""
        rng = random.Random(self._key(index) + "/portrait")
        label = self._locate(index) % len(self.classes)
        kind, figure = (label, _some_object(rng, label)) if self.target == "class" else (PERSON, _somebody(rng, label))
        if rng.random() < 0.5:
            figure = figure.mirrored()
        (left, low), (right, high) = figure.points.min(0), figure.points.max(0)
        width = self.size[1] / self.size[0]
        scale = rng.uniform(0.68, 0.86) * min(width / (right - left), 1 / (high - low))
        x = width / 2 - scale * (left + right) / 2 + rng.uniform(-0.06, 0.06) * width
        y = 0.5 + scale * (low + high) / 2 + rng.uniform(-0.05, 0.05)
        return Layer(figure, x, y, scale, kind, kind, 1, label if self.target == "action" else NO_ACTION)


def _some_object(rng: random.Random, label: int) -> Figure:
    """An object of class `label`: bicycles have no rider, and people do anything but ride."""
    if label == PERSON:
        return _somebody(rng, rng.choice([a for a in range(len(ACTIONS)) if a != RIDE]))
    if label == DOG:
        return dog(random_breed(rng), rng.uniform(0, 2), rng.uniform(0, 2), rng.random() < 0.6)
    return vehicle(random_vehicle(rng, label), rng.uniform(0, 3))


def _somebody(rng: random.Random, action: int) -> Figure:
    """A person in the middle of `action`; riders are drawn with their bicycle, sitters with a bench."""
    looks, time = random_appearance(rng), rng.uniform(0, 3)
    if action == RIDE:
        pose, seat = rider_pose(time)
        return _together(vehicle(random_vehicle(rng, BICYCLE), time), person(pose, looks, seat))
    yaw = {WALK: 0.0, RUN: 0.0, TURN: rng.uniform(-math.pi, math.pi)}.get(action, FRONT + rng.uniform(-0.5, 0.5))
    body = person(pose_of(action, time, time, yaw), looks)
    return _together(bench(rng), body) if action == SIT else body


def _together(first: Figure, second: Figure) -> Figure:
    return Figure(
        np.concatenate([first.points, second.points]), first.lengths + second.lengths, np.concatenate([first.colours, second.colours]),
        np.concatenate([first.glow, second.glow]),
    )  # fmt: skip
