"""Samples through torchvision's v2 transforms, alone and as clips, and through workers."""
from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from saccade.structures import IGNORE, Annotations, Meta, Panoptic, Sample, Segment, make_sample


def blocks(frame: int = 0) -> Sample:
    """Two coloured rectangles with every kind of annotation; the second one moves with the frame."""
    height, width = 40, 60
    places = [(4, 6, 20, 18), (30 + frame, 20, 50 + frame, 36)]
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    segment_map = torch.zeros(height, width, dtype=torch.int64)
    for k, (x1, y1, x2, y2) in enumerate(places):
        image[k, y1:y2, x1:x2] = 200
        masks[k, y1:y2, x1:x2] = True
        segment_map[y1:y2, x1:x2] = 10 + k
    known = Annotations(
        boxes=torch.tensor(places, dtype=torch.float32), labels=torch.tensor([3, 1]), masks=masks, track_ids=torch.tensor([7, 9]),
        crowd=torch.tensor([False, True]), difficult=torch.tensor([True, False]), areas=torch.tensor([192.0, 320.0]), actions=torch.tensor([0, 4]),
        segmentation=masks.to(torch.uint8).argmax(0).to(torch.uint8),
        panoptic=Panoptic(segment_map, (Segment(10, 3, True), Segment(11, 1, True))), label=2,
    )  # fmt: skip
    return make_sample(image, known, dataset="blocks", id=f"b{frame}", video="v", frame=frame)


def boxes_of_masks(masks: Tensor) -> Tensor:
    found = [(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1) for y, x in (torch.nonzero(m, as_tuple=True) for m in masks)]
    return torch.tensor(found, dtype=torch.float32)


def test_a_new_sample_knows_its_size_and_wraps_what_moves() -> None:
    sample = blocks()
    assert sample.size == (40, 60) and sample.meta.original_size == (40, 60)
    assert isinstance(sample.image, tv_tensors.Image)
    assert isinstance(sample.boxes, tv_tensors.BoundingBoxes) and sample.boxes.canvas_size == (40, 60)
    assert isinstance(sample.masks, tv_tensors.Mask) and isinstance(sample.segmentation, tv_tensors.Mask)
    assert sample.num_objects == 2 and Sample().num_objects == 0


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomHorizontalFlip(1.0), v2.RandomVerticalFlip(1.0), v2.Resize([80, 120], v2.InterpolationMode.NEAREST), v2.RandomCrop((38, 58)),
        v2.Pad([3, 4, 5, 6]), v2.RandomZoomOut(p=1.0, side_range=(1.5, 1.6)),
    ],
    ids=lambda t: type(t).__name__,
)  # fmt: skip
def test_everything_moves_together(transform: v2.Transform) -> None:
    torch.manual_seed(1)
    moved = transform(blocks())
    assert isinstance(moved, Sample) and isinstance(moved.panoptic, Panoptic)
    assert isinstance(moved.boxes, tv_tensors.BoundingBoxes) and isinstance(moved.masks, tv_tensors.Mask)
    torch.testing.assert_close(moved.boxes.as_subclass(Tensor), boxes_of_masks(moved.masks))
    assert torch.equal(moved.masks.as_subclass(Tensor)[0], moved.image.as_subclass(Tensor)[0] == 200)
    assert torch.equal(moved.masks.as_subclass(Tensor)[1], moved.panoptic.segment_map.as_subclass(Tensor) == 11)
    assert torch.equal(moved.masks.as_subclass(Tensor)[1], moved.segmentation.as_subclass(Tensor) == 1)
    assert moved.panoptic.segments == blocks().panoptic.segments  # type: ignore[union-attr]
    assert moved.labels.tolist() == [3, 1] and moved.track_ids.tolist() == [7, 9] and moved.label == 2
    assert moved.areas.tolist() == [192.0, 320.0]
    assert moved.meta.geometry.canvas_size == moved.size and moved.meta.id == "b0"


def test_a_transform_leaves_its_input_alone() -> None:
    sample, same = blocks(), blocks()
    v2.Compose([v2.RandomHorizontalFlip(1.0), v2.RandomCrop((20, 20)), v2.RandomPhotometricDistort(p=1.0)])(sample)
    assert torch.equal(sample.image, same.image) and torch.equal(sample.boxes, same.boxes)
    assert torch.equal(sample.meta.geometry.as_subclass(Tensor), same.meta.geometry.as_subclass(Tensor))


def test_a_clip_shares_one_random_draw() -> None:
    torch.manual_seed(0)
    transform = v2.Compose([v2.RandomAffine(20, (0.2, 0.2)), v2.RandomResizedCrop((32, 32))])
    clip = transform([blocks(t) for t in range(4)])
    assert [type(s) for s in clip] == [Sample] * 4 and [s.meta.frame for s in clip] == [0, 1, 2, 3]
    first = clip[0].meta.geometry.as_subclass(Tensor)
    assert all(torch.equal(s.meta.geometry.as_subclass(Tensor), first) for s in clip)
    alone = [transform(blocks(t)) for t in range(4)]
    assert not torch.equal(alone[0].meta.geometry.as_subclass(Tensor), alone[1].meta.geometry.as_subclass(Tensor))


def test_selecting_keeps_rows_together_and_the_image_whole() -> None:
    kept = blocks().select(torch.tensor([False, True]))
    assert isinstance(kept.boxes, tv_tensors.BoundingBoxes) and kept.boxes.canvas_size == (40, 60)
    assert kept.labels.tolist() == [1] and kept.track_ids.tolist() == [9] and kept.crowd.tolist() == [True] and kept.actions.tolist() == [4]
    assert kept.masks.shape == (1, 40, 60) and kept.segmentation.shape == (40, 60) and kept.label == 2
    assert blocks().select(torch.tensor([1, 0])).labels.tolist() == [1, 3]
    assert blocks().select(torch.zeros(0, dtype=torch.int64)).num_objects == 0


def test_a_selected_sample_can_still_be_transformed() -> None:
    moved = v2.RandomHorizontalFlip(1.0)(blocks().select(torch.tensor([1])))
    torch.testing.assert_close(moved.boxes.as_subclass(Tensor), torch.tensor([[10.0, 20.0, 30.0, 36.0]]))


def test_annotations_are_plain_tensors_without_the_image() -> None:
    known = blocks().annotations()
    assert type(known) is Annotations
    assert type(known.boxes) is Tensor and type(known.masks) is Tensor and type(known.segmentation) is Tensor
    assert known.label == 2 and known.panoptic is not None


def test_absent_knowledge_stays_absent() -> None:
    sample = v2.Resize([10, 10])(make_sample(torch.zeros(3, 5, 7, dtype=torch.uint8)))
    assert sample.boxes is None and sample.masks is None and sample.panoptic is None and sample.label is None
    assert sample.size == (10, 10) and sample.meta.original_size == (5, 7)


def test_an_image_without_objects_can_be_transformed() -> None:
    empty = Annotations(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64), masks=torch.zeros(0, 5, 7, dtype=torch.bool))
    sample = make_sample(torch.zeros(3, 5, 7, dtype=torch.uint8), empty)
    moved = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.Resize([10, 14]), v2.RandomAffine(10)])(sample)
    assert moved.boxes.shape == (0, 4) and moved.masks.shape == (0, 10, 14)


def test_filled_pixels_of_a_segmentation_can_be_ignored() -> None:
    moved = v2.Pad(2, fill={tv_tensors.Mask: IGNORE, "others": 0})(make_sample(
        torch.zeros(3, 4, 4, dtype=torch.uint8), Annotations(segmentation=torch.ones(4, 4, dtype=torch.uint8))
    ))  # fmt: skip
    assert moved.segmentation[0, 0] == IGNORE and moved.segmentation[3, 3] == 1


class _Clips(Dataset[list[Sample]]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> list[Sample]:
        return v2.Resize([20, 25])([blocks(index), blocks(index + 1)])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_samples_arrive_from_workers_as_they_were(context: str) -> None:
    arrived = list(DataLoader(_Clips(), batch_size=None, num_workers=1, multiprocessing_context=context))
    for index, clip in enumerate(arrived):
        for got, sent in zip(clip, _Clips()[index], strict=True):
            assert isinstance(got, Sample) and isinstance(got.boxes, tv_tensors.BoundingBoxes)
            assert got.boxes.canvas_size == (20, 25) and got.meta.geometry.canvas_size == (20, 25) and got.meta.geometry.exact
            assert torch.equal(got.boxes, sent.boxes) and torch.equal(got.panoptic.segment_map, sent.panoptic.segment_map)
            assert torch.equal(got.meta.geometry.as_subclass(Tensor), sent.meta.geometry.as_subclass(Tensor))
            assert (got.meta.id, got.meta.frame, got.meta.original_size) == (sent.meta.id, sent.meta.frame, (40, 60))
            # What arrives can be transformed further.
            assert v2.RandomHorizontalFlip(1.0)(got).meta.geometry.canvas_size == (20, 25)


def test_a_pickled_sample_is_the_same_sample() -> None:
    sample = blocks()
    again = pickle.loads(pickle.dumps(sample))
    assert torch.equal(again.image, sample.image) and isinstance(again.image, tv_tensors.Image)
    assert again.boxes.format == sample.boxes.format and again.panoptic.segments == sample.panoptic.segments


def test_meta_without_a_geometry_survives_a_transform() -> None:
    sample = Sample(image=tv_tensors.Image(torch.zeros(3, 4, 4, dtype=torch.uint8)), meta=Meta(id=5))
    assert v2.Resize([8, 8])(sample).meta == Meta(id=5)


def test_moving_to_a_device_moves_every_tensor() -> None:
    moved = blocks().annotations().to("meta")
    assert moved.boxes.device.type == moved.masks.device.type == moved.panoptic.segment_map.device.type == "meta"
    assert moved.label == 2
