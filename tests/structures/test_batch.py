"""Samples put together: filling up, its mask, and what stays with each image."""
from __future__ import annotations

import torch

from saccade.structures import Annotations, Batch, Panoptic, Segment, collate, make_sample


def sample(height: int, width: int, value: int = 100, id: int = 0) -> object:  # noqa: A002
    known = Annotations(boxes=torch.tensor([[1.0, 1.0, 3.0, 3.0]]), labels=torch.tensor([0]))
    return make_sample(torch.full((3, height, width), value, dtype=torch.uint8), known, id=id)


def test_equal_sizes_need_no_padding() -> None:
    batch = collate([sample(8, 12), sample(8, 12)])
    assert batch.images.shape == (2, 3, 8, 12) and batch.padding is None and len(batch) == 2
    assert type(batch.images) is torch.Tensor and batch.images.dtype == torch.uint8


def test_smaller_images_are_filled_on_the_right_and_below() -> None:
    batch = collate([sample(8, 12), sample(5, 14)])
    assert batch.images.shape == (2, 3, 8, 14)
    assert batch.padding is not None and batch.padding.dtype == torch.bool
    assert not batch.padding[0, :8, :12].any() and batch.padding[0, :, 12:].all()
    assert not batch.padding[1, :5, :14].any() and batch.padding[1, 5:].all()
    for image, outside in zip(batch.images, batch.padding, strict=True):
        assert (image[:, outside] == 0).all() and (image[:, ~outside] == 100).all()


def test_sizes_are_rounded_up_to_the_divisor() -> None:
    assert collate([sample(33, 64)], divisor=32).images.shape == (1, 3, 64, 64)
    exact = collate([sample(32, 64)], divisor=32)
    assert exact.images.shape == (1, 3, 32, 64) and exact.padding is None


def test_float_images_stay_float() -> None:
    images = [make_sample(torch.rand(3, 4, 6)), make_sample(torch.rand(3, 5, 5))]
    assert collate(images).images.dtype == torch.float32


def test_targets_and_metas_stay_in_order() -> None:
    batch = collate([sample(8, 8, id=3), sample(6, 6, id=4)])
    assert [m.id for m in batch.metas] == [3, 4]
    assert all(type(t) is Annotations and type(t.boxes) is torch.Tensor for t in batch.targets)
    assert [m.geometry.canvas_size for m in batch.metas] == [(8, 8), (6, 6)]  # type: ignore[union-attr]


def test_moving_a_batch_moves_images_padding_and_targets_but_not_the_originals() -> None:
    known = Annotations(boxes=torch.zeros(1, 4), panoptic=Panoptic(torch.ones(4, 4, dtype=torch.int64), (Segment(1, 0, True),)))
    samples = [make_sample(torch.zeros(3, 4, 4, dtype=torch.uint8), known), make_sample(torch.zeros(3, 3, 3, dtype=torch.uint8), known)]
    moved = collate(samples, originals=[known, known]).to("meta")
    assert isinstance(moved, Batch) and moved.padding is not None and moved.originals is not None
    assert moved.images.device.type == moved.padding.device.type == moved.targets[0].boxes.device.type == "meta"  # type: ignore[union-attr]
    assert moved.targets[1].panoptic.segment_map.device.type == "meta"  # type: ignore[union-attr]
    assert moved.originals[0].boxes.device.type == "cpu"  # type: ignore[union-attr]
