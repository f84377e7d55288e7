"""A picture whose pixels hold their own coordinates tells where each came from; `Geometry` must say the same after every transform."""
from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from saccade.structures import Geometry, Sample, make_sample

HEIGHT, WIDTH = 60, 90


def coordinate_sample(height: int = HEIGHT, width: int = WIDTH) -> Sample:
    """x in the first channel, y in the second (pixel centres), 1 in the third; outside, fills are 0."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return make_sample(torch.stack([x, y, torch.ones_like(x)]))


def geometry_of(sample: Sample) -> Geometry:
    assert sample.meta.geometry is not None
    return sample.meta.geometry


def largest_error(sample: Sample, border: int = 2) -> tuple[float, int]:
    """Largest distance between where a pixel says that it is from and what the geometry says, and how many pixels were compared."""
    x, y, inside = sample.image.as_subclass(Tensor)
    height, width = sample.size
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    claimed = geometry_of(sample).points_to_original(torch.stack([columns, rows], -1))
    compared = inside > 0.9999
    # Interpolation at the picture's own border repeats its last pixel: no coordinate can be read there.
    compared &= (x > border) & (x < WIDTH - border) & (y > border) & (y < HEIGHT - border)
    error = (claimed - torch.stack([x, y], -1)).norm(dim=-1)[compared]
    return float(error.max()), int(compared.sum())


LINEAR = InterpolationMode.BILINEAR
EXACT = {
    "flip": v2.RandomHorizontalFlip(1.0),
    "flip upside down": v2.RandomVerticalFlip(1.0),
    "resize": v2.Resize([45, 120]),
    "resize the short side": v2.Resize(40),
    "resize the short side within a maximum": v2.Resize(50, max_size=60),
    "random short side": v2.RandomShortestSize([33, 47, 71], max_size=100),
    "random resize": v2.RandomResize(40, 80),
    "scale jitter": v2.ScaleJitter((64, 64), (0.5, 1.5)),
    "crop": v2.RandomCrop((31, 41)),
    "crop with filling": v2.RandomCrop((80, 100), pad_if_needed=True),
    "centre crop": v2.CenterCrop((33, 50)),
    "centre crop beyond one side": v2.CenterCrop((33, 101)),
    "centre crop beyond the picture": v2.CenterCrop((75, 101)),
    "centre crop to a square": v2.CenterCrop(41),
    "random resized crop": v2.RandomResizedCrop((48, 64)),
    "pad": v2.Pad(7),
    "pad two sides": v2.Pad([3, 9]),
    "pad four sides": v2.Pad([1, 2, 3, 4]),
    "zoom out": v2.RandomZoomOut(side_range=(1.2, 3.0), p=1.0),
    "rotate": v2.RandomRotation((-40, 40), LINEAR),
    "rotate and expand": v2.RandomRotation((20, 40), LINEAR, expand=True),
    "rotate about a point": v2.RandomRotation((20, 40), LINEAR, center=[10, 25]),
    "affine": v2.RandomAffine(25, (0.1, 0.2), (0.7, 1.3), (-15, 15, -10, 10), LINEAR),
    "affine with one shear": v2.RandomAffine(10, shear=12, interpolation=LINEAR),
    "affine about a point": v2.RandomAffine(30, scale=(0.8, 1.2), interpolation=LINEAR, center=[70, 12]),
    "perspective": v2.RandomPerspective(0.4, 1.0, LINEAR),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_pixel_comes_from_where_the_geometry_says(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    moved = EXACT[name](coordinate_sample())
    error, compared = largest_error(moved)
    assert compared > 100
    assert error < 0.15  # the smoothing of `Resize` moves a ramp by about a tenth of a pixel; half a pixel would be a mistake
    assert geometry_of(moved).canvas_size == moved.size
    assert geometry_of(moved).exact


def test_a_chain_of_transforms_composes() -> None:
    torch.manual_seed(3)
    chain = v2.Compose([
        v2.RandomZoomOut(side_range=(1.5, 2.0), p=1.0), v2.RandomAffine(15, scale=(0.9, 1.1), interpolation=LINEAR), v2.CenterCrop((70, 70)),
        v2.RandomHorizontalFlip(1.0), v2.Resize([97, 61]), v2.RandomPerspective(0.2, 1.0, LINEAR),
    ])  # fmt: skip
    moved = chain(coordinate_sample())
    error, compared = largest_error(moved, border=4)
    assert compared > 100 and error < 0.3
    assert moved.meta.original_size == (HEIGHT, WIDTH)


def test_points_go_there_and_back() -> None:
    torch.manual_seed(4)
    moved = v2.Compose([v2.RandomPerspective(0.4, 1.0), v2.Resize([32, 77])])(coordinate_sample())
    points = torch.rand(5, 3, 2) * 30
    again = geometry_of(moved).points_from_original(geometry_of(moved).points_to_original(points))
    assert again.shape == points.shape and again.dtype == points.dtype
    torch.testing.assert_close(again, points, atol=1e-3, rtol=1e-4)


def test_boxes_return_to_the_original_picture() -> None:
    boxes = torch.tensor([[10.0, 20.0, 40.0, 50.0], [0.0, 0.0, 90.0, 60.0]])
    from saccade.structures import Annotations

    sample = make_sample(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8), Annotations(boxes=boxes))
    moved = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.Resize([120, 45]), v2.Pad([4, 5, 6, 7])])(sample)
    back = geometry_of(moved).boxes_to_original(moved.boxes.as_subclass(Tensor))
    torch.testing.assert_close(back, boxes, atol=1e-4, rtol=0)


def test_a_turned_box_returns_as_the_box_around_it() -> None:
    moved = v2.functional.rotate(coordinate_sample().meta.geometry, 90)
    back = moved.boxes_to_original(torch.tensor([[30.0, 10.0, 50.0, 50.0]]))
    torch.testing.assert_close(back, torch.tensor([[25.0, 15.0, 65.0, 35.0]]), atol=1e-4, rtol=0)


def test_no_boxes_stay_no_boxes() -> None:
    assert Geometry.identity((5, 5)).boxes_to_original(torch.zeros(0, 4)).shape == (0, 4)


def test_transforms_of_colour_leave_the_geometry_alone() -> None:
    sample = make_sample(torch.randint(0, 255, (3, HEIGHT, WIDTH), dtype=torch.uint8))
    colour = [v2.ColorJitter(0.5, 0.5, 0.5), v2.GaussianBlur(3), v2.RandomPhotometricDistort(), v2.Grayscale(3)]
    moved = v2.Compose([*colour, v2.ToDtype(torch.float32, scale=True)])(sample)
    assert moved.image.dtype == torch.float32
    assert geometry_of(moved).dtype == torch.float64
    assert torch.equal(geometry_of(moved).as_subclass(Tensor), torch.eye(3, dtype=torch.float64))


def test_arithmetic_on_a_geometry_gives_a_plain_tensor() -> None:
    assert type(Geometry.identity((4, 4)) @ torch.eye(3, dtype=torch.float64)) is Tensor


def test_an_elastic_deformation_is_admitted_to_be_inexact_and_stays_so() -> None:
    moved = v2.Compose([v2.ElasticTransform(), v2.RandomHorizontalFlip(1.0)])(coordinate_sample())
    assert not geometry_of(moved).exact


COPIES = {
    "pickle": lambda g: pickle.loads(pickle.dumps(g)), "deepcopy": copy.deepcopy, "copy": copy.copy, "clone": Tensor.clone,
    "detach": Tensor.detach, "to": lambda g: g.to(torch.float32).to(torch.float64),
    "wrap": lambda g: tv_tensors.wrap(g.as_subclass(Tensor).clone(), like=g),
}  # fmt: skip


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES.keys())
def test_copies_keep_the_matrix_the_size_and_the_exactness(copied: object) -> None:
    original = geometry_of(v2.Compose([v2.Resize([30, 40]), v2.ElasticTransform()])(coordinate_sample()))
    again = copied(original)  # type: ignore[operator]
    assert again is not original
    assert isinstance(again, Geometry)
    assert again.canvas_size == (30, 40) and not again.exact
    assert torch.allclose(again.as_subclass(Tensor), original.as_subclass(Tensor))


def test_half_precision_points_keep_their_type_but_not_its_rounding_inside() -> None:
    far = Geometry.from_matrix(torch.diag(torch.tensor([1 / 3, 1 / 3, 1.0], dtype=torch.float64)), (10, 10))
    moved = far.points_to_original(torch.tensor([[2048.0, 3.0]], dtype=torch.float16))
    assert moved.dtype == torch.float16
    assert math.isclose(float(moved[0, 0]), 2048 / 3, rel_tol=1e-3)
