"""The strong view of ProDA (Zhang et al. 2021, arXiv:2101.10979; `data/randaugment.py` of its code): two operations drawn from fourteen.

FixMatch's variant of RandAugment: levels are drawn from 1..9, every operation is applied with probability one half, colours are only ever taken away
(factors 0.14 to 0.86). The segmentation moves with the image and is "ignore" where the image has no pixels of its own. The box that the original
cuts out afterwards is `Cutout` with `ignore`.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from saccade.data.transforms.automatic import Drawing, Step, apply_steps
from saccade.data.transforms.sample_transform import SampleTransform, chance, move
from saccade.structures import Applied, Sample
from saccade.structures.ranges import PositiveInt, Probability

OPERATIONS = (
    "AutoContrast", "Brightness", "Color", "Contrast", "Equalize", "Identity", "Posterize", "Rotate", "Sharpness", "ShearX", "ShearY", "Solarize",
    "TranslateX", "TranslateY",
)
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")  # in the order in which the published code repeats them on maps
FLIP = "HorizontalFlip"


class StrongAugment(SampleTransform):
    """Flips with probability `flip`, then `num_operations` of `OPERATIONS`, drawn with replacement, each applied with `probability`.

    `fill` (0..255): what comes from outside. The sample notes what was done (`meta.applied`), geometric operations in Pillow's convention: pixels
    (x, y) of the result show (x + v y, y) of the image for ShearX by slope v, (x + v, y) for TranslateX by v pixels, and degrees of Rotate are
    counter-clockwise.
    """

    def __init__(
        self, *, num_operations: PositiveInt = 2, probability: Probability = 0.5, flip: Probability = 0.5, fill: float = 127.0,
    ) -> None:
        self.num_operations, self.probability, self.flip, self.fill = num_operations, probability, flip, fill

    def draw(self, samples: Sequence[Sample]) -> list[Applied]:
        """What to do, in this order."""
        steps = [Applied(FLIP)] if chance(self.flip) else []
        for index in torch.randint(len(OPERATIONS), (self.num_operations,)).tolist():
            level, sign = int(torch.randint(1, 10, ())), -1 if chance(0.5) else 1
            if chance(self.probability):
                steps.append(Applied(OPERATIONS[index], _values(OPERATIONS[index], level, sign, samples[0].size)))
        return steps

    def apply(self, sample: Sample, drawn: Sequence[Applied]) -> Sample:
        """The changed sample."""
        drawing = Drawing((self.fill,) * 3, InterpolationMode.NEAREST)
        for step in drawn:
            if step.name == FLIP:
                sample = move(sample, F.horizontal_flip)
            elif step.name != "Identity":
                sample = apply_steps(sample, [_as_step(step, sample.size)], drawing)
        return replace(sample, meta=replace(sample.meta, applied=(*sample.meta.applied, *drawn)))


def _values(name: str, level: int, sign: int, size: tuple[int, int]) -> tuple[float, ...]:
    """What an operation does at a level: a factor, bits, a threshold, a slope, pixels or degrees; nothing where there is nothing to say."""
    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
        return (0.05 + 0.09 * level,)
    if name == "Posterize":
        return (4 + 4 * level // 10,)
    if name == "Solarize":
        return (256 - 256 * level // 10,)
    if name == "Rotate":
        return (sign * (30 * level // 10),)
    if name in ("ShearX", "ShearY"):
        return (sign * 0.03 * level,)
    if name in ("TranslateX", "TranslateY"):
        return (int(sign * 0.03 * level * size[name == "TranslateX"]),)
    return ()


def _as_step(step: Applied, size: tuple[int, int]) -> Step:
    """The operation as `automatic` counts: enhancing factors from 1, geometric ones the other way round, translations in parts of the side."""
    value = step.values[0] if step.values else 0.0
    if step.name in ("Brightness", "Color", "Contrast", "Sharpness"):
        return Step(step.name, value - 1)
    if step.name in ("TranslateX", "TranslateY"):
        return Step(step.name, -value / size[step.name == "TranslateX"])
    return Step(step.name, -value if step.name in GEOMETRIC else value)
