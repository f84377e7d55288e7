"""Maps follow their picture into every view of it."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import RandomHorizontalFlip, Resize
from torchvision.transforms.v2 import functional as F

from saccade.adaptation.published_warps import StrongSteps, WeakCrop, in_strong_view, in_weak_view, strong_maps, weak_maps
from saccade.adaptation.warping import Place, bring, places_of, shown
from saccade.data.transforms.classification import Cutout, Window
from saccade.data.transforms.sample_transform import crop, move
from saccade.data.transforms.strong import StrongAugment
from saccade.errors import InputError
from saccade.ops.class_maps import resize_maps
from saccade.structures import Annotations, Applied, Geometry, Sample, collate, make_sample

HEIGHT, WIDTH = 128, 224


def ramps(height: int, width: int) -> Tensor:
    """(2, h, w) float: the x and y coordinate, in cells, of each cell's centre."""
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    return torch.stack([x, y])


def picture() -> Sample:
    """An image that is its own coordinates (x, y, 0), with no hole."""
    pixels = torch.cat([ramps(HEIGHT, WIDTH), torch.zeros(1, HEIGHT, WIDTH)])
    return make_sample(pixels, Annotations(segmentation=torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)))


OPERATIONS = [
    ("ShearX", 0.27), ("ShearX", -0.2), ("ShearY", 0.27), ("ShearY", -0.11), ("TranslateX", 60), ("TranslateX", -31), ("TranslateY", 33),
    ("TranslateY", -20), ("Rotate", 27), ("Rotate", -14),
]


@pytest.mark.parametrize("steps", [
    *([Applied(name, (value,))] for name, value in OPERATIONS),
    [Applied("HorizontalFlip"), Applied("Rotate", (12,)), Applied("ShearX", (0.2,))],
    [Applied("TranslateX", (40,)), Applied("Rotate", (-20,))], [Applied("ShearX", (0.1,)), Applied("ShearX", (0.2,))],
], ids=lambda steps: "+".join(step.name for step in steps))  # fmt: skip
def test_maps_of_a_quarter_agree_with_the_image_for_every_operation(steps: list[Applied]) -> None:
    before, after = picture(), StrongAugment().apply(picture(), steps)
    size = (HEIGHT // 4, WIDTH // 4)
    quarter = resize_maps(before.image[None, :2], size)
    [place], batch = places_of(collate([before])), collate([after])
    moved, inside = bring(quarter, [place], places_of(batch), size)
    known = shown(batch, size) & inside
    # What the image shows at the pixel in the middle of each cell; a mean of pixels would mix holes into it.
    rows, columns = (torch.arange(n, dtype=torch.float64) * ((p - 1) / (n - 1)) for n, p in zip(size, (HEIGHT, WIDTH), strict=True))
    expected = after.image[:2].as_subclass(Tensor)[:, (rows + 0.5).long()][:, :, (columns + 0.5).long()][None]
    apart = (moved - expected).abs().amax(1)[known]
    assert known.float().mean() > 0.3
    assert apart.max() <= 2, "half a quarter pixel, in pixels"
    assert (shown(batch, size) & ~inside).float().mean() < 0.02, "what the image shows lies inside the map"


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("nearest", [False, True])
def test_a_crop_at_scale_one_is_a_crop_of_the_map(flip: bool, nearest: bool) -> None:
    maps = torch.rand(1, 5, 33, 65)  # a cell every four pixels of 129 x 257
    sample = make_sample(torch.zeros(3, 129, 257, dtype=torch.uint8))
    view = crop(sample, 16, 44, 65, 129)
    view = move(view, F.horizontal_flip) if flip else view
    moved, inside = bring(maps, places_of(collate([sample])), places_of(collate([view])), (17, 33), nearest=nearest)
    expected = maps[:, :, 4:21, 11:44]
    assert inside.all()
    torch.testing.assert_close(moved, expected.flip(-1) if flip else expected, atol=0 if nearest else 2e-5, rtol=0)


def test_the_same_view_at_another_size_is_a_resize_with_corners_aligned() -> None:
    maps = torch.rand(2, 3, 9, 17)
    batch = collate([make_sample(torch.zeros(3, 64, 128, dtype=torch.uint8))] * 2)
    moved, inside = bring(maps, places_of(batch), places_of(batch), (16, 32))
    torch.testing.assert_close(moved, resize_maps(maps, (16, 32)), atol=1e-5, rtol=0)
    assert inside.all()


def test_hard_labels_of_the_whole_picture_reach_a_resized_crop_as_they_are() -> None:
    sample = make_sample(torch.zeros(3, 60, 80, dtype=torch.uint8))
    labels = torch.randint(0, 19, (60, 80), generator=torch.Generator().manual_seed(0))
    view = crop(move(sample, F.resize, [120, 160]), 20, 30, 64, 96)
    moved, _ = bring([labels[None]], places_of(collate([sample])), places_of(collate([view])), (64, 96), nearest=True)
    enlarged = labels.repeat_interleave(2, 0).repeat_interleave(2, 1)[20:84, 30:126]
    assert moved.dtype == torch.int64 and torch.equal(moved[0, 0], enlarged)


def test_maps_of_different_sizes_are_brought_together() -> None:
    samples = [make_sample(torch.zeros(3, *size, dtype=torch.uint8)) for size in ((40, 60), (50, 60))]
    places = [places_of(collate([sample]))[0] for sample in samples]
    views = collate([RandomHorizontalFlip(p=1.0)(crop(sample, 8, 4, 32, 48)) for sample in samples])
    maps = [torch.rand(4, 10, 15), torch.rand(4, 13, 15)]
    together, _ = bring(maps, places, places_of(views), (8, 12))
    alone = torch.cat([bring(m[None], [p], [v], (8, 12))[0] for m, p, v in zip(maps, places, places_of(views), strict=True)])
    assert torch.equal(together, alone)


def test_what_lies_outside_the_picture_is_not_known() -> None:
    sample = make_sample(torch.zeros(3, 40, 40, dtype=torch.uint8))
    geometry = sample.meta.geometry
    assert isinstance(geometry, Geometry)
    wider = Place((40, 80), geometry.after(torch.eye(3, dtype=torch.float64), (40, 80)))
    _, inside = bring(torch.rand(1, 2, 10, 10), [Place((40, 40), geometry)], [wider], (10, 20))
    assert inside[0, :, :10].all() and not inside[0, :, 10:].any()


def test_padding_and_holes_show_nothing() -> None:
    first = Cutout(size=16, ignore=True).apply(picture(), Window(32, 64, 16, 16))
    second = crop(picture(), 0, 0, 64, 112)
    seen = shown(collate([first, replace(second, segmentation=None)]), (HEIGHT, WIDTH))
    assert not seen[0, 32:48, 64:80].any() and int((~seen[0]).sum()) == 256
    assert seen[1, :64, :112].all() and int(seen[1].sum()) == 64 * 112


def test_a_view_of_a_resized_picture_reads_maps_of_the_original() -> None:
    sample = picture()
    small = Resize(size=[HEIGHT // 2, WIDTH // 2])(sample)
    moved, _ = bring(sample.image[None, :2].as_subclass(Tensor), places_of(collate([sample])), places_of(collate([small])), (HEIGHT // 2, WIDTH // 2))
    torch.testing.assert_close(moved[0], 2 * ramps(HEIGHT // 2, WIDTH // 2) + 0.5, atol=1e-3, rtol=0)


def test_the_published_warp_moves_along_x_too_far_and_forgets_the_order() -> None:
    line = torch.zeros(1, 1, 128, 224)
    line[..., 100] = 1
    moved, left = strong_maps(line, [StrongSteps(False, {"TranslateX": 80}, None)])
    assert moved[0, 0, 64].argmax().item() == 100 - 35, "140 pixels instead of 80"
    assert int((~left).sum()) == 35 * 128
    upright, _ = strong_maps(line.transpose(2, 3), [StrongSteps(False, {"TranslateY": 40}, None)])
    assert upright[0, 0, :, 64].argmax().item() == 90
    weak, steps = picture(), [Applied("Rotate", (20,)), Applied("ShearX", (0.2,)), Applied("ShearX", (0.1,))]
    batches = collate([weak]), collate([StrongAugment().apply(weak, steps)])
    maps = torch.rand(1, 2, HEIGHT // 4, WIDTH // 4)
    replayed, _ = in_strong_view(maps, *batches)
    assert torch.equal(replayed, strong_maps(maps, [StrongSteps(False, {"ShearX": 0.1, "Rotate": 20}, None)])[0])


@pytest.mark.parametrize("flip", [False, True])
def test_the_published_weak_crop_at_scale_one_is_a_crop_of_the_map(flip: bool) -> None:
    maps = torch.rand(1, 3, 32, 56)
    expected = maps[:, :, 4:20, 12:36]
    expected = expected.flip(-1) if flip else expected
    assert torch.equal(weak_maps(maps, [WeakCrop((HEIGHT, WIDTH), (16, 48, 64, 96), flip)]), expected)
    view = crop(picture(), 16, 48, 64, 96)
    view = move(view, F.horizontal_flip) if flip else view
    assert torch.equal(in_weak_view(maps, collate([picture()]), collate([view])), expected), "the crop is known from the way between both"
    turned = StrongAugment().apply(picture(), [Applied("Rotate", (5,))])
    with pytest.raises(InputError, match="resized, cropped and flipped"):
        in_weak_view(maps, collate([picture()]), collate([turned]))


def test_published_and_right_warps_agree_where_nothing_is_wrong() -> None:
    quarter = resize_maps(picture().image[None, :2].as_subclass(Tensor), (HEIGHT // 4, WIDTH // 4))
    for steps in ([Applied("HorizontalFlip")], [Applied("ShearY", (0.15,))], [Applied("TranslateY", (24,))], [Applied("Rotate", (-12,))]):
        weak = Cutout(size=4).apply(picture(), Window(0, 0, 4, 4))  # what the weak view noted is no step of the strong one
        before, after = collate([weak]), collate([StrongAugment().apply(weak, steps)])
        published, left = in_strong_view(quarter, before, after)
        right, inside = bring(quarter, places_of(before), places_of(after), (HEIGHT // 4, WIDTH // 4))
        assert (published - right).abs().amax(1)[left & inside].max() < 8, "two cells of a quarter"
