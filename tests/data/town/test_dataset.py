"""Town as a data set: what its annotations promise, and that a frame is a function of its name alone."""
from __future__ import annotations

import hashlib
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from saccade.data.contract import Dataset
from saccade.data.town import rendering
from saccade.data.town.dataset import Town
from saccade.data.town.vocabulary import ACTIONS, CLASSES, DOMAINS, SEMANTIC_CLASSES
from saccade.errors import InputError
from saccade.structures import IGNORE, Sample

ROOT = Path(__file__).parents[3]


def fingerprint(sample: Sample) -> str:
    """A digest of the pixels and of all annotations."""
    digest = hashlib.sha256(sample.image.numpy().tobytes())
    for value in (sample.boxes, sample.labels, sample.masks, sample.track_ids, sample.actions, sample.segmentation, sample.panoptic.segment_map):
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def forget() -> None:
    for memory in (rendering.scene_of, rendering.backdrop_of, rendering._lit_street):
        memory.cache_clear()


@pytest.fixture(scope="module")
def stills() -> Town:
    return Town(num_videos=60, frames_per_video=1, split="val")


def test_it_is_a_data_set(stills: Town) -> None:
    assert isinstance(stills, Dataset)
    assert len(stills) == 60 and stills.classes == CLASSES and stills.videos == ()
    sample = stills[7]
    assert sample.image.shape == (3, 128, 128) and sample.image.dtype == torch.uint8
    assert sample.meta.dataset == stills.name == "town_day_val" and sample.meta.id == stills.item_id(7) and sample.meta.video is None
    assert torch.equal(stills[-1].image, stills[59].image)
    with pytest.raises(IndexError, match="60"):
        stills[60]


def test_the_same_arguments_give_the_same_bytes_in_another_process() -> None:
    town = Town(size=(64, 96), num_videos=2, frames_per_video=4, split="test", domain="camera", seed=5)
    code = (
        "from test_dataset import Town, fingerprint\n"
        "town = Town(size=(64, 96), num_videos=2, frames_per_video=4, split='test', domain='camera', seed=5)\n"
        "print(' '.join(fingerprint(town[i]) for i in range(8)))"
    )
    paths = os.pathsep.join([str(ROOT / "src"), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "12345"}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert there == [fingerprint(town[i]) for i in range(8)]


def test_frames_in_any_order_equal_frames_in_sequence() -> None:
    town = Town(size=64, num_videos=3, frames_per_video=6, domain="rain")
    forget()
    in_sequence = [fingerprint(town[i]) for i in range(len(town))]
    order = list(range(len(town)))
    random.Random(1).shuffle(order)
    for index in order:
        forget()
        assert fingerprint(town[index]) == in_sequence[index]
    assert len(set(in_sequence)) == len(town)


def test_boxes_and_areas_are_those_of_the_masks(stills: Town) -> None:
    for index in range(20):
        known = stills.annotations(index)
        assert known.masks.shape == (known.num_objects, 128, 128)
        for box, area, mask in zip(known.boxes, known.areas, known.masks, strict=True):
            y, x = torch.nonzero(mask, as_tuple=True)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert area == mask.sum()


def test_masks_semantic_and_panoptic_map_agree(stills: Town) -> None:
    ignored = 0.0
    for index in range(20):
        known = stills.annotations(index)
        assert int(known.masks.sum(0).max()) <= 1, "masks show what is seen, so they never overlap"
        things = [s for s in known.panoptic.segments if s.is_thing]
        assert [s.label for s in things] == known.labels.tolist()
        for segment, mask in zip(things, known.masks, strict=True):
            assert torch.equal(known.panoptic.segment_map == segment.id, mask)
            assert (known.segmentation[mask] == segment.label).all()
        for segment in known.panoptic.segments:
            where = known.panoptic.segment_map == segment.id
            assert where.any() and (known.segmentation[where] == segment.label).all()
            assert segment.is_thing == (segment.label < len(CLASSES))
        assert torch.equal(known.panoptic.segment_map == 0, known.segmentation == IGNORE)
        stuff = known.segmentation[~known.masks.any(0) & (known.segmentation != IGNORE)]
        assert ((stuff >= len(CLASSES)) & (stuff < len(SEMANTIC_CLASSES))).all()
        ignored += float((known.segmentation == IGNORE).float().mean()) / 20
    assert 0.0 < ignored < 0.05, "only what is too hidden or too small to be annotated"


def test_annotations_need_no_picture_but_equal_those_of_the_sample(stills: Town) -> None:
    known, sample = stills.annotations(3), stills[3].annotations()
    for name in ("boxes", "labels", "masks", "track_ids", "areas", "actions", "segmentation"):
        assert torch.equal(getattr(known, name), getattr(sample, name)), name
        assert type(getattr(known, name)) is Tensor
    assert known.panoptic.segments == sample.panoptic.segments


def test_every_class_and_action_occurs() -> None:
    town = Town(num_videos=80, frames_per_video=1, masks=False, segmentation=False, panoptic=False)
    labels, actions = set(), set()
    for index in range(len(town)):
        known = town.annotations(index)
        labels.update(known.labels.tolist())
        actions.update(known.actions.tolist())
        assert torch.equal(known.actions >= 0, known.labels == CLASSES.index("person"))
    assert labels == set(range(len(CLASSES)))
    assert actions == {-1, *range(len(ACTIONS))}


def test_every_stuff_class_occurs(stills: Town) -> None:
    seen = torch.cat([stills.annotations(i).segmentation.unique() for i in range(40)]).unique().tolist()
    assert seen == [*range(len(SEMANTIC_CLASSES)), IGNORE]


def test_objects_are_large_enough_to_be_found(stills: Town) -> None:
    boxes = torch.cat([stills.annotations(i).boxes for i in range(60)])
    longest = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    assert (longest >= 12).float().mean() > 0.97
    assert 3 < len(boxes) / 60 < 8


def test_domains_share_every_annotation_and_differ_in_every_picture() -> None:
    towns = [Town(size=96, num_videos=2, frames_per_video=2, domain=domain) for domain in DOMAINS]
    for index in range(4):
        samples = [town[index] for town in towns]
        for other in samples[1:]:
            for name in ("boxes", "labels", "masks", "track_ids", "areas", "actions", "segmentation"):
                assert torch.equal(getattr(samples[0], name), getattr(other, name)), name
            assert torch.equal(samples[0].panoptic.segment_map, other.panoptic.segment_map)
            assert samples[0].meta.id == other.meta.id
        for a in range(len(DOMAINS)):
            for b in range(a):
                assert (samples[a].image.float() - samples[b].image.float()).abs().mean() > 6, (DOMAINS[a], DOMAINS[b])


def test_each_domain_shifts_the_way_its_name_says() -> None:
    mean, spread, colour = {}, {}, {}
    for domain in DOMAINS:
        town = Town(num_videos=8, frames_per_video=1, domain=domain)
        images = torch.stack([town[i].image.as_subclass(Tensor).float() for i in range(8)])
        mean[domain], spread[domain] = images.mean(), images.flatten(1).std(1).mean()
        colour[domain] = (images.amax(1) - images.amin(1)).mean()
    assert mean["night"] < 0.6 * mean["day"] and mean["rain"] < 0.85 * mean["day"]
    assert mean["fog"] > mean["day"] and spread["fog"] < 0.75 * spread["day"]
    assert colour["sketch"] < 0.35 * colour["day"] and colour["rain"] < colour["day"]


def test_splits_and_seeds_have_other_scenes() -> None:
    kinds = [{"split": "train"}, {"split": "val"}, {"split": "test"}, {"split": "train", "seed": 1}]
    pictures = {fingerprint(Town(size=64, num_videos=4, frames_per_video=1, **kind)[i]) for kind in kinds for i in range(4)}
    assert len(pictures) == 16


@pytest.mark.parametrize("size", [64, 512, (64, 160), (160, 96), (101, 77)])
def test_any_size_renders(size: int | tuple[int, int]) -> None:
    sample = Town(size=size, num_videos=1, frames_per_video=2)[1]
    height, width = (size, size) if isinstance(size, int) else size
    assert sample.size == (height, width) == sample.segmentation.shape == sample.masks.shape[1:] == sample.panoptic.segment_map.shape
    assert (sample.boxes[:, :2] >= 0).all() and (sample.boxes[:, 2] <= width).all() and (sample.boxes[:, 3] <= height).all()


def test_a_scene_is_the_same_at_every_size() -> None:
    small, large = (Town(size=s, num_videos=6, frames_per_video=1, min_visibility=0.5) for s in (128, 384))
    near = total = 0
    for index in range(6):
        a, b = small.annotations(index), large.annotations(index)
        where = {int(i): box for i, box in zip(b.track_ids, b.boxes / 3, strict=True)}
        for track, box in zip(a.track_ids.tolist(), a.boxes, strict=True):
            total += 1
            near += track in where and bool((where[track] - box).abs().max() <= 2)
    assert total > 15 and near / total > 0.9


def test_tracks_keep_their_id_and_class_and_move_smoothly() -> None:
    town = Town(num_videos=4, frames_per_video=30, masks=False, segmentation=False, panoptic=False)
    for video in town.videos:
        kind: dict[int, int] = {}
        before: dict[int, Tensor] = {}
        for index in video.frames:
            known = town.annotations(index)
            ids = known.track_ids.tolist()
            assert len(set(ids)) == len(ids) and min(ids, default=1) > 0
            wholly = town.visibility(index) > 0.99
            now = {}
            for track, label, box, whole in zip(ids, known.labels.tolist(), known.boxes, wholly, strict=True):
                assert kind.setdefault(track, label) == label
                if whole:
                    now[track] = (box[:2] + box[2:]) / 2
                    if track in before:
                        assert (now[track] - before[track]).abs().max() < 20
            before = now


def test_an_id_survives_being_hidden() -> None:
    town = Town(num_videos=20, frames_per_video=40, masks=False, segmentation=False, panoptic=False)
    returned = 0
    for video in town.videos:
        seen = [set(town.annotations(i).track_ids.tolist()) for i in video.frames]
        for track in set().union(*seen):
            present = [track in s for s in seen]
            first, last = present.index(True), len(present) - 1 - present[::-1].index(True)
            returned += not all(present[first : last + 1])
        if returned >= 3:
            return
    pytest.fail(f"only {returned} tracks came back after they were hidden")


def test_actions_last_and_change() -> None:
    town = Town(num_videos=4, frames_per_video=60, masks=False, segmentation=False, panoptic=False)
    runs: list[int] = []
    for video in town.videos:
        current: dict[int, tuple[int, int]] = {}
        for index in video.frames:
            known = town.annotations(index)
            for track, action in zip(known.track_ids.tolist(), known.actions.tolist(), strict=True):
                previous, length = current.get(track, (action, 0))
                if previous != action:
                    runs.append(length)
                    length = 0
                current[track] = (action, length + 1)
    assert len(runs) > 10 and sum(r >= 7 for r in runs) / len(runs) > 0.7


def test_visibility_is_a_share_and_obeys_the_threshold(stills: Town) -> None:
    strict = Town(num_videos=60, frames_per_video=1, split="val", min_visibility=0.8)
    fewer = 0
    for index in range(20):
        visible = stills.visibility(index)
        assert len(visible) == stills.annotations(index).num_objects
        assert (visible >= stills.min_visibility).all() and (visible <= 1).all()
        kept = stills.annotations(index).track_ids[visible >= 0.8]
        assert torch.equal(strict.annotations(index).track_ids, kept)
        fewer += len(visible) - len(kept)
    assert fewer > 5


def test_density_and_frame_rate_do_what_they_say() -> None:
    def count(density: float) -> int:
        town = Town(num_videos=10, frames_per_video=1, size=(96, 160), density=density, min_visibility=0.05)
        return sum(town.annotations(i).num_objects for i in range(10))

    assert count(2.5) > 1.5 * count(1.0) > 1.5 * 1.3 * count(0.4)
    slow, fast = Town(num_videos=1, frame_rate=5.0), Town(num_videos=1, frame_rate=10.0)
    assert torch.equal(slow[3].image, fast[6].image)
    assert slow.videos[0].frame_rate == 5.0


def test_what_is_not_asked_for_is_absent() -> None:
    sample = Town(num_videos=1, frames_per_video=1, masks=False, segmentation=False, panoptic=False)[0]
    assert sample.masks is None and sample.segmentation is None and sample.panoptic is None and sample.boxes is not None


def test_videos_name_their_frames_in_order() -> None:
    town = Town(num_videos=3, frames_per_video=4, split="test")
    assert [v.name for v in town.videos] == ["test_0000", "test_0001", "test_0002"]
    assert [i for v in town.videos for i in v.frames] == list(range(12))
    metas = [town[i].meta for i in town.videos[1].frames]
    assert [(m.video, m.frame) for m in metas] == [("test_0001", t) for t in range(4)]
    assert len({town.item_id(i) for i in range(12)}) == 12


def test_it_travels_to_workers_and_through_transforms() -> None:
    town = Town(size=64, num_videos=2, frames_per_video=2, domain="night")
    town[0]
    assert len(pickle.dumps(town)) < 5_000, "a data set carries no rendered scenes to its workers"
    for index, sample in enumerate(DataLoader(town, batch_size=None, num_workers=1, multiprocessing_context="spawn")):
        assert fingerprint(sample) == fingerprint(town[index])
    moved = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.Resize([96, 96])])(town[1])
    assert moved.masks.shape[1:] == (96, 96) == moved.panoptic.segment_map.shape == moved.segmentation.shape


def test_describe_counts_what_is_there() -> None:
    described = Town(num_videos=10, frames_per_video=2).describe()
    assert described["images"] == 20 and described["videos"] == 10
    assert described["objects"]["person"] == sum(described["actions"].values()) > 20


@pytest.mark.parametrize(
    "wrong", [{"size": 16}, {"size": (64, 64, 3)}, {"size": (64, 4096)}, {"split": "trian"}, {"domain": "snow"}, {"num_videos": 0}], ids=str
)
def test_impossible_arguments_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=str(next(iter(wrong)))):
        Town(**wrong)  # type: ignore[arg-type]
