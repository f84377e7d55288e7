"""AutoAugment and RandAugment as mmclassification 0.25 defines them (spec B3): its operations, magnitudes, probabilities and fill.

Replaces torchvision's classes of the same name, whose tables differ: there magnitudes come in bins, posterising and solarising count from other
ends, there is no SolarizeAdd, and every operation drawn by RandAugment is applied, here with `probability`.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from saccade.data.transforms.sample_transform import SampleTransform, chance, change_image, move_with_fill, uniform
from saccade.structures import Sample
from saccade.structures.ranges import Probability


class Step(NamedTuple):
    """One operation to apply: its name in `OPERATIONS` and its magnitude (0 where it has none)."""

    name: str
    magnitude: float


@dataclass(frozen=True)
class Drawing:
    """How geometric operations fill in what comes from outside (0..255, RGB) and interpolate."""

    fill: tuple[float, float, float]
    interpolation: InterpolationMode


def _pixels(change: Callable[[Tensor, float], Tensor]) -> Callable[[Sample, float, Drawing], Sample]:
    return lambda sample, magnitude, drawing: change_image(sample, lambda pixels: change(pixels, magnitude))


def _rotate(sample: Sample, degrees: float, drawing: Drawing) -> Sample:
    # Positive is clockwise, as in mmcv; torchvision counts the other way round.
    return move_with_fill(sample, F.rotate, -degrees, interpolation=drawing.interpolation, fill=drawing.fill)


def _affine(sample: Sample, drawing: Drawing, translate: Sequence[float] = (0.0, 0.0), shear: Sequence[float] = (0.0, 0.0)) -> Sample:
    # Shearing leaves the upper left corner where it is.
    return move_with_fill(
        sample, F.affine, angle=0.0, translate=list(translate), scale=1.0, shear=list(shear), center=[0.0, 0.0],
        interpolation=drawing.interpolation, fill=drawing.fill,
    )


def _shear_x(sample: Sample, slope: float, drawing: Drawing) -> Sample:
    return _affine(sample, drawing, shear=(-math.degrees(math.atan(slope)), 0.0))


def _shear_y(sample: Sample, slope: float, drawing: Drawing) -> Sample:
    return _affine(sample, drawing, shear=(0.0, -math.degrees(math.atan(slope))))


def _translate_x(sample: Sample, fraction: float, drawing: Drawing) -> Sample:
    return _affine(sample, drawing, translate=(fraction * sample.size[1], 0.0))


def _translate_y(sample: Sample, fraction: float, drawing: Drawing) -> Sample:
    return _affine(sample, drawing, translate=(0.0, fraction * sample.size[0]))


def _solarize(pixels: Tensor, threshold: float) -> Tensor:
    # As a float: against uint8 pixels torch would wrap the integer 256 round to 0.
    return torch.where(pixels < float(threshold), pixels, 255 - pixels)


def _solarize_add(pixels: Tensor, addition: float) -> Tensor:
    # Like the original it truncates the sum, and changes dark pixels alone.
    return torch.where(pixels < 128, (pixels.float() + addition).clamp(max=255).to(torch.uint8), pixels)


# name -> how it changes a uint8 sample. Factors of the enhancing ones are 1 + magnitude.
OPERATIONS: dict[str, Callable[[Sample, float, Drawing], Sample]] = {
    "AutoContrast": _pixels(lambda pixels, _: F.autocontrast(pixels)),
    "Brightness": _pixels(lambda pixels, m: F.adjust_brightness(pixels, max(0.0, 1 + m))),
    "Color": _pixels(lambda pixels, m: F.adjust_saturation(pixels, max(0.0, 1 + m))),
    "Contrast": _pixels(lambda pixels, m: F.adjust_contrast(pixels, max(0.0, 1 + m))),
    "Equalize": _pixels(lambda pixels, _: F.equalize(pixels)),
    "Invert": _pixels(lambda pixels, _: 255 - pixels),
    "Posterize": _pixels(lambda pixels, bits: F.posterize(pixels, math.ceil(bits))),
    "Rotate": _rotate,
    "Sharpness": _pixels(lambda pixels, m: F.adjust_sharpness(pixels, max(0.0, 1 + m))),
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "Solarize": _pixels(_solarize),
    "SolarizeAdd": _pixels(_solarize_add),
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
}
_SIGNED = frozenset({"Brightness", "Color", "Contrast", "Rotate", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY"})

# name -> magnitude at level 0 and at the highest level: mmclassification's "increasing" table.
INCREASING: dict[str, tuple[float, float]] = {
    "AutoContrast": (0, 0), "Equalize": (0, 0), "Invert": (0, 0), "Rotate": (0, 30), "Posterize": (4, 0), "Solarize": (256, 0),
    "SolarizeAdd": (0, 110), "Color": (0, 0.9), "Contrast": (0, 0.9), "Brightness": (0, 0.9), "Sharpness": (0, 0.9),
    "ShearX": (0, 0.3), "ShearY": (0, 0.3), "TranslateX": (0, 0.45), "TranslateY": (0, 0.45),
}

_S = 256 / 9  # one step of AutoAugment's solarising threshold
# Each policy: two operations with magnitude and probability (Cubuk et al. 2019, table 9; magnitudes as mmclassification writes them).
IMAGENET_POLICIES: tuple[tuple[tuple[str, float, float], tuple[str, float, float]], ...] = (
    (("Posterize", 4, 0.4), ("Rotate", 30, 0.6)),
    (("Solarize", 4 * _S, 0.6), ("AutoContrast", 0, 0.6)),
    (("Equalize", 0, 0.8), ("Equalize", 0, 0.6)),
    (("Posterize", 5, 0.6), ("Posterize", 5, 0.6)),
    (("Equalize", 0, 0.4), ("Solarize", 5 * _S, 0.2)),
    (("Equalize", 0, 0.4), ("Rotate", 30 / 9 * 8, 0.8)),
    (("Solarize", 6 * _S, 0.6), ("Equalize", 0, 0.6)),
    (("Posterize", 6, 0.8), ("Equalize", 0, 1.0)),
    (("Rotate", 10, 0.2), ("Solarize", _S, 0.6)),
    (("Equalize", 0, 0.6), ("Posterize", 5, 0.4)),
    (("Rotate", 30 / 9 * 8, 0.8), ("Color", 0, 0.4)),
    (("Rotate", 30, 0.4), ("Equalize", 0, 0.6)),
    (("Equalize", 0, 0.0), ("Equalize", 0, 0.8)),
    (("Invert", 0, 0.6), ("Equalize", 0, 1.0)),
    (("Color", 0.4, 0.6), ("Contrast", 0.8, 1.0)),
    (("Rotate", 30 / 9 * 8, 0.8), ("Color", 0.2, 1.0)),
    (("Color", 0.8, 0.8), ("Solarize", 2 * _S, 0.8)),
    (("Sharpness", 0.7, 0.4), ("Invert", 0, 0.6)),
    (("ShearX", 0.3 / 9 * 5, 0.6), ("Equalize", 0, 1.0)),
    (("Color", 0, 0.4), ("Equalize", 0, 0.6)),
    (("Equalize", 0, 0.4), ("Solarize", 5 * _S, 0.2)),
    (("Solarize", 4 * _S, 0.6), ("AutoContrast", 0, 0.6)),
    (("Invert", 0, 0.6), ("Equalize", 0, 1.0)),
    (("Color", 0.4, 0.6), ("Contrast", 0.8, 1.0)),
    (("Equalize", 0, 0.8), ("Equalize", 0, 0.6)),
)


def apply_steps(sample: Sample, steps: Sequence[Step], drawing: Drawing) -> Sample:
    """`sample` (uint8) after `steps`, one after another."""
    for step in steps:
        sample = OPERATIONS[step.name](sample, step.magnitude, drawing)
    return sample


class AutoAugment(SampleTransform):
    """One of the 25 ImageNet policies of AutoAugment (Cubuk et al. 2019), each of its two operations with its own probability, signs random.

    `fill` is for what rotating and shearing bring in; interpolation is nearest unless asked for. Geometric operations move boxes and masks, too.
    """

    def __init__(
        self, *, fill: tuple[float, float, float] = (128.0, 128.0, 128.0), interpolation: Literal["nearest", "bilinear", "bicubic"] = "nearest",
        negative_probability: Probability = 0.5,
    ) -> None:
        self.fill, self.interpolation, self.negative_probability = fill, interpolation, negative_probability

    def draw(self, samples: Sequence[Sample]) -> list[Step]:
        """The operations to apply."""
        policy = IMAGENET_POLICIES[int(torch.randint(len(IMAGENET_POLICIES), ()))]
        return [_signed(name, magnitude, self.negative_probability) for name, magnitude, probability in policy if chance(probability)]

    def apply(self, sample: Sample, drawn: list[Step]) -> Sample:
        """The changed sample."""
        return apply_steps(sample, drawn, Drawing(self.fill, InterpolationMode(self.interpolation)))


class RandAugment(SampleTransform):
    """`num_policies` operations drawn with replacement from the "increasing" table, at `magnitude_level` of `total_level` (Cubuk et al. 2020).

    The level is spread by a normal distribution of `magnitude_std` (limited to 0..total_level), or with "inf" drawn uniformly from 0 up to it. Each
    drawn operation is applied with `probability` (0.5 is mmclassification's and timm's), signs are random. `operations` restricts the table.
    """

    def __init__(
        self, *, num_policies: int = 2, magnitude_level: float = 9, magnitude_std: float | Literal["inf"] = 0.0, total_level: float = 30,
        probability: Probability = 0.5, negative_probability: Probability = 0.5, operations: list[str] | None = None,
        fill: tuple[float, float, float] = (128.0, 128.0, 128.0), interpolation: Literal["nearest", "bilinear", "bicubic"] = "nearest",
    ) -> None:
        unknown = [name for name in operations or [] if name not in INCREASING]
        if unknown:
            raise ValueError(f"RandAugment has no operation {unknown[0]!r}; it has {', '.join(INCREASING)}")
        self.num_policies, self.magnitude_level, self.magnitude_std, self.total_level = num_policies, magnitude_level, magnitude_std, total_level
        self.probability, self.negative_probability = probability, negative_probability
        self.operations = list(INCREASING) if operations is None else operations
        self.fill, self.interpolation = fill, interpolation

    def draw(self, samples: Sequence[Sample]) -> list[Step]:
        """The operations to apply."""
        names = [self.operations[i] for i in torch.randint(len(self.operations), (self.num_policies,)).tolist()]
        steps = [_signed(name, self._magnitude(name), self.negative_probability) for name in names]
        return [step for step in steps if chance(self.probability)]

    def _magnitude(self, name: str) -> float:
        level = float(self.magnitude_level)
        if self.magnitude_std == "inf":
            level = uniform(0.0, level)
        elif self.magnitude_std > 0:
            level = min(float(self.total_level), max(0.0, level + torch.randn(()).item() * self.magnitude_std))
        low, high = INCREASING[name]
        return low + level / self.total_level * (high - low)

    def apply(self, sample: Sample, drawn: list[Step]) -> Sample:
        """The changed sample."""
        return apply_steps(sample, drawn, Drawing(self.fill, InterpolationMode(self.interpolation)))


def _signed(name: str, magnitude: float, negative_probability: float) -> Step:
    return Step(name, -magnitude if name in _SIGNED and chance(negative_probability) else magnitude)
