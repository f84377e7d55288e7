"""AutoAugment's and RandAugment's operations against mmcv's definitions (through Pillow and OpenCV), and their draws."""
from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import InterpolationMode

from saccade.data.transforms.automatic import IMAGENET_POLICIES, INCREASING, OPERATIONS, AutoAugment, Drawing, RandAugment, Step, apply_steps
from saccade.structures import Sample, make_sample

cv2 = pytest.importorskip("cv2")
DRAWING = Drawing((128.0, 128.0, 128.0), InterpolationMode.NEAREST)


def picture(height: int = 40, width: int = 60) -> Sample:
    random = np.random.default_rng(0)
    smooth = cv2.resize(random.integers(0, 256, (5, 6, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return make_sample(torch.from_numpy(smooth).permute(2, 0, 1).contiguous())


def changed(name: str, magnitude: float) -> np.ndarray:
    return OPERATIONS[name](picture(), magnitude, DRAWING).image.permute(1, 2, 0).numpy().astype(int)


PIXELS = picture().image.permute(1, 2, 0).numpy()


def test_pixel_operations_are_those_of_their_definition() -> None:
    pixels = PIXELS.astype(int)
    assert np.array_equal(changed("Invert", 0), 255 - pixels)
    assert np.array_equal(changed("Posterize", 4), pixels // 16 * 16) and np.array_equal(changed("Posterize", 2.4), pixels // 32 * 32)
    assert not changed("Posterize", 0).any()
    assert np.array_equal(changed("Solarize", 100.5), np.where(pixels < 100.5, pixels, 255 - pixels))
    assert np.array_equal(changed("Solarize", 256), pixels)
    assert np.array_equal(changed("SolarizeAdd", 33.7), np.where(pixels < 128, np.minimum(pixels + 33.7, 255).astype(int), pixels))
    assert np.abs(changed("Brightness", 0.4) - (pixels * 1.4).clip(0, 255)).max() <= 1
    grey = cv2.cvtColor(PIXELS, cv2.COLOR_RGB2GRAY).astype(float)
    assert np.abs(changed("Color", 0.5) - (1.5 * pixels - 0.5 * grey[..., None]).clip(0, 255)).max() <= 1.5
    assert np.abs(changed("Contrast", -0.5) - (0.5 * pixels + 0.5 * grey.mean())).max() <= 1.5


def test_histogram_operations_are_those_of_pillow() -> None:
    image = Image.fromarray(PIXELS)
    assert np.abs(changed("Equalize", 0) - np.asarray(ImageOps.equalize(image)).astype(int)).max() <= 1
    assert np.abs(changed("AutoContrast", 0) - np.asarray(ImageOps.autocontrast(image)).astype(int)).max() <= 1


@pytest.mark.parametrize("name, magnitude, matrix", [
    ("ShearX", 0.25, [[1, 0.25, 0], [0, 1, 0]]), ("ShearY", -0.25, [[1, 0, 0], [-0.25, 1, 0]]),
    ("TranslateX", 0.25, [[1, 0, 15], [0, 1, 0]]), ("TranslateY", -0.2, [[1, 0, 0], [0, 1, -8]]),
])
def test_geometric_operations_move_as_mmcv(name: str, magnitude: float, matrix: list[list[float]]) -> None:
    expected = cv2.warpAffine(PIXELS, np.array(matrix, float), (60, 40), flags=cv2.INTER_NEAREST, borderValue=(128, 128, 128)).astype(int)
    assert (np.abs(changed(name, magnitude) - expected).max(-1) < 12).mean() > 0.9  # nearest neighbours may differ by one pixel


def test_positive_rotations_are_clockwise() -> None:
    matrix = cv2.getRotationMatrix2D((29.5, 19.5), -30, 1.0)
    expected = cv2.warpAffine(PIXELS, matrix, (60, 40), flags=cv2.INTER_NEAREST, borderValue=(128, 128, 128)).astype(int)
    assert (np.abs(changed("Rotate", 30) - expected).max(-1) < 15).mean() > 0.95


def test_the_imagenet_policies_are_the_twenty_five_of_the_paper() -> None:
    assert len(IMAGENET_POLICIES) == 25
    assert Counter(name for policy in IMAGENET_POLICIES for name, _, _ in policy) == {
        "Equalize": 17, "Posterize": 5, "Rotate": 6, "Solarize": 7, "AutoContrast": 2, "Color": 6, "Invert": 3, "Contrast": 2, "Sharpness": 1,
        "ShearX": 1,
    }
    assert IMAGENET_POLICIES[1][0] == ("Solarize", pytest.approx(113.78, abs=0.01), 0.6)
    assert IMAGENET_POLICIES[12] == (("Equalize", 0, 0.0), ("Equalize", 0, 0.8))


def test_policies_are_drawn_evenly_with_their_own_probabilities() -> None:
    torch.manual_seed(0)
    draws = [AutoAugment().draw([picture()]) for _ in range(4000)]
    posterised = [d for d in draws if Step("Posterize", 6) in d]
    assert abs(len(posterised) / len(draws) - 0.8 / 25) < 0.012
    assert all(Step("Equalize", 0) in d for d in posterised)
    turns = [s.magnitude for d in draws for s in d if s.name == "Rotate"]
    assert abs(np.mean(np.sign(turns))) < 0.12 and set(np.abs(turns).round(2)) == {10.0, 26.67, 30.0}


def test_magnitudes_grow_with_the_level() -> None:
    def magnitudes(**settings: object) -> dict[str, float]:
        transform = RandAugment(num_policies=600, probability=1.0, **settings)  # type: ignore[arg-type]
        return {step.name: abs(step.magnitude) for step in transform.draw([picture()])}

    torch.manual_seed(0)
    lowest, highest, third = magnitudes(magnitude_level=0), magnitudes(magnitude_level=30), magnitudes(magnitude_level=9)
    assert lowest == {name: low for name, (low, _) in INCREASING.items()}
    assert highest == {name: high for name, (_, high) in INCREASING.items()}
    assert third["Rotate"] == pytest.approx(9) and third["Solarize"] == pytest.approx(256 * 0.7) and third["Posterize"] == pytest.approx(2.8)
    assert magnitudes(magnitude_level=9, total_level=10)["Rotate"] == pytest.approx(27)


def test_levels_are_spread_as_asked() -> None:
    torch.manual_seed(0)

    def turns(magnitude_std: float | str) -> np.ndarray:
        transform = RandAugment(num_policies=2000, probability=1.0, magnitude_level=15, magnitude_std=magnitude_std, operations=["Rotate"])  # type: ignore
        return np.abs([step.magnitude for step in transform.draw([picture()])])

    normal, uniform = turns(3.0), turns("inf")
    assert abs(normal.mean() - 15) < 0.4 and abs(normal.std() - 3) < 0.3
    assert uniform.min() < 0.3 and 14.7 < uniform.max() <= 15 and abs(uniform.mean() - 7.5) < 0.4


def test_drawn_operations_are_applied_half_of_the_time() -> None:
    torch.manual_seed(0)
    counts = Counter(len(RandAugment().draw([picture()])) for _ in range(1000))
    assert set(counts) == {0, 1, 2} and abs(counts[1] / 1000 - 0.5) < 0.06


def test_steps_follow_one_another() -> None:
    both = apply_steps(picture(), [Step("Invert", 0), Step("Posterize", 1)], DRAWING).image
    assert torch.equal(both, (255 - picture().image) // 128 * 128)
    with pytest.raises(ValueError, match="no operation 'Blur'"):
        RandAugment(operations=["Blur"])
