"""Sizes, crops and fills against mmcv's and DETR's rules; pixels against OpenCV and Pillow."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from saccade.data.transforms.classification import Cutout, Lighting, RandomErasing, RandomResizedCrop
from saccade.data.transforms.detr import RandomSelect, RandomShortSideResize, RandomSizeCrop, short_side_size
from saccade.data.transforms.sizes import CenterCrop, KeepRatioResize, PadTo, center_crop_window, keep_ratio_size, padded_size, proportional_window
from saccade.structures import Annotations, Sample, make_sample

cv2 = pytest.importorskip("cv2")


def picture(height: int, width: int) -> Sample:
    random = torch.Generator().manual_seed(0)
    return make_sample(torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=random))


@pytest.mark.parametrize("size, scale, expected", [
    ((1080, 1920), (1333, 800), (750, 1333)), ((480, 640), (1333, 800), (800, 1067)), ((333, 500), (1333, 800), (800, 1201)),
    ((101, 37), (800, 1333), (1333, 488)), ((333, 500), (-1, 256), (256, 384)), ((640, 427), (-1, 256), (384, 256)), ((375, 500), 1.7, (638, 850)),
])
def test_keeping_the_ratio_rounds_as_mmcv(size: tuple[int, int], scale: float | tuple[int, int], expected: tuple[int, int]) -> None:
    assert keep_ratio_size(size, scale) == expected
    assert KeepRatioResize(scale=scale)(picture(*size)).size == expected


def test_a_scale_must_limit_something() -> None:
    with pytest.raises(ValueError, match="at most one of them -1"):
        keep_ratio_size((10, 20), (-1, -1))


def test_boxes_are_scaled_by_the_sides_and_clipped() -> None:
    sample = make_sample(torch.zeros(3, 101, 37, dtype=torch.uint8), Annotations(boxes=torch.tensor([[10.5, 20.25, 200, 90.75]])))
    resized = KeepRatioResize(scale=(1333, 800))(sample)
    assert resized.boxes is not None
    torch.testing.assert_close(resized.boxes.as_subclass(Tensor), torch.tensor([[138.48648, 267.25992, 488.0, 1197.7203]]))


def test_one_of_several_scales_is_drawn() -> None:
    torch.manual_seed(0)
    assert {KeepRatioResize(scale=[(60, 40), (60, 30)])(picture(40, 40)).size for _ in range(20)} == {(40, 40), (30, 30)}


def test_the_short_side_of_torchvision_is_that_of_mmclassification() -> None:
    for size, expected in (((333, 500), (256, 384)), ((427, 640), (256, 383)), ((101, 37), (698, 256)), ((256, 340), (256, 340))):
        assert v2.Resize(size=256, antialias=False)(picture(*size)).size == expected


@pytest.mark.parametrize("target", [(80, 60), (30, 20), (53, 37), (101, 29)])
def test_resized_pixels_are_those_of_opencv(target: tuple[int, int]) -> None:
    sample = picture(37, 53)
    pixels = sample.image.permute(1, 2, 0).numpy()
    got = v2.Resize(size=target[::-1], antialias=False)(sample).image.permute(1, 2, 0).numpy()
    assert np.abs(got.astype(int) - cv2.resize(pixels, target)).max() <= 1
    floats = v2.Resize(size=target[::-1], antialias=False)(make_sample(sample.image.float())).image.permute(1, 2, 0).numpy()
    np.testing.assert_allclose(floats, cv2.resize(pixels.astype(np.float32), target), atol=2e-3)


def test_center_crops_round_halves_to_even_and_leave_small_sides() -> None:
    assert center_crop_window((256, 341), (224, 224)) == (16, 58, 224, 224)  # 58.5 goes to 58
    assert center_crop_window((256, 455), (224, 224)) == (16, 116, 224, 224)  # 115.5 goes to 116
    assert center_crop_window((100, 300), (224, 224)) == (0, 38, 100, 224)
    sample = picture(100, 300)
    assert torch.equal(CenterCrop(size=224)(sample).image, sample.image[:, :, 38:262])


def test_the_efficientnet_crop_is_proportional() -> None:
    # 224 / 256 of 300 is 262.5: rows from round(18.75) to trunc(19 + 262.5), columns from round(68.75).
    assert proportional_window((300, 400), (224, 224), 32) == (19, 69, 262, 262)
    sample = picture(300, 400)
    got = CenterCrop(size=224, efficientnet_style=True)(sample)
    assert torch.equal(got.image, v2.functional.resize(sample.image[:, 19:281, 69:331], [224, 224], antialias=False))


def test_padding_goes_to_the_right_and_below() -> None:
    sample = picture(30, 50)
    for transform, size in ((PadTo(square=True), (50, 50)), (PadTo(size=(20, 64), fill=9), (30, 64)), (PadTo(divisor=32), (32, 64))):
        padded = transform(sample)
        assert padded.size == size and torch.equal(padded.image[:, :30, :50], sample.image)
        outside = padded.image.as_subclass(Tensor).clone()
        outside[:, :30, :50] = outside[0, -1, -1] if size[0] > 30 else outside[0, 0, -1]
        assert (outside == (9 if size == (30, 64) else 0)).all()
    assert padded_size((750, 1333), 32) == (768, 1344)
    with pytest.raises(ValueError, match="exactly one"):
        PadTo(size=(1, 1), square=True)


def test_random_resized_crops_have_the_area_and_ratio_asked_for() -> None:
    torch.manual_seed(0)
    transform = RandomResizedCrop(size=8, scale=(0.2, 0.9), ratio=(0.5, 2.0))
    windows = [transform.draw([picture(200, 300)]) for _ in range(500)]
    areas, ratios = np.array([w.height * w.width / 60000 for w in windows]), np.array([w.width / w.height for w in windows])
    assert 0.19 < areas.min() < 0.22 and areas.max() < 0.91
    assert 0.49 < ratios.min() < 0.56 and 1.8 < ratios.max() < 2.02
    small = ratios[areas < 0.3]  # where the image does not limit the ratio it is log-uniform
    assert abs(np.log(small).mean()) < 0.12
    assert all(w.top + w.height <= 200 and w.left + w.width <= 300 for w in windows)


def test_an_impossible_ratio_falls_back_to_the_central_crop() -> None:
    transform = RandomResizedCrop(size=8, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert transform.draw([picture(100, 400)]) == (0, 150, 100, 100)
    assert transform.draw([picture(401, 100)]) == (150, 0, 100, 100)
    efficient = RandomResizedCrop(size=224, scale=(1.0, 1.0), ratio=(4.0, 4.0), efficientnet_style=True)
    assert efficient.draw([picture(300, 400)]) == (19, 69, 262, 262)


def test_efficientnet_crops_cover_what_is_asked_for() -> None:
    torch.manual_seed(0)
    transform = RandomResizedCrop(size=8, scale=(0.05, 1.0), ratio=(0.75, 4 / 3), efficientnet_style=True, min_covered=0.3)
    windows = [transform.draw([picture(200, 300)]) for _ in range(300)]
    assert all(0.3 <= w.height * w.width / 60000 <= 1 for w in windows)
    assert all(0.73 < w.width / w.height < 1.36 for w in windows)


def test_erased_rectangles_have_the_area_asked_for_and_lie_inside() -> None:
    torch.manual_seed(0)
    black = make_sample(torch.zeros(3, 100, 100, dtype=torch.uint8))
    shares = [(RandomErasing(probability=1.0, aspect=(0.5, 2.0))(black).image[0] == 128).float().mean().item() for _ in range(200)]
    assert 0.015 < min(shares) < 0.05 and 0.35 < max(shares) < 0.42
    assert sum(RandomErasing()(black).image.any().item() for _ in range(400)) in range(160, 240)
    wide = RandomErasing(probability=1.0, area=(0.9, 0.9), aspect=(10.0, 10.0))(black)  # the height is limited to the image's
    assert (wide.image[0] == 128).sum() == 100 * 30


def test_erasing_fills_with_noise_where_asked_to() -> None:
    torch.manual_seed(0)
    black = make_sample(torch.zeros(3, 200, 200, dtype=torch.uint8))
    uniform = RandomErasing(probability=1.0, area=(1.0, 1.0), aspect=(1.0, 1.0), mode="rand")(black).image.float()
    assert abs(uniform.mean() - 127.5) < 2 and uniform.max() == 255
    normal = RandomErasing(
        probability=1.0, area=(1.0, 1.0), aspect=(1.0, 1.0), mode="rand", fill=(50.0, 100.0, 150.0), fill_std=(5.0, 10.0, 20.0)
    )(black).image.float()
    torch.testing.assert_close(normal.mean((1, 2)), torch.tensor([50.0, 100, 150]), atol=1.0, rtol=0)  # half a level is lost to truncation
    torch.testing.assert_close(normal.std((1, 2)), torch.tensor([5.0, 10, 20]), atol=0.5, rtol=0)


def test_cutout_starts_at_the_border_where_its_centre_is_near() -> None:
    torch.manual_seed(0)
    windows = [w for _ in range(1000) if (w := Cutout(size=(20, 30), probability=1.0).draw([picture(60, 60)])) is not None]
    assert all(w.height == min(20, 60 - w.top) and w.width == min(30, 60 - w.left) for w in windows)
    assert {w.top for w in windows} == set(range(50)) and min(w.height for w in windows) == 11
    cut = Cutout(size=60, fill=(1.0, 2.0, 3.0), probability=1.0)(picture(20, 20)).image
    assert (cut == torch.tensor([1, 2, 3])[:, None, None]).all(0).any()


def test_lighting_adds_one_colour_along_the_principal_components() -> None:
    torch.manual_seed(0)
    sample = picture(4, 4)
    colours = torch.stack([Lighting().draw([sample]) for _ in range(4000)])
    vectors = torch.tensor([(-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203)])
    expected = vectors @ torch.diag((torch.tensor([55.4625, 4.7940, 1.1475]) * 0.1) ** 2) @ vectors.T
    torch.testing.assert_close(colours.T.cov(), expected, atol=0.8, rtol=0.05)
    torch.manual_seed(0)
    lit = Lighting()(sample).image
    torch.testing.assert_close(lit - sample.image, colours[0][:, None, None].expand(3, 4, 4), atol=1e-4, rtol=0)


def test_short_sides_are_limited_as_in_detr() -> None:
    assert short_side_size((480, 640), 800, 1333) == (800, 1066)  # the long side is truncated
    assert short_side_size((640, 480), 800, 1333) == (1066, 800)
    assert short_side_size((375, 500), 800, 1333) == (800, 1066)
    assert short_side_size((500, 1000), 800, 1333) == (666, 1332)  # the limited short side is rounded half to even
    assert short_side_size((1080, 1920), 800, 1333) == (750, 1333)
    assert short_side_size((427, 1280), 800, 1333) == (445, 1333)  # the short side becomes round(444.7)
    assert short_side_size((500, 400), 400, None) == (500, 400)
    pixels = picture(48, 64)
    by_pillow = Image.fromarray(pixels.image.permute(1, 2, 0).numpy()).resize((40, 30), Image.Resampling.BILINEAR)
    got = RandomShortSideResize(sizes=[30])(pixels).image.permute(1, 2, 0).numpy()
    assert np.abs(got.astype(int) - np.asarray(by_pillow)).max() <= 1


def test_size_crops_stay_in_the_image_and_drop_what_is_outside() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([[0.0, 0, 10, 10], [40, 30, 60, 50]])
    sample = make_sample(torch.zeros(3, 60, 80, dtype=torch.uint8), Annotations(boxes=boxes, labels=torch.tensor([0, 1])))
    results = [RandomSizeCrop(min_size=30, max_size=70)(sample) for _ in range(400)]
    assert {r.size[0] for r in results} == set(range(30, 61)) and max(r.size[1] for r in results) == 70
    assert all((r.boxes[:, 2:] > r.boxes[:, :2]).all() for r in results if r.boxes is not None)
    assert {len(r.labels) for r in results if r.labels is not None} >= {1, 2}


def test_selecting_takes_one_way_or_the_other() -> None:
    torch.manual_seed(0)
    select = RandomSelect(first=[PadTo(size=(20, 20))], second=[PadTo(size=(30, 30)), PadTo(divisor=64)], probability=0.3)
    sizes = [select(picture(10, 10)).size[0] for _ in range(400)]
    assert set(sizes) == {20, 64} and math.isclose(sizes.count(20) / 400, 0.3, abs_tol=0.07)
