"""Views carry geometry and pseudo objects together."""
from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import RandomHorizontalFlip

from saccade.adaptation.views import View, make_views, ordered_views
from saccade.data.transforms.classification import Cutout
from saccade.data.transforms.clips import RandomUnclippedCrop
from saccade.data.transforms.sizes import KeepRatioResize
from saccade.data.transforms.ssd import PhotometricDistort
from saccade.data.transforms.strong import StrongAugment
from saccade.errors import InputError
from saccade.structures import Annotations, Batch, Geometry, Meta
from small_networks import images


def objects(count: int = 2) -> list[Annotations]:
    """One object of each of `count` images."""
    return [Annotations(boxes=torch.tensor([[4.0, 10, 20, 30]]), labels=torch.tensor([1]), track_ids=torch.tensor([1])) for _ in range(count)]


def test_a_view_after_another_shares_its_geometry() -> None:
    torch.manual_seed(3)
    geometry = [RandomHorizontalFlip(p=0.5), KeepRatioResize(scale=(64, 64), ratio=(0.8, 1.2)), RandomUnclippedCrop(size=(60, 60))]
    views = {"student": View(after="teacher", transforms=[PhotometricDistort(probability=1.0)]), "teacher": View(transforms=geometry)}
    made = make_views(views, images(), objects(), size_divisor=32)
    teacher, student = made["teacher"], made["student"]
    assert teacher.images.shape == student.images.shape and teacher.images.shape[-1] % 32 == 0
    assert not torch.equal(teacher.images.float(), student.images.float())
    for left, right, before, after in zip(teacher.targets, student.targets, teacher.metas, student.metas, strict=True):
        torch.testing.assert_close(left.boxes, right.boxes)
        assert torch.equal(before.geometry, after.geometry)  # type: ignore[arg-type]


def test_objects_lead_back_to_where_they_were_found() -> None:
    torch.manual_seed(0)
    view = View(transforms=[RandomHorizontalFlip(p=1.0), KeepRatioResize(scale=(128, 128), ratio=(0.8, 1.2))])
    made = make_views({"contrastive": view}, images(), objects())["contrastive"]
    for target, meta in zip(made.targets, made.metas, strict=True):
        assert target.boxes is not None and meta.geometry is not None
        torch.testing.assert_close(meta.geometry.boxes_to_original(target.boxes), objects()[0].boxes, atol=1e-3, rtol=0)
        assert target.track_ids is not None and target.track_ids.tolist() == [1]


def test_objects_that_a_crop_leaves_out_are_gone() -> None:
    batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [Annotations()], [Meta(geometry=Geometry.identity((64, 64)))])
    corner = [Annotations(boxes=torch.tensor([[0.0, 0, 20, 20]]), labels=torch.tensor([0]), track_ids=torch.tensor([1]))]
    torch.manual_seed(1)
    counts = {len(make_views({"v": View(transforms=[RandomUnclippedCrop(size=(32, 32))])}, batch, corner)["v"].targets[0].boxes) for _ in range(20)}
    assert counts == {0, 1}


def test_views_without_transforms_share_the_pixels() -> None:
    batch = images()
    made = make_views({"teacher": View(), "student": View(after="teacher")}, batch, None)
    assert made["teacher"].images is made["student"].images is batch.images
    assert made["student"].targets[0].boxes is None


def test_labels_of_the_data_do_not_reach_any_view() -> None:
    batch = images()
    batch.targets = objects()
    made = make_views({"student": View(transforms=[RandomHorizontalFlip(p=1.0)])}, batch, None)
    assert all(target.boxes is None for view in made.values() for target in view.targets)


def test_padding_is_cut_before_and_added_after_the_transforms() -> None:
    batch = images(1, 64)
    batch.metas = [Meta(geometry=Geometry.identity((48, 40)), original_size=(48, 40))]
    made = make_views({"v": View(transforms=[RandomHorizontalFlip(p=1.0)])}, batch, None, size_divisor=32)["v"]
    assert made.images.shape[-2:] == (64, 64) and made.padding is not None
    assert int((~made.padding).sum()) == 48 * 40
    torch.testing.assert_close(made.images[0, :, :48, :40], batch.images[0, :, :48, :40].flip(-1))


def test_views_are_checked_before_anything_runs() -> None:
    assert ordered_views({"b": View(after="a"), "a": View(), "c": View(after="b")}) == ["a", "b", "c"]
    with pytest.raises(InputError, match="no view; there are raw, source, a"):
        ordered_views({"a": View(after="x")})
    with pytest.raises(InputError, match="in turn"):
        ordered_views({"a": View(after="b"), "b": View(after="a")})
    for name in ("raw", "source"):
        with pytest.raises(InputError, match="call the view something else"):
            ordered_views({name: View()})


def test_a_view_says_where_it_shows_nothing_if_asked() -> None:
    torch.manual_seed(0)
    transforms = [StrongAugment(flip=1.0, num_operations=6, probability=1.0), Cutout(size=16, probability=1.0, fill=127.0, ignore=True)]
    views = {"weak": View(transforms=[RandomHorizontalFlip(p=1.0)]), "strong": View(after="weak", transforms=transforms, holes=True)}
    made = make_views(views, images(), None)
    assert made["weak"].targets[0].segmentation is None
    for image, target, meta in zip(made["strong"].images, made["strong"].targets, made["strong"].metas, strict=True):
        assert target.segmentation is not None and set(target.segmentation.unique().tolist()) == {0, 255}
        assert (image[:, target.segmentation == 255].float().std(1) < 64).all()
        assert meta.applied[0].name == "HorizontalFlip" and meta.applied[-1].name == "Cutout"
