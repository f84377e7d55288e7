"""Scaling and cropping in one step: the pixels, labels and geometry of the scaled whole, without making it."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from saccade.data.randomness import seed_globals
from saccade.data.transforms.sample_transform import crop, move
from saccade.data.transforms.scale_crop import Placed, RandomScaleCrop
from saccade.structures import IGNORE, Annotations, Panoptic, Sample, make_sample
from saccade.structures.panoptic import Segment

HEIGHT, WIDTH = 60, 100


def scene() -> Sample:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 5, (HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[10.0, 10, 60, 50], [0, 0, 4, 4], [90, 50, 100, 60]])
    panoptic = Panoptic(labels.long() + 1, tuple(Segment(k, 0, True) for k in range(1, 6)))
    objects = {"boxes": boxes, "labels": torch.arange(3), "track_ids": torch.arange(3), "masks": labels[None].expand(3, -1, -1) > 2}
    return make_sample(image, Annotations(**objects, segmentation=labels, panoptic=panoptic))


def plain(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value.as_subclass(Tensor)


@pytest.mark.parametrize("width", [70, 100, 130, 310])
def test_the_part_is_that_of_the_resized_whole(width: int) -> None:
    sample, size, scaled = scene(), (24, 40), (int(width * HEIGHT / WIDTH), width)
    for top, left in ((0, 0), (scaled[0] - 24, width - 40), (7, 13)):
        found = RandomScaleCrop(size=size).apply(sample, Placed(scaled, top, left))
        expected = crop(move(sample, F.resize, list(scaled), antialias=True), top, left, *size)
        assert (plain(found.image).int() - plain(expected.image).int()).abs().max() <= 1
        assert found.meta.geometry is not None and found.meta.geometry.canvas_size == size
        torch.testing.assert_close(plain(found.meta.geometry), plain(expected.meta.geometry), atol=1e-9, rtol=0)
        whole = F.resize(sample.segmentation[None], list(scaled), interpolation=F.InterpolationMode.NEAREST_EXACT)  # type: ignore[index]
        labels = plain(whole)[0, top : top + 24, left : left + 40]
        assert torch.equal(plain(found.segmentation), labels) and found.segmentation.dtype == torch.uint8  # type: ignore[union-attr]
        assert found.panoptic is not None and torch.equal(plain(found.panoptic.segment_map), labels.long() + 1)
        for row, number in enumerate(plain(found.track_ids).tolist()):
            box = sample.boxes[number] * (width / WIDTH)  # type: ignore[index]
            box = box - torch.tensor([left, top, left, top])
            box = box.minimum(torch.tensor([40.0, 24, 40, 24])).clamp(min=0)
            torch.testing.assert_close(plain(found.boxes)[row], plain(box), atol=0.35, rtol=0)  # the height is truncated to whole pixels
            assert torch.equal(plain(found.masks)[row], labels > 2)


def test_objects_outside_the_part_leave_the_sample() -> None:
    found = RandomScaleCrop(size=(24, 40)).apply(scene(), Placed((120, 200), 30, 40))
    assert plain(found.track_ids).tolist() == [0] and len(plain(found.masks)) == 1


def test_places_lead_back_to_the_original() -> None:
    """A map of its own coordinates, above what means "ignore": every label is the original pixel that its place is said to be."""
    labels = torch.arange(HEIGHT)[:, None] * WIDTH + torch.arange(WIDTH) + 1000
    sample = make_sample(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8), Annotations(segmentation=labels))
    transform = RandomScaleCrop(size=(32, 48), scale=(0.4, 2.5))
    for _ in range(20):
        found = transform(sample)
        geometry, known = found.meta.geometry, plain(found.segmentation)
        assert geometry is not None
        rows, columns = torch.nonzero(known != IGNORE, as_tuple=True)
        places = geometry.points_to_original(torch.stack([columns, rows], 1).double() + 0.5)
        shown = known[rows, columns] - 1000
        centres = torch.stack([shown % WIDTH, shown // WIDTH], 1) + 0.5
        assert len(rows) > 100 and (places - centres).abs().max() <= 0.5 + 1e-9


def test_a_scaled_picture_that_is_too_small_is_filled_up_and_ignored() -> None:
    found = RandomScaleCrop(size=(48, 80), fill=(9.0, 8.0, 7.0)).apply(scene(), Placed((30, 50), 0, 0))
    assert found.size == (48, 80) and found.meta.geometry is not None and found.meta.geometry.canvas_size == (48, 80)
    labels = plain(found.segmentation)
    assert (labels[30:] == IGNORE).all() and (labels[:, 50:] == IGNORE).all() and (labels[:30, :50] != IGNORE).all()
    assert plain(found.image)[:, 47, 79].tolist() == [9, 8, 7] and plain(found.image)[:, 0, 50].tolist() == [9, 8, 7]
    resized = move(scene(), F.resize, [30, 50], antialias=True)
    assert (plain(found.image)[:, :30, :50].int() - plain(resized.image).int()).abs().max() <= 1
    assert found.panoptic is not None and (plain(found.panoptic.segment_map)[30:] == 0).all() and not plain(found.masks)[:, 30:].any()


def test_scales_are_those_of_proda() -> None:
    transform = RandomScaleCrop(size=(512, 896), scale=(0.5, 1.5), base_width=2200)
    sample = make_sample(torch.zeros(3, 1024, 2048, dtype=torch.uint8))
    seed_globals(0)
    drawn = [transform.draw([sample]) for _ in range(2000)]
    widths = np.array([placed.scaled[1] for placed in drawn])
    assert widths.min() >= 1100 and widths.max() < 3300 and abs(widths.mean() - 2200) < 50
    assert all(placed.scaled[0] == int(placed.scaled[1] / 2) for placed in drawn)
    reach = [(placed.top / max(1, placed.scaled[0] - 512), placed.left / (placed.scaled[1] - 896)) for placed in drawn]
    assert np.min(reach) < 0.01 and np.max(reach) > 0.99 and np.allclose(np.mean(reach, 0), 0.5, atol=0.03)
    own = RandomScaleCrop(size=(8, 8), scale=(2.0, 2.0)).draw([make_sample(torch.zeros(3, 10, 21, dtype=torch.uint8))])
    assert own.scaled == (20, 42)


def test_frames_of_a_clip_share_the_draw_and_floats_stay_floats() -> None:
    clip = RandomScaleCrop(size=(24, 40))([scene(), scene()])
    assert torch.equal(plain(clip[0].image), plain(clip[1].image))
    sample = make_sample(scene().image.float())
    found = RandomScaleCrop(size=(24, 40)).apply(sample, Placed((120, 200), 5, 5))
    assert found.image.dtype == torch.float32 and (found.image != found.image.round()).any()


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="smallest, largest"):
        RandomScaleCrop(size=(8, 8), scale=(1.5, 0.5))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_torchvisions_resize_moves_images_as_pillow_does_and_label_maps_to_the_nearest_pixel(interpolation: str) -> None:
    from PIL import Image

    from saccade.recipes import build

    sample, size = scene(), (37, 71)
    found = build({"type": "Resize", "size": list(size), "interpolation": interpolation}, where="test")(sample)
    pillow = Image.fromarray(plain(sample.image).permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling[interpolation.upper()])
    assert np.abs(plain(found.image).permute(1, 2, 0).numpy().astype(int) - np.asarray(pillow).astype(int)).max() <= 1
    rows, columns = (torch.arange(new) * old // new for new, old in zip(size, (HEIGHT, WIDTH), strict=True))
    assert torch.equal(plain(found.segmentation), plain(sample.segmentation)[rows][:, columns])
    assert found.meta.geometry.canvas_size == size
    corner = found.meta.geometry.points_to_original(torch.tensor([[71.0, 37.0]]))
    torch.testing.assert_close(corner, torch.tensor([[100.0, 60.0]]))
