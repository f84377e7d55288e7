"""Pairs of frames: which frame is whose reference, what a batch of pairs holds, and what the frames of a pair share."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from saccade.data.contract import Video
from saccade.data.inspection import inspect
from saccade.data.loading import Loader
from saccade.data.pairs import FramePairs
from saccade.data.randomness import seeded
from saccade.data.sampling import AspectRatioGroups, evaluation_order
from saccade.data.town.dataset import Town
from saccade.data.transforms.clips import EachFrame, RandomUnclippedCrop, ToFloat
from saccade.data.transforms.sizes import KeepRatioResize
from saccade.errors import InputError
from saccade.report.contact_sheet import contact_sheet
from saccade.report.explanation import follow_sample
from saccade.structures import Annotations, Batch, Sample, collate, make_sample


class Videos:
    """Two videos of 6 and 4 frames and two still images without ids; object `v` lives in video v all along, object 9 in the first frame alone."""

    name, classes = "videos", ("thing",)
    videos = (Video("a", tuple(range(6))), Video("b", tuple(range(6, 10))))

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Sample:
        video = "a" if index < 6 else "b" if index < 10 else None
        image = torch.full((3, 40, 60), index, dtype=torch.uint8)
        return make_sample(image, self.annotations(index), dataset=self.name, id=index, video=video, frame=index % 6)

    def annotations(self, index: int) -> Annotations:
        ids = {0: [9], 3: [], 8: [7]}.get(index, [0 if index < 6 else 1]) if index < 10 else None
        count = 2 if ids is None else len(ids)
        boxes = torch.tensor([[5.0, 5, 20, 30], [30, 10, 50, 35]])[:count]
        return Annotations(boxes=boxes, labels=torch.zeros(count, dtype=torch.int64), track_ids=None if ids is None else torch.tensor(ids))

    def item_id(self, index: int) -> str:
        return str(index)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "images": len(self)}


def drawn(pairs: FramePairs, index: int, times: int = 60) -> set[int]:
    found = set()
    for seed in range(times):
        with seeded(seed):
            found.add(int(pairs[index][1].meta.id))
    return found


def test_references_are_the_neighbours_in_the_video_that_share_an_object() -> None:
    pairs = FramePairs(dataset=Videos(), reach=2, keep_empty=True)
    assert pairs.neighbours(2) == [0, 1, 3, 4] and pairs.neighbours(6) == [7, 8]
    assert drawn(pairs, 2) == {1, 4}  # frame 0 shows another object, frame 3 none
    assert drawn(pairs, 6) == {7} and drawn(pairs, 9) == {7}  # frame 8 shows another object


def test_every_reference_within_reach_comes_equally_often() -> None:
    pairs = FramePairs(dataset=Town(num_videos=1, frames_per_video=9, size=64, masks=False, segmentation=False, panoptic=False), reach=2)
    counts: dict[int, int] = {}
    for seed in range(200):
        with seeded(seed):
            frame = pairs[4][1].meta.frame
            assert frame is not None
            counts[frame] = counts.get(frame, 0) + 1
    assert set(counts) == {2, 3, 5, 6} and min(counts.values()) > 25


def test_a_still_image_and_a_frame_that_shares_nothing_are_paired_with_themselves() -> None:
    pairs = FramePairs(dataset=Videos(), reach=3, keep_empty=True)
    for index in (0, 8, 10):
        assert drawn(pairs, index, 3) == {index}
    still, same = pairs[10]
    assert still.track_ids is not None and same.track_ids is not None
    assert still.track_ids.tolist() == same.track_ids.tolist() == [0, 1]


def test_frames_without_objects_are_no_keys_unless_asked_for() -> None:
    pairs = FramePairs(dataset=Videos())
    assert len(pairs) == 11 and pairs.item_id(3) == "4"
    assert len(FramePairs(dataset=Videos(), keep_empty=True)) == 12


def test_a_reach_of_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="reach"):
        FramePairs(dataset=Videos(), reach=0)


def pair_batch(workers: int, size: int = 5) -> Batch:
    pairs = FramePairs(dataset=Videos(), reach=3)
    transforms = [
        ToFloat(), KeepRatioResize(scale=(80, 80), ratio=(0.8, 1.2), clip=False), EachFrame(transforms=[RandomUnclippedCrop(size=(40, 50))]),
        v2.RandomHorizontalFlip(),
    ]
    loader = Loader(dataset=pairs, transforms=transforms, batch_size=size, seed=3, workers=workers, size_divisor=32)
    batch = next(loader.batches(2))
    loader.close()
    return batch


def test_a_batch_of_pairs_has_two_frames_a_clip_and_targets_clip_after_clip() -> None:
    batch = pair_batch(0)
    assert batch.images.shape == (5, 2, 3, 64, 64) and batch.padding is not None and batch.padding.shape == (5, 2, 64, 64) and len(batch) == 5
    assert len(batch.targets) == len(batch.metas) == 10
    for clip in range(5):
        for frame in range(2):
            meta = batch.metas[2 * clip + frame]
            inside = ~batch.padding[clip, frame]
            assert meta.geometry is not None and int(inside.sum()) == meta.geometry.canvas_size[0] * meta.geometry.canvas_size[1]
            assert batch.images[clip, frame, 0][inside].round().unique().tolist() == [meta.id]


def test_pairs_do_not_depend_on_the_number_of_workers() -> None:
    alone, shared = pair_batch(0), pair_batch(2)
    assert torch.equal(alone.images, shared.images) and [m.id for m in alone.metas] == [m.id for m in shared.metas]


def test_clips_of_different_lengths_do_not_fit_into_a_batch() -> None:
    sample = Videos()[0]
    with pytest.raises(ValueError, match="number of frames"):
        collate([[sample, sample], [sample]])


def test_the_frames_of_a_pair_share_size_and_flip_and_draw_their_own_crop() -> None:
    sample = Videos()[1]
    with seeded(1):
        sizes = {tuple(f.size for f in KeepRatioResize(scale=(400, 400), ratio=(0.5, 1.5))([sample, sample])) for _ in range(5)}
        crops = [EachFrame(transforms=[RandomUnclippedCrop(size=(10, 10))])([sample, sample]) for _ in range(5)]
    assert len(sizes) == 5 and all(first == second for first, second in sizes)
    assert any(not torch.equal(first.meta.geometry, second.meta.geometry) for first, second in crops)


def test_a_crop_moves_boxes_without_clipping_and_drops_what_lies_outside() -> None:
    sample = Videos()[10]  # boxes (5, 5, 20, 30) and (30, 10, 50, 35)
    with seeded(0):
        while True:
            crop = RandomUnclippedCrop(size=(40, 22))
            cut = crop(sample)
            assert cut.meta.geometry is not None and cut.boxes is not None
            left = int(cut.meta.geometry[0, 2])
            if 0 < left < 8:
                break
    assert cut.boxes.tolist() == [[5.0 - left, 5, 20 - left, 30]] and cut.labels is not None and len(cut.labels) == 1
    with seeded(0):
        kept = RandomUnclippedCrop(size=(40, 22), reference_quirks=True)(sample)
    assert kept.boxes is not None and len(kept.boxes) == 2


def test_evaluation_keeps_videos_whole_whatever_the_number_of_processes() -> None:
    dataset = Videos()
    assert list(evaluation_order(dataset)) == list(range(12))
    for world in (1, 2, 3, 5):
        parts = [list(evaluation_order(dataset, rank, world)) for rank in range(world)]
        assert sorted(i for part in parts for i in part) == list(range(12))
        for video in dataset.videos:
            holders = [part for part in parts if set(part) & set(video.frames)]
            assert len(holders) == 1
            start = holders[0].index(video.frames[0])
            assert holders[0][start:start + len(video.frames)] == list(video.frames)


def test_pairs_are_inspected_shown_and_explained_by_their_key_frames() -> None:
    pairs = FramePairs(dataset=Videos())
    found = inspect(pairs)
    assert found.image_sizes[(40, 60)] == 1 and not [p for p in found.problems if p.consequence == "can't be used"]
    assert contact_sheet(pairs, count=4).size == contact_sheet(Videos(), count=4).size
    with seeded(0):
        steps, last = follow_sample(pairs[1], [ToFloat()], source=pairs)
    assert [step.name for step in steps] == ["FramePairs", "ToFloat"] and len(last) == 2
    assert steps[0].fields[0][2] == "2 frames" and steps[1].fields[1][1].startswith("float32")


def test_grouping_by_shape_looks_at_the_keys() -> None:
    order = AspectRatioGroups().order(FramePairs(dataset=Videos()), block=2)
    assert len(order) == 12
