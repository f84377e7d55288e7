"""SSD's augmentation against its definition (lufficc/SSD; colours against OpenCV's)."""
from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from saccade.data.transforms.colour import adjust_hue_saturation
from saccade.data.transforms.ssd import Expand, MinIoUCrop, PhotometricDistort, Photometry, distort
from saccade.structures import Annotations, Sample, make_sample

cv2 = pytest.importorskip("cv2")


def picture(height: int = 100, width: int = 140, boxes: list[list[float]] | None = None) -> Sample:
    random = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=random)
    annotations = None if boxes is None else Annotations(boxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.arange(len(boxes)))
    return make_sample(image, annotations)


@pytest.mark.parametrize("hue, saturation", [(0.0, 1.0), (17.5, 1.0), (-18.0, 0.5), (11.0, 1.5), (0.0, 0.6)])
def test_hue_and_saturation_are_those_of_opencv(hue: float, saturation: float) -> None:
    rgb = np.random.default_rng(0).uniform(-20, 300, (40, 50, 3)).astype(np.float32)
    rgb[:5] = rgb[:5, :, :1]  # grey
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[..., 1] *= saturation
    hsv[..., 0] += hue
    hsv[..., 0][hsv[..., 0] > 360] -= 360
    hsv[..., 0][hsv[..., 0] < 0] += 360
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    got = adjust_hue_saturation(torch.from_numpy(rgb).permute(2, 0, 1), hue, saturation).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(got, expected, atol=2e-2)


def test_distortion_applies_its_steps_in_order_and_clips_nothing() -> None:
    pixels = torch.full((3, 2, 2), 250, dtype=torch.uint8)
    first = distort(pixels, Photometry(brightness=30.0, contrast=1.5))
    assert first.dtype == torch.float32 and torch.equal(first, torch.full((3, 2, 2), 420.0))
    colours = torch.tensor([200.0, 100.0, 50.0]).reshape(3, 1, 1)
    turned = distort(colours, Photometry(channels=(2, 0, 1)))
    assert turned.flatten().tolist() == [50, 200, 100]
    before, after = (distort(colours, Photometry(contrast=0.5, saturation=1.5, hue=10.0, contrast_last=last)) for last in (False, True))
    torch.testing.assert_close(before, after, atol=1e-3, rtol=0)  # scaling the value commutes with hue and saturation
    assert torch.equal(distort(pixels, Photometry()), pixels.float())


def test_each_distortion_comes_half_of_the_time_and_within_its_range() -> None:
    torch.manual_seed(0)
    transform = PhotometricDistort()
    draws = [transform.draw([picture()]) for _ in range(2000)]
    for name, low, high in (("brightness", -32, 32), ("contrast", 0.5, 1.5), ("saturation", 0.5, 1.5), ("hue", -18, 18)):
        values = [v for d in draws if (v := getattr(d, name)) is not None]
        assert abs(len(values) / len(draws) - 0.5) < 0.05
        assert low <= min(values) < low + 0.02 * (high - low) and high - 0.02 * (high - low) < max(values) <= high
        assert abs(np.mean(values) - (low + high) / 2) < 0.03 * (high - low)
    assert abs(np.mean([d.contrast_last for d in draws]) - 0.5) < 0.05
    orders = Counter(d.channels for d in draws if d.channels is not None)
    assert len(orders) == 6 and max(orders.values()) < 2 * min(orders.values()) and abs(sum(orders.values()) / len(draws) - 0.5) < 0.05


def test_expanding_puts_the_image_on_a_canvas_of_the_mean() -> None:
    torch.manual_seed(3)
    sample = picture(boxes=[[10, 20, 40, 60]])
    expanded = [Expand(probability=1.0)(sample) for _ in range(50)]
    for result in expanded:
        assert result.boxes is not None and result.meta.geometry is not None
        left, top = (int(v) for v in (result.boxes[0, :2].as_subclass(Tensor) - torch.tensor([10.0, 20.0])))
        assert torch.equal(result.image[:, top:top + 100, left:left + 140], sample.image)
        outside = result.image.as_subclass(Tensor).clone()
        outside[:, top:top + 100, left:left + 140] = torch.tensor([123, 117, 104], dtype=torch.uint8)[:, None, None]
        assert (outside.flatten(1) == torch.tensor([[123], [117], [104]])).all()
        assert 100 <= result.size[0] <= 400 and 140 <= result.size[1] <= 560
        assert abs(result.size[0] / 100 - result.size[1] / 140) < 0.02  # one ratio for both sides
    assert min(r.size[0] for r in expanded) < 150 and max(r.size[0] for r in expanded) > 330
    unchanged = sum(Expand()(sample).size == sample.size for _ in range(1000))
    assert 440 < unchanged < 560


def test_crops_overlap_an_object_by_the_minimum_and_keep_objects_by_their_centre() -> None:
    torch.manual_seed(0)
    sample = picture(boxes=[[10, 10, 60, 80], [50, 20, 120, 90], [100, 60, 130, 95], [2, 2, 12, 14]])
    assert sample.boxes is not None
    given = sample.boxes.as_subclass(Tensor)
    transform = MinIoUCrop(minimums=(0.7,))
    modes = {"whole": 0, "strict": 0, "any": 0}
    for _ in range(300):
        result = transform(sample)
        assert result.labels is not None and result.boxes is not None and result.meta.geometry is not None
        if result.size == sample.size:
            modes["whole"] += 1
            continue
        height, width = result.size
        x1, y1 = result.meta.geometry.points_to_original(torch.zeros(2)).tolist()
        window = torch.tensor([[x1, y1, x1 + width, y1 + height]])
        centres = (given[:, :2] + given[:, 2:]) / 2
        inside = ((centres > window[:, :2]) & (centres < window[:, 2:])).all(1)
        assert result.labels.tolist() == inside.nonzero().flatten().tolist() and inside.any()
        clipped = given[inside].clamp(min=window[0, :2].repeat(2), max=window[0, 2:].repeat(2)) - window[0, :2].repeat(2)
        assert torch.equal(result.boxes.as_subclass(Tensor), clipped)
        assert 0.29 * 140 - 1 <= width <= 140 and 0.29 * 100 - 1 <= height <= 100 and 0.45 < height / width < 2.1
        modes["strict" if box_iou(window, given).max() >= 0.7 else "any"] += 1
    assert min(modes.values()) > 30


@pytest.mark.parametrize("minimum", [0.1, 0.3, 0.7, 0.9])
def test_a_rectangle_never_falls_below_its_minimum(minimum: float) -> None:
    torch.manual_seed(1)
    transform, boxes = MinIoUCrop(), torch.tensor([[10.0, 10, 120, 90], [30, 30, 60, 70]])
    found = [r for _ in range(300) if (r := transform._rectangle(boxes, (100, 140), minimum)) is not None]
    assert len(found) > 10
    assert all(box_iou(torch.tensor([r]).float(), boxes).max() >= minimum for r in found)


def test_images_without_objects_are_not_cropped() -> None:
    for sample in (picture(), picture(boxes=[])):
        assert all(MinIoUCrop()(sample).size == (100, 140) for _ in range(20))
    tiny = make_sample(torch.zeros(3, 1, 1, dtype=torch.uint8), Annotations(boxes=torch.tensor([[0.0, 0, 1, 1]]), labels=torch.tensor([0])))
    torch.manual_seed(0)
    assert all(MinIoUCrop()(tiny).size == (1, 1) for _ in range(5))


def test_objects_without_extent_leave_even_when_nothing_is_cropped() -> None:
    sample = picture(boxes=[[10, 10, 10, 40], [5, 5, 50, 50]])
    torch.manual_seed(0)
    assert all((labels := MinIoUCrop()(sample).labels) is not None and 0 not in labels.tolist() for _ in range(20))
