"""Target and source side by side: two independent streams, each a function of seed and step alone, and the settings that pair them."""
from __future__ import annotations

from dataclasses import replace
from itertools import chain, islice
from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from saccade.data.domain_pairs import DomainPairs
from saccade.data.loading import Loader
from saccade.data.settings import DataSettings, training_loader
from saccade.errors import DataError, InputError
from saccade.structures import Annotations, Batch, Sample, make_sample


class Maps:
    """Small images, with a semantic map of two classes where `classes` are given; those in `broken` raise as a reader does."""

    videos = ()

    def __init__(self, name: str, count: int, classes: tuple[str, ...] = (), broken: tuple[int, ...] = ()) -> None:
        self.name, self.count, self.classes, self.broken = name, count, classes, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise DataError(f"{self.name}/{index} is broken")
        pixels = torch.randint(0, 256, (3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        return make_sample(pixels, self.annotations(index), dataset=self.name, id=index)

    def annotations(self, index: int) -> Annotations:
        return Annotations(segmentation=torch.full((12, 16), index % 2, dtype=torch.uint8)) if self.classes else Annotations()

    def item_id(self, index: int) -> str:
        return str(index)

    def describe(self) -> dict[str, Any]:
        return {"images": self.count}


ROADS = ("road", "sky")


def settings(**changed: Any) -> DataSettings:
    given: dict[str, Any] = {
        "train": Maps("dusk", 7), "source": Maps("day", 10, ROADS), "train_transforms": [v2.RandomCrop(8)],
        "source_transforms": [v2.RandomHorizontalFlip(), v2.RandomCrop(10)], **changed,
    }
    return DataSettings(**given)


def paired(count: int, start: int = 0, batch_size: int = 4, rank: int = 0, world_size: int = 1, accumulate: int = 1, **changed: Any) -> list[Batch]:
    loader = training_loader(settings(**changed), batch_size=batch_size, seed=3, rank=rank, world_size=world_size, accumulate=accumulate)
    batches = list(islice(loader.batches(start), count))
    loader.close()
    return batches


def ids(batches: list[Batch]) -> list[list[Any]]:
    return [[meta.id for meta in batch.metas] for batch in batches]


def source_of(batch: Batch) -> Batch:
    assert batch.source is not None
    return batch.source


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert ids(first) == ids(second)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.images, b.images)
        for x, y in zip(a.targets, b.targets, strict=True):
            assert (x.segmentation is None) == (y.segmentation is None)
            assert x.segmentation is None or (y.segmentation is not None and torch.equal(x.segmentation, y.segmentation))
    if first[0].source is not None:
        assert_equal([source_of(a) for a in first], [source_of(b) for b in second])


def test_each_target_batch_has_labelled_images_of_the_source_beside_it() -> None:
    for batch in paired(4, source_batch_size=2):
        assert batch.images.shape == (4, 3, 8, 8) and {meta.dataset for meta in batch.metas} == {"dusk"}
        assert all(target.segmentation is None for target in batch.targets)
        source = source_of(batch)
        assert source.images.shape == (2, 3, 10, 10) and {meta.dataset for meta in source.metas} == {"day"} and source.source is None
        for target, meta in zip(source.targets, source.metas, strict=True):
            assert target.segmentation is not None and target.segmentation.shape == (10, 10)
            assert target.segmentation.unique().tolist() == [int(meta.id) % 2]


def test_the_source_takes_the_transforms_and_the_batch_size_of_the_target_by_default() -> None:
    (batch,) = paired(1, source_transforms=None)
    assert source_of(batch).images.shape == (4, 3, 8, 8)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_restart_in_the_middle_changes_nothing_in_either_stream(workers: int) -> None:
    whole = paired(9)
    assert_equal(whole[4:], paired(5, start=4, workers=workers))
    loader = training_loader(settings(workers=workers), batch_size=4, seed=3)
    assert_equal(whole[:2], list(islice(loader.batches(), 2)))
    assert_equal(whole[6:8], list(islice(loader.batches(6), 2)))  # the same worker processes again
    loader.close()
    assert_equal(whole[1:2], list(islice(loader.batches(1), 1)))  # new ones
    loader.close()


def test_the_streams_are_independent() -> None:
    same = Maps("day", 10, ROADS)
    both = paired(5, batch_size=2, train=same, source=same)
    assert ids(both) != ids([source_of(batch) for batch in both])
    for stream in (both, [source_of(batch) for batch in both]):
        assert sorted(number for batch in ids(stream) for number in batch) == list(range(10))  # each is a whole pass
    # The target's stream is that of a run without a source, and does not depend on how much of the source is seen.
    alone = list(islice(training_loader(replace(settings(), source=None, source_transforms=None), batch_size=4, seed=3).batches(), 5))
    for size in (None, 3):
        beside = paired(5, source_batch_size=size)
        assert ids(alone) == ids(beside) and all(torch.equal(a.images, b.images) for a, b in zip(alone, beside, strict=True))


def test_processes_and_parts_together_hold_the_batches_of_one() -> None:
    alone = paired(3, source_batch_size=8)
    ranks = [paired(6, source_batch_size=8, rank=rank, world_size=2, accumulate=2) for rank in range(2)]
    for step, batch in enumerate(alone):
        shared = [ranks[rank][2 * step + part] for part in range(2) for rank in range(2)]
        assert sorted(chain(*ids(shared))) == sorted(ids([batch])[0]) and [len(part) for part in shared] == [1] * 4
        sources = [source_of(part) for part in shared]
        assert sorted(chain(*ids(sources))) == sorted(ids([source_of(batch)])[0]) and [len(part) for part in sources] == [2] * 4


def test_a_pass_is_one_over_the_target() -> None:
    loader = training_loader(settings(), batch_size=4)
    assert isinstance(loader, DomainPairs) and len(loader) == 2
    assert loader.dataset.name == "dusk" and loader.source.name == "day"


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_samples_of_both_are_counted_apart_and_come_back_with_a_restart(workers: int) -> None:
    broken = settings(train=Maps("dusk", 7, broken=(3,)), source=Maps("day", 10, ROADS, broken=(3, 5)), unreadable=0.2, workers=workers)
    loader = training_loader(broken, batch_size=4, seed=3)
    whole = list(islice(loader.batches(), 6))
    loader.close()
    assert loader.skipped == {"3": "dusk/3 is broken", "source: 3": "day/3 is broken", "source: 5": "day/5 is broken"}
    again = training_loader(broken, batch_size=4, seed=3)
    again.skipped |= loader.skipped  # as a resumed run does
    assert again.skipped == loader.skipped
    assert_equal(whole[2:], list(islice(again.batches(2), 4)))
    again.close()
    again.skipped |= {"source: 9": "another one"}
    with pytest.raises(DataError, match=r"3 of 10 samples of day can't be read, more than the allowed fraction 0\.2"):
        list(islice(again.batches(), 4))


def test_a_source_that_breaks_ends_the_workers_of_both() -> None:
    loader = training_loader(settings(source=Maps("day", 10, ROADS, broken=tuple(range(10))), workers=1), batch_size=4)
    assert isinstance(loader, DomainPairs)
    with pytest.raises(DataError, match=r"day/. is broken"):
        next(loader.batches())
    for part in (loader._target, loader._source):
        assert part._processes is not None and part._processes._iterator is None


def test_a_moved_selected_or_pinned_batch_keeps_its_source() -> None:
    (batch,) = paired(1)
    moved = batch.to("meta")
    assert moved.images.device.type == "meta" and source_of(moved).images.device.type == "meta"
    segmentation = source_of(moved).targets[0].segmentation
    assert segmentation is not None and segmentation.device.type == "meta"
    part = batch.select(1, 2)
    assert ids([part]) == [[batch.metas[1].id]] and source_of(part) is batch.source
    if torch.cuda.is_available():
        assert source_of(batch.pin_memory()).images.is_pinned()


def test_classes_are_those_of_the_source() -> None:
    assert settings().classes == ROADS
    assert settings(train=Maps("dusk", 7, ROADS), evaluate={"val": Maps("val", 3, ROADS)}).classes == ROADS
    with pytest.raises(InputError, match=r"data\.evaluate\.val has other classes"):
        settings(evaluate={"val": Maps("val", 3, ("sky", "road"))})


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"data\.train has other classes than data\.source: 2 \(sky, road\) against 2 \(road, sky\)"):
        settings(train=Maps("dusk", 7, ("sky", "road")))
    with pytest.raises(InputError, match=r"data\.source needs labels, and day has no classes"):
        settings(source=Maps("day", 10))
    with pytest.raises(InputError, match=r"there is no data\.train"):
        settings(train=None)
    with pytest.raises(InputError, match=r"data\.source_batch_size is given, but there is no data\.source"):
        DataSettings(train=Maps("dusk", 7), source_batch_size=2)
    with pytest.raises(InputError, match=r"data\.source_batch_size 3 .* number of processes \(2\) times accumulate \(1\)"):
        training_loader(settings(source_batch_size=3), batch_size=4, world_size=2)


def test_images_of_the_pair_may_differ_in_size() -> None:
    target = Loader(dataset=Maps("dusk", 7), batch_size=1, size_divisor=32)
    batch = next(iter(DomainPairs(target, Loader(dataset=Maps("day", 10, ROADS), batch_size=1, transforms=[v2.Resize(20)]))))
    assert batch.images.shape[-2:] == (32, 32) and source_of(batch).images.shape[-2:] == (20, 26)
