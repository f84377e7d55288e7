"""Moving a sample's parts together, and leaving objects out with all that is theirs."""
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from saccade.data.transforms.automatic import AutoAugment, RandAugment
from saccade.data.transforms.classification import Cutout, Lighting, RandomErasing, RandomResizedCrop
from saccade.data.transforms.detr import RandomSelect, RandomShortSideResize, RandomSizeCrop
from saccade.data.transforms.sample_transform import RemoveDegenerate, crop, move_with_fill
from saccade.data.transforms.sizes import CenterCrop, KeepRatioResize, PadTo
from saccade.data.transforms.ssd import Expand, MinIoUCrop, PhotometricDistort
from saccade.structures import Annotations, Panoptic, Sample, make_sample
from saccade.structures.panoptic import Segment

HEIGHT, WIDTH = 60, 80
EVERYTHING: list[Callable[[], Callable[[Sample], Sample]]] = [
    AutoAugment, RandAugment, lambda: Cutout(size=20), Lighting, RandomErasing, lambda: RandomResizedCrop(size=40),
    lambda: RandomResizedCrop(size=40, efficientnet_style=True), lambda: RandomShortSideResize(sizes=[50, 70], max_size=90),
    lambda: RandomSizeCrop(min_size=30, max_size=50), lambda: KeepRatioResize(scale=(100, 70)), lambda: CenterCrop(size=50),
    lambda: PadTo(square=True), Expand, MinIoUCrop, PhotometricDistort,
    lambda: RandomSelect(first=[RandomSizeCrop(min_size=30, max_size=50)], second=[v2.RandomHorizontalFlip()]),
]


def marked_sample(seed: int = 0, num_objects: int = 5) -> Sample:
    """Objects whose mask fills their box, whose fields all name the object, on an image that shows object i with grey level 40 i + 40."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_objects, 2, generator=random) * torch.tensor([WIDTH - 20.0, HEIGHT - 20.0])
    boxes = torch.cat([corners, corners + 8 + torch.rand(num_objects, 2, generator=random) * 10], 1).round()
    image, masks = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8), torch.zeros(num_objects, HEIGHT, WIDTH, dtype=torch.bool)
    ids = torch.arange(num_objects)
    segmentation = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    for i, (x1, y1, x2, y2) in enumerate(boxes.int().tolist()):
        masks[i, y1:y2, x1:x2] = True
        image[:, y1:y2, x1:x2] = 40 * i + 40
        segmentation[y1:y2, x1:x2] = i + 1
    annotations = Annotations(
        boxes=boxes, labels=ids.clone(), masks=masks, track_ids=ids + 100, crowd=ids % 2 == 0, difficult=ids % 3 == 0,
        areas=ids.float(), actions=ids + 7, segmentation=segmentation, label=3,
        panoptic=Panoptic(segmentation.long(), tuple(Segment(i + 1, i, True) for i in range(num_objects))),
    )
    return make_sample(image, annotations, dataset="marked", id=seed)


def assert_consistent(sample: Sample) -> None:
    """Every field has one row an object and the rows belong together; maps have the image's size; boxes lie around their masks."""
    labels = sample.labels
    assert labels is not None and sample.boxes is not None and sample.masks is not None and sample.track_ids is not None
    assert sample.areas is not None and sample.actions is not None and sample.crowd is not None and sample.difficult is not None
    assert torch.equal(sample.track_ids, labels + 100) and torch.equal(sample.actions, labels + 7) and torch.equal(sample.areas, labels.float())
    assert torch.equal(sample.crowd, labels % 2 == 0) and torch.equal(sample.difficult, labels % 3 == 0)
    assert len(sample.boxes) == len(sample.masks) == len(labels)
    assert sample.masks.shape[-2:] == sample.size and sample.segmentation is not None and sample.segmentation.shape == sample.size
    assert sample.panoptic is not None and sample.panoptic.segment_map.shape == sample.size
    assert sample.meta.geometry is not None and sample.meta.geometry.canvas_size == sample.size
    for box, mask in zip(sample.boxes.as_subclass(Tensor), sample.masks, strict=True):
        if mask.sum() > 30:
            rows, columns = mask.as_subclass(Tensor).nonzero().unbind(1)
            around = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
            assert (box - around).abs().max() <= 2.5, (box, around)  # nearest neighbour on the mask


@pytest.mark.parametrize("make", EVERYTHING, ids=lambda make: getattr(make, "__name__", "lambda"))
@pytest.mark.parametrize("seed", range(8))
def test_boxes_masks_and_ids_stay_in_step(make: Callable[[], Callable[[Sample], Sample]], seed: int) -> None:
    torch.manual_seed(seed)
    before = marked_sample(seed)
    after = make()(before)
    assert_consistent(after)
    assert_consistent(before)
    assert torch.equal(before.image, marked_sample(seed).image), "the sample that was given has changed"


@pytest.mark.parametrize("make", EVERYTHING, ids=lambda make: getattr(make, "__name__", "lambda"))
def test_a_clip_shares_its_draw_and_separate_samples_do_not(make: Callable[[], Callable[[Sample], Sample]]) -> None:
    torch.manual_seed(1)
    transform = make()
    for _ in range(4):
        first, second = transform([marked_sample(), marked_sample()])  # type: ignore[arg-type, misc]
        assert torch.equal(first.image, second.image) and torch.equal(first.meta.geometry, second.meta.geometry)


@pytest.mark.parametrize("make", EVERYTHING, ids=lambda make: getattr(make, "__name__", "lambda"))
def test_the_way_back_leads_to_the_original_boxes(make: Callable[[], Callable[[Sample], Sample]]) -> None:
    for seed in range(6):
        torch.manual_seed(seed)
        before = marked_sample(seed)
        after = make()(before)
        assert after.boxes is not None and before.boxes is not None and after.meta.geometry is not None and after.labels is not None
        back = after.meta.geometry.boxes_to_original(after.boxes.as_subclass(Tensor))
        inside = ((after.boxes > 1e-3) & (after.boxes < torch.tensor(after.size[::-1] * 2) - 1e-3)).all(1)  # not clipped
        upright = after.meta.geometry[0, 1] == 0 and after.meta.geometry[1, 0] == 0  # neither turned nor sheared
        if upright:
            torch.testing.assert_close(back[inside], before.boxes.as_subclass(Tensor)[after.labels[inside]], atol=1e-2, rtol=0)


def test_degenerate_objects_leave_with_all_their_fields() -> None:
    sample = marked_sample()
    assert sample.boxes is not None
    sample.boxes[1, 2] = sample.boxes[1, 0]
    sample.boxes[3, 3] = float("nan")
    kept = RemoveDegenerate()(sample)
    assert kept.labels is not None and kept.labels.tolist() == [0, 2, 4]
    assert_consistent(kept)
    assert RemoveDegenerate()(make_sample(torch.zeros(3, 4, 4, dtype=torch.uint8))).boxes is None


def test_clipping_removes_objects_outside_of_the_image() -> None:
    boxes = torch.tensor([[-10.0, 0, 0, 5], [2, 2, 30, 6]])
    sample = make_sample(torch.zeros(3, 8, 10, dtype=torch.uint8), Annotations(boxes=boxes, labels=torch.tensor([0, 1])))
    kept = RemoveDegenerate(clip=True)(sample)
    assert kept.boxes is not None and kept.boxes.tolist() == [[2, 2, 10, 6]] and kept.labels is not None and kept.labels.tolist() == [1]


def test_new_pixels_are_ignored_in_the_segmentation_and_empty_in_masks() -> None:
    padded = move_with_fill(marked_sample(), F.pad, [5, 0, 0, 0], fill=(10.0, 20.4, 30.0))
    assert padded.image[:, 0, 0].tolist() == [10, 20, 30]
    assert padded.segmentation is not None and (padded.segmentation[:, :5] == 255).all()
    assert padded.masks is not None and not padded.masks[..., :5].any()
    assert padded.panoptic is not None and (padded.panoptic.segment_map[:, :5] == 0).all()


def test_cropping_a_decoded_jpeg_keeps_the_fast_layout() -> None:
    innermost = torch.arange(3 * 20 * 30).remainder(251).to(torch.uint8).reshape(20, 30, 3).permute(2, 0, 1)
    part = crop(make_sample(innermost), 2, 3, 10, 12).image
    assert torch.equal(part.as_subclass(Tensor), innermost[:, 2:12, 3:15])
    assert part.stride() == (1, 36, 3)
