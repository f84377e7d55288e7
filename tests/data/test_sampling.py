"""Which samples belong to which step."""
from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import pytest
import torch

from saccade.data.combination import Concat, Subset
from saccade.data.sampling import (
    AspectRatioGroups,
    ClassUniform,
    Entry,
    InSequence,
    RepeatedAugmentation,
    RepeatFactor,
    Sampler,
    Shuffled,
    Stream,
    evaluation_indices,
)
from saccade.errors import InputError
from saccade.structures import Annotations, Sample, make_sample


class Labelled:
    """Images that show the classes given; image i is lying or upright by turns of three."""

    name, videos = "labelled", ()

    def __init__(self, labels: list[int], num_classes: int = 3) -> None:
        self.labels, self.classes = labels, tuple(f"class{i}" for i in range(num_classes))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return make_sample(torch.zeros(3, *self.recorded_size(index), dtype=torch.uint8), self.annotations(index), dataset=self.name, id=index)

    def recorded_size(self, index: int) -> tuple[int, int]:
        return (40, 30) if index % 3 == 0 else (30, 40)

    def annotations(self, index: int) -> Annotations:
        return Annotations(label=self.labels[index])

    def item_id(self, index: int) -> str:
        return str(index)

    def describe(self) -> dict[str, Any]:
        return {}


def stream(dataset: Any, batch_size: int, sampler: Sampler | None = None, **settings: int) -> Stream:
    block = batch_size // settings.get("accumulate", 1)
    return Stream((sampler or Shuffled()).order(dataset, block), seed=5, batch_size=batch_size, **settings)


def numbers(entries: list[Entry]) -> list[int]:
    return [entry.number for entry in entries]


def test_every_pass_holds_every_sample_once_and_batches_reach_into_the_next() -> None:
    whole = stream(Labelled([0] * 10), 4)
    entries = [entry for step in range(5) for entry in whole.step(step)]
    assert [entry.epoch for entry in entries] == [0] * 10 + [1] * 10
    first, second = numbers(entries[:10]), numbers(entries[10:])
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    assert all(len(whole.step(step)) == 4 and entry.copy == 0 for step in range(5) for entry in whole.step(step))


def test_a_step_does_not_depend_on_those_before_it() -> None:
    data = Labelled([0] * 13)
    in_order = [stream(data, 6).step(step) for step in range(12)]
    once = stream(data, 6)
    assert [once.step(step) for step in reversed(range(12))] == in_order[::-1]
    assert stream(data, 6).step(10**6) == pickle.loads(pickle.dumps(once)).step(10**6)


def test_seeds_and_passes_give_unrelated_orders() -> None:
    order = Shuffled().order(Labelled([0] * 50), 1)
    seen = {tuple(order.epoch(seed, epoch).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(seen) == 16


@pytest.mark.parametrize("world_size, accumulate", [(1, 1), (2, 1), (3, 2), (1, 4), (6, 2)])
def test_the_parts_of_all_processes_are_the_step_of_one(world_size: int, accumulate: int) -> None:
    data = Labelled([0] * 17)
    alone, shared = stream(data, 12), stream(data, 12, world_size=world_size, accumulate=accumulate)
    for step in range(5):
        parts = [[shared.part(step, part, rank) for rank in range(world_size)] for part in range(accumulate)]
        assert {len(p) for row in parts for p in row} == {12 // (world_size * accumulate)}
        interleaved = [entry for row in parts for group in zip(*row, strict=True) for entry in group]
        assert interleaved == alone.step(step)


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(InputError, match=r"multiple of the number of processes \(3\)"):
        stream(Labelled([0] * 9), 4, world_size=3)
    with pytest.raises(InputError, match="no samples"):
        stream(Labelled([]), 4)


def test_evaluation_sees_every_sample_once() -> None:
    for length, world_size in ((10, 3), (2, 4), (0, 2), (7, 1)):
        parts = [evaluation_indices(length, rank, world_size) for rank in range(world_size)]
        assert [i for part in parts for i in part] == list(range(length))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_sequences_keep_the_order_of_the_data() -> None:
    assert numbers(stream(Labelled([0] * 5), 7, InSequence()).step(0)) == [0, 1, 2, 3, 4, 0, 1]


def test_batches_of_like_shape_hold_only_like_shapes() -> None:
    data = Labelled([0] * 25)
    grouped = stream(data, 4, AspectRatioGroups())
    assert len(grouped.order) == 12 + 16  # nine upright and sixteen lying images
    for step in range(20):
        assert len({data.recorded_size(i) for i in numbers(grouped.step(step))}) == 1
    one_pass = numbers([entry for step in range(7) for entry in grouped.step(step)])
    assert set(one_pass) == set(range(25))
    assert {e.copy for step in range(7) for e in grouped.step(step)} == {0, 1}


def test_shapes_are_found_through_joined_and_partial_data_sets() -> None:
    data = Labelled([0] * 12)
    joined = Concat(datasets=[Subset(dataset=data, indices=[0, 3, 6, 9]), Subset(dataset=data, indices=[1, 2, 4, 5])])
    grouped = stream(joined, 4, AspectRatioGroups())
    assert {frozenset(numbers(grouped.step(step))) for step in range(6)} == {frozenset(range(4)), frozenset(range(4, 8))}


def test_rare_classes_come_by_their_repeat_factor() -> None:
    data = Labelled([0] * 90 + [1] * 10)  # threshold 0.4: class 1 has the factor sqrt(0.4 / 0.1) = 2, class 0 one
    order = RepeatFactor(threshold=0.4).order(data, 1)
    assert len(order) == 110
    for epoch in range(5):
        counts = Counter(order.epoch(0, epoch).tolist())
        assert all(counts[i] == 1 for i in range(90)) and all(counts[i] == 2 for i in range(90, 100))


def test_fractions_of_a_repeat_factor_hold_on_average() -> None:
    data = Labelled([0] * 80 + [1] * 20)
    order = RepeatFactor(threshold=0.45).order(data, 1)  # sqrt(0.45 / 0.2) = 1.5
    counts = Counter(i for epoch in range(200) for i in order.epoch(3, epoch).tolist())
    assert len(order) == 110 and all(abs(counts[i] / 200 - 1.5) < 0.15 for i in range(80, 100))
    assert set(Counter(order.epoch(3, 0).tolist()).values()) == {1, 2}


def test_classes_are_drawn_equally_often() -> None:
    data = Labelled([0] * 80 + [1] * 15 + [2] * 5)
    order = ClassUniform().order(data, 1)
    counts = Counter(data.labels[i] for epoch in range(60) for i in order.epoch(0, epoch).tolist())
    assert all(abs(counts[k] / 6000 - 1 / 3) < 0.03 for k in range(3))


def test_repeats_are_told_apart_and_spread_over_the_processes() -> None:
    repeated = stream(Labelled([0] * 12), 6, RepeatedAugmentation(repeats=3), world_size=3)
    entries = repeated.step(0)
    assert [entry.copy for entry in entries] == [0, 1, 2, 0, 1, 2] and len(set(numbers(entries[:3]))) == 1
    assert all(len({e.number for e in repeated.part(0, 0, rank)}) == 2 for rank in range(3))
    assert len(repeated.order) == 12
