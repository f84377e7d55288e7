"""Loading: nothing but the seed and the step decides what is in a batch; broken samples; the data section of a recipe."""
from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from saccade.data.loading import Loader
from saccade.data.randomness import mixed_seed, preserved, sample_seed, seed_globals, seeded
from saccade.data.sampling import RepeatedAugmentation, Shuffled
from saccade.data.settings import DataSettings, evaluation_loaders, training_loader
from saccade.data.transforms.batch import BatchTransform, CutMix, Mixup
from saccade.data.transforms.sample_transform import RemoveDegenerate
from saccade.data.transforms.ssd import Expand, MinIoUCrop, PhotometricDistort
from saccade.data.transport import pack, unpack
from saccade.errors import DataError, InputError
from saccade.structures import Annotations, Batch, Geometry, Meta, Panoptic, Sample, make_sample
from saccade.structures.panoptic import Segment

SSD = [
    v2.ColorJitter(0.4, 0.4, 0.4), PhotometricDistort(), Expand(), MinIoUCrop(), v2.RandomHorizontalFlip(), v2.Resize((32, 32), antialias=False),
    RemoveDegenerate(),
]


class Pictures:
    """Images of different sizes with two objects each; those in `broken` raise as a reader does."""

    name, classes, videos = "pictures", ("cat", "dog"), ()

    def __init__(self, count: int = 11, broken: Sequence[int] = (), fixed: bool = False) -> None:
        self.count, self.broken, self.fixed = count, broken, fixed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise DataError(f"the image /data/{self.item_id(index)} is broken: cut short")
        size = (24, 24) if self.fixed else (24 + index, 40 - index)
        pixels = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        return make_sample(pixels, self.annotations(index), dataset=self.name, id=index)

    def annotations(self, index: int) -> Annotations:
        boxes = torch.tensor([[2.0, 2, 12, 14], [8, 6, 22, 20]]) + index / 10
        return Annotations(boxes=boxes, labels=torch.tensor([0, 1]), areas=torch.tensor([120.0, 196]), label=index % 2)

    def item_id(self, index: int) -> str:
        return f"{index:03d}.jpg"

    def describe(self) -> dict[str, Any]:
        return {"images": self.count}


class Noise:
    """Adds random numbers of all three kinds that transforms draw."""

    def __call__(self, sample: Sample) -> Sample:
        noise = torch.rand(()) + np.random.rand() + random.random()
        return make_sample(sample.image.float() + float(noise), sample.annotations(), dataset=sample.meta.dataset, id=sample.meta.id)


def batches(count: int, start: int = 0, **settings: Any) -> list[Batch]:
    loader = Loader(**{"dataset": Pictures(), "transforms": SSD, "batch_size": 4, "seed": 3, **settings})
    return list(islice(loader.batches(start), count))


def assert_equal(first: Sequence[Batch], second: Sequence[Batch]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.images, b.images) and a.images.dtype == b.images.dtype
        assert [m.id for m in a.metas] == [m.id for m in b.metas]
        for x, y in zip(a.targets, b.targets, strict=True):
            assert x.boxes is not None and y.boxes is not None and torch.equal(x.boxes, y.boxes)
            assert x.labels is not None and y.labels is not None and torch.equal(x.labels, y.labels)
            assert torch.equal(torch.as_tensor(x.label), torch.as_tensor(y.label))
        for m, n in zip(a.metas, b.metas, strict=True):
            assert m.geometry is not None and n.geometry is not None and torch.equal(m.geometry, n.geometry)
            assert m.geometry.canvas_size == n.geometry.canvas_size


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(workers: int) -> None:
    mixing: list[BatchTransform] = [Mixup(alpha=0.5, probability=0.5)]
    for transforms in (SSD, [Noise(), v2.Resize((16, 16))]):
        assert_equal(batches(8, transforms=transforms, batch_transforms=mixing),
                     batches(8, transforms=transforms, batch_transforms=mixing, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_restart_in_the_middle_changes_nothing(workers: int) -> None:
    whole = batches(9)
    assert_equal(whole[5:], batches(4, start=5, workers=workers))
    loader = Loader(dataset=Pictures(), transforms=SSD, batch_size=4, seed=3, workers=workers)
    assert_equal(whole[:2], list(islice(loader.batches(), 2)))
    assert_equal(whole[3:5], list(islice(loader.batches(3), 2)))  # the same worker processes again


def test_global_generators_and_threads_are_left_alone() -> None:
    torch.manual_seed(11), np.random.seed(11), random.seed(11)
    threads = torch.get_num_threads()
    expected = (torch.rand(3).tolist(), np.random.rand(), random.random())
    torch.manual_seed(11), np.random.seed(11), random.seed(11)
    batches(2, transforms=[Noise(), v2.Resize((16, 16))])
    assert (torch.rand(3).tolist(), np.random.rand(), random.random()) == expected and torch.get_num_threads() == threads


def test_seeds_differ_between_samples_passes_and_copies() -> None:
    seeds = {sample_seed(*key) for key in np.ndindex(5, 5, 5, 3)}
    assert len(seeds) == 375 and all(0 <= seed < 2**63 for seed in seeds)
    assert mixed_seed(1, 23) != mixed_seed(12, 3)
    state = torch.get_rng_state()
    with preserved():
        seed_globals(5)
        first = (torch.rand(2).tolist(), np.random.rand(), random.random())
        seed_globals(5)
        assert (torch.rand(2).tolist(), np.random.rand(), random.random()) == first and torch.get_num_threads() == 1
    with seeded(5):
        assert torch.rand(2).tolist() == first[0]
    assert torch.equal(torch.get_rng_state(), state)


def test_augmentation_differs_between_passes_and_between_repeats() -> None:
    one = batches(4, dataset=Pictures(1), batch_size=1, transforms=[Noise()])
    assert len({float(b.images[0, 0, 0, 0]) for b in one}) == 4
    repeated = batches(1, dataset=Pictures(6), batch_size=3, transforms=[Noise()], sampler=RepeatedAugmentation(repeats=3))[0]
    assert len({m.id for m in repeated.metas}) == 1 and len(set(repeated.images[:, 0, 0, 0].tolist())) == 3


def test_processes_together_hold_the_batch_of_one() -> None:
    alone = batches(3)
    ranks = [batches(6, rank=rank, world_size=2, accumulate=2) for rank in range(2)]
    for step, batch in enumerate(alone):
        for place in range(4):
            part, rank = divmod(place, 2)
            shared = ranks[rank][2 * step + part]
            assert len(shared) == 1 and torch.equal(shared.images[0], batch.images[place])


def test_images_of_different_sizes_are_padded_to_the_divisor() -> None:
    batch = batches(1, transforms=[], size_divisor=32, workers=1)[0]
    assert batch.images.shape[-2] % 32 == 0 and batch.images.shape[-1] % 32 == 0 and batch.padding is not None
    for image, outside, meta in zip(batch.images, batch.padding, batch.metas, strict=True):
        assert meta.original_size is not None
        height, width = meta.original_size
        assert not outside[:height, :width].any() and (~outside).sum() == height * width and not image[:, outside].any()


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_passes_once_with_the_truth_in_original_pixels(workers: int) -> None:
    data = Pictures()
    loader = Loader(dataset=data, transforms=[v2.Resize((16, 16))], batch_size=4, workers=workers, training=False)
    for _ in range(2):
        found = list(loader.batches())
        assert len(found) == len(loader) == 3 and [m.id for b in found for m in b.metas] == list(range(11))
        for batch in found:
            assert batch.originals is not None
            for original, target, meta in zip(batch.originals, batch.targets, batch.metas, strict=True):
                assert original.boxes is not None and target.boxes is not None and meta.geometry is not None
                assert torch.equal(original.boxes, data.annotations(int(meta.id)).boxes)  # type: ignore[arg-type]
                torch.testing.assert_close(meta.geometry.boxes_to_original(target.boxes), original.boxes, atol=1e-4, rtol=0)


def test_ranks_evaluate_every_sample_once() -> None:
    parts = [list(Loader(dataset=Pictures(), batch_size=4, training=False, rank=rank, world_size=3)) for rank in range(3)]
    assert [m.id for part in parts for batch in part for m in batch.metas] == list(range(11))


def test_data_without_labels_loads() -> None:
    class Bare(Pictures):
        def annotations(self, index: int) -> Annotations:
            return Annotations()

    batch = batches(1, dataset=Bare(), workers=1)[0]
    assert batch.images.shape == (4, 3, 32, 32) and all(t.boxes is None and t.label is None for t in batch.targets)


def test_epochs_are_counted_in_whole_steps() -> None:
    assert len(Loader(dataset=Pictures(11), batch_size=4)) == 3 and len(Loader(dataset=Pictures(3), batch_size=8)) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_ends_loading_with_its_name(workers: int) -> None:
    with pytest.raises(DataError) as caught:
        batches(3, dataset=Pictures(broken=[4]), workers=workers)
    assert str(caught.value) == "the image /data/004.jpg is broken: cut short"


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_replaced_by_the_next_ones(workers: int) -> None:
    broken = Pictures(broken=[4, 5, 10])
    loader = Loader(dataset=broken, transforms=SSD, batch_size=4, seed=3, workers=workers, unreadable=0.3)
    whole = list(islice(loader.batches(), 6))
    ids = [m.id for batch in whole for m in batch.metas]
    expected = [m.id for batch in batches(6) for m in batch.metas]
    assert ids == [{4: 6, 5: 6, 10: 0}.get(int(i), i) for i in expected]
    assert sorted(loader.skipped) == ["004.jpg", "005.jpg", "010.jpg"] and "cut short" in loader.skipped["004.jpg"]
    assert_equal(whole[3:], batches(3, start=3, dataset=broken, unreadable=0.3))


def test_too_many_broken_images_are_an_error_that_lists_them() -> None:
    with pytest.raises(DataError, match=r"2 of 11 samples of pictures can't be read, more than the allowed fraction 0.1 .*00\d.jpg"):
        batches(9, dataset=Pictures(broken=[1, 2]), unreadable=0.1)
    with pytest.raises(DataError, match="no sample of pictures can be read"):
        batches(1, dataset=Pictures(broken=range(11)), unreadable=1.0)


def test_evaluation_leaves_broken_images_out() -> None:
    loader = Loader(dataset=Pictures(broken=[0, 1, 6]), batch_size=2, training=False, unreadable=0.5, workers=1)
    assert [[m.id for m in b.metas] for b in loader] == [[2, 3], [4, 5], [7], [8, 9], [10]]
    assert list(loader.skipped) == ["000.jpg", "001.jpg", "006.jpg"]


class Faulty:
    """A transform with a defect."""

    def __call__(self, sample: Sample) -> Sample:
        raise ValueError("a defect")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_defect_in_a_transform_names_the_sample(workers: int) -> None:
    with pytest.raises(ValueError, match="a defect") as caught:
        batches(1, transforms=[Faulty()], workers=workers)
    told = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "in Faulty, on sample" in told and ".jpg of pictures" in told


class Dying:
    """Ends its process as the system does when memory is short."""

    def __call__(self, sample: Sample) -> Sample:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        return sample


def test_a_worker_that_is_killed_is_reported() -> None:
    with pytest.raises(DataError, match="was ended from outside"):
        batches(1, transforms=[Dying()], workers=1)


def test_a_closed_loader_starts_again() -> None:
    loader = Loader(dataset=Pictures(), transforms=SSD, batch_size=4, seed=3, workers=1)
    first = list(islice(loader.batches(), 2))
    loader.close()
    assert_equal(first, list(islice(loader.batches(), 2)))


def test_settings_that_contradict_each_other_are_refused() -> None:
    for wrong in ({"unreadable": 2.0}, {"batch_size": 0}, {"training": False, "sampler": Shuffled()}, {"batch_size": 5, "world_size": 2}):
        with pytest.raises(InputError):
            Loader(**{"dataset": Pictures(), "batch_size": 4, **wrong})  # type: ignore[arg-type]


def test_parcels_carry_everything_and_small_tensors_as_bytes() -> None:
    geometry = Geometry.identity((5, 6)).after(torch.eye(3, dtype=torch.float64) * 2, (7, 8), exact=False)
    panoptic = Panoptic(torch.arange(12).reshape(3, 4), (Segment(1, 0, True),))
    target = Annotations(boxes=torch.rand(3, 4), labels=torch.arange(3), masks=torch.rand(3, 300, 300) > 0.5, panoptic=panoptic, label=4)
    batch = Batch(torch.rand(2, 3, 100, 100), [target], [Meta("set", "a", geometry=geometry)])
    parcel = pack(batch)
    assert len(parcel.tensors) == 2  # the images and the masks
    back = unpack(parcel)
    found, place = back.targets[0], back.metas[0].geometry
    assert torch.equal(back.images, batch.images) and torch.equal(found.masks, target.masks) and torch.equal(found.boxes, target.boxes)
    assert torch.equal(found.panoptic.segment_map, panoptic.segment_map) and found.panoptic.segments == panoptic.segments and found.label == 4
    assert isinstance(place, Geometry) and torch.equal(place, geometry) and place.canvas_size == (7, 8) and not place.exact


def test_the_data_section_builds_its_loaders() -> None:
    settings = DataSettings(
        train=Pictures(fixed=True), evaluate={"val": Pictures(5), "test": Pictures(3)}, train_transforms=[v2.RandomHorizontalFlip()],
        evaluation_transforms=[v2.Resize((16, 16))], batch_transforms=[CutMix(alpha=1.0)], unreadable=0.5,
    )
    assert settings.classes == ("cat", "dog")
    train = training_loader(settings, batch_size=4, seed=1, rank=1, world_size=2)
    assert len(next(train.batches())) == 2 and next(train.batches()).images.shape[-2:] == (24, 24)
    loaders = evaluation_loaders(settings, batch_size=4)
    assert {name: [len(b) for b in loader] for name, loader in loaders.items()} == {"val": [4, 1], "test": [3]}
    with pytest.raises(InputError, match=r"no data\.train"):
        training_loader(DataSettings(), batch_size=4)


def test_data_sets_of_other_classes_are_refused() -> None:
    class Others(Pictures):
        classes = ("cat", "horse")  # type: ignore[assignment]

    with pytest.raises(InputError, match=r"data\.evaluate\.val has other classes"):
        DataSettings(train=Pictures(), evaluate={"val": Others()})


def test_a_recipe_can_write_all_of_it() -> None:
    from saccade.recipes.building import build

    sampler = build({"type": "RepeatFactor", "threshold": 0.5})
    transforms = [build({"type": "MinIoUCrop"}), build({"type": "Resize", "size": [32, 32], "antialias": False})]
    mixing = build({"type": "OneOf", "choices": [{"type": "Mixup", "alpha": 0.2, "probability": 0.5}]})
    batch = batches(1, transforms=transforms, sampler=sampler, batch_transforms=[mixing])[0]
    assert batch.images.shape == (4, 3, 32, 32)
