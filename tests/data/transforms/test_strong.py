"""ProDA's strong view: its operations are Pillow's, what it notes is what it did, and holes are marked."""
from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision import tv_tensors

from saccade.data.transforms.classification import Cutout, Window
from saccade.data.transforms.strong import GEOMETRIC, OPERATIONS, StrongAugment
from saccade.structures import Annotations, Applied, Sample, make_sample

TRANSFORM = StrongAugment()


def picture(height: int = 48, width: int = 80) -> Sample:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 10, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").mul(254).to(torch.uint8)[0]
    return make_sample(pixels, Annotations(segmentation=torch.zeros(height, width, dtype=torch.uint8)))


def changed(name: str, value: float) -> np.ndarray:
    return TRANSFORM.apply(picture(), [Applied(name, (value,))]).image.permute(1, 2, 0).numpy().astype(int)


def by_pillow(name: str, value: float) -> np.ndarray:
    image = Image.fromarray(picture().image.permute(1, 2, 0).numpy())
    affine = {"ShearX": (1, value, 0, 0, 1, 0), "ShearY": (1, 0, 0, value, 1, 0), "TranslateX": (1, 0, value, 0, 1, 0),
              "TranslateY": (1, 0, 0, 0, 1, value)}  # fmt: skip
    if name in affine:
        image = image.transform(image.size, Image.Transform.AFFINE, affine[name], Image.Resampling.NEAREST, fillcolor=(127,) * 3)
    elif name == "Rotate":
        image = image.rotate(value, fillcolor=(127,) * 3)
    elif name in ("Brightness", "Color", "Contrast", "Sharpness"):
        image = getattr(ImageEnhance, name)(image).enhance(value)
    else:
        image = getattr(ImageOps, name.lower())(image, int(value))
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name, value", [
    ("ShearX", 0.21), ("ShearX", -0.12), ("ShearY", 0.27), ("TranslateX", 17), ("TranslateX", -9), ("TranslateY", 7), ("Rotate", 21), ("Rotate", -12),
])
def test_geometric_operations_are_those_of_pillow(name: str, value: float) -> None:
    assert (np.abs(changed(name, value) - by_pillow(name, value)).max(-1) <= 6).mean() > 0.97  # a nearest neighbour may differ by one


@pytest.mark.parametrize("name, value, tolerance", [
    ("Brightness", 0.32, 1), ("Color", 0.14, 2), ("Contrast", 0.5, 2), ("Posterize", 5, 0), ("Solarize", 129, 0), ("Sharpness", 0.23, 1),
])
def test_colour_operations_are_those_of_pillow(name: str, value: float, tolerance: int) -> None:
    inner = (slice(1, -1), slice(1, -1))  # sharpness treats the border in its own way
    assert np.abs(changed(name, value) - by_pillow(name, value))[inner].max() <= tolerance


@pytest.mark.parametrize("name, value", [("ShearX", 0.27), ("ShearY", -0.27), ("TranslateX", 20), ("TranslateY", -12), ("Rotate", 24)])
def test_what_comes_from_outside_is_grey_and_a_hole(name: str, value: float) -> None:
    sample = TRANSFORM.apply(picture(), [Applied(name, (value,))])
    assert sample.segmentation is not None
    holes = sample.segmentation == 255
    assert 0.02 < holes.float().mean() < 0.5
    assert set(sample.segmentation.unique().tolist()) == {0, 255}
    assert (sample.image[:, holes] == 127).all()


def test_colours_leave_the_geometry_and_the_map_alone() -> None:
    for name, value in (("AutoContrast", None), ("Equalize", None), ("Identity", None), ("Color", 0.3)):
        sample = TRANSFORM.apply(picture(), [Applied(name, () if value is None else (value,))])
        assert torch.equal(sample.meta.geometry, picture().meta.geometry)  # type: ignore[arg-type]
        assert not sample.segmentation.any()  # type: ignore[union-attr]


def test_draws_are_those_of_the_published_code() -> None:
    torch.manual_seed(0)
    sample, seen, lengths = picture(100, 200), dict[str, set[float]](), Counter[int]()
    for _ in range(6000):
        steps = [step for step in TRANSFORM.draw([sample]) if step.name != "HorizontalFlip"]
        lengths[len(steps)] += 1
        for step in steps:
            seen.setdefault(step.name, set()).update(round(value, 6) for value in step.values)
    assert set(seen) == set(OPERATIONS)
    assert [lengths[n] / 6000 for n in range(3)] == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert seen["Brightness"] == {round(0.05 + 0.09 * v, 6) for v in range(1, 10)}
    assert seen["Posterize"] == {4, 5, 6, 7} and seen["Solarize"] == {256 - int(25.6 * v) for v in range(1, 10)}
    assert seen["Rotate"] == {s * 3 * v for v in range(1, 10) for s in (1, -1)}
    assert max(seen["TranslateX"]) == 54 and max(seen["TranslateY"]) == 27 and max(seen["ShearX"]) == pytest.approx(0.27)
    assert not seen["Equalize"]


def test_the_sample_notes_what_was_done() -> None:
    torch.manual_seed(2)
    first = StrongAugment(flip=1.0, probability=1.0)(picture())
    assert len(first.meta.applied) == 3 and first.meta.applied[0] == Applied("HorizontalFlip")
    again = TRANSFORM.apply(picture(), first.meta.applied)
    assert torch.equal(first.image, again.image) and set(GEOMETRIC) < set(OPERATIONS)


def test_a_cutout_can_be_a_hole() -> None:
    window = Window(4, 6, 10, 12)
    hole, kept = (Cutout(size=10, fill=127.0, ignore=ignore).apply(picture(), window) for ignore in (True, False))
    assert isinstance(hole.segmentation, tv_tensors.Mask) and not kept.segmentation.any()  # type: ignore[union-attr]
    assert (hole.segmentation == 255).sum() == 120 and bool((hole.segmentation[4:14, 6:18] == 255).all())
    assert (hole.image[:, 4:14, 6:18] == 127).all() and torch.equal(hole.image, kept.image)
    assert hole.meta.applied == (Applied("Cutout", (6, 4, 18, 14)),)
