"""Entropy and soft neighbourhood density against values by hand and the definition spelled out; determinism, merging, what is refused."""
from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from saccade.errors import InputError, NumericError
from saccade.metrics.contract import Metric
from saccade.metrics.unlabelled import MeanEntropy, SoftNeighborhoodDensity, neighborhood_density
from saccade.structures import Annotations, Classification, Detections, Meta, Prediction, SegmentationMap


def maps(seed: int, size: tuple[int, int] = (9, 14), classes: int = 5, sharpness: float = 3.0) -> SegmentationMap:
    logits = sharpness * torch.randn(classes, *size, generator=torch.Generator().manual_seed(seed))
    return SegmentationMap(torch.zeros(36, 56, dtype=torch.int64), coarse=logits.softmax(0))


def measured(metric: Metric, predictions: list[Prediction], start: int = 0) -> Metric:
    for number, prediction in enumerate(predictions, start):
        metric.update([prediction], [Annotations()], [Meta("set", number)])
    return metric


def value(metric: Metric) -> float:
    (figure,) = metric.compute().values()
    return figure


def by_definition(probabilities: Tensor, temperature: float) -> float:
    total = 0.0
    for i, own in enumerate(probabilities):
        others = [p for j, p in enumerate(probabilities) if j != i]
        weights = [math.exp(float(own @ p / own.norm() / p.norm()) / temperature) for p in others]
        total -= sum(w / sum(weights) * math.log(w / sum(weights)) for w in weights)
    return total / len(probabilities)


def test_entropy_is_one_for_equal_probabilities_and_zero_for_certain_ones() -> None:
    equal = SegmentationMap(torch.zeros(4, 4, dtype=torch.int64), coarse=torch.full((7, 2, 3), 1 / 7))
    certain = SegmentationMap(torch.zeros(4, 4, dtype=torch.int64), coarse=torch.eye(7)[:, :6].reshape(7, 2, 3))
    assert value(measured(MeanEntropy(), [equal])) == pytest.approx(1, abs=1e-6) and value(measured(MeanEntropy(), [certain])) == 0
    assert value(measured(MeanEntropy(), [equal, certain])) == pytest.approx(0.5, abs=1e-6)
    half = Classification(torch.tensor([0.5, 0.5, 0, 0]))
    assert value(measured(MeanEntropy(), [half])) == pytest.approx(0.5)  # log 2 / log 4


def test_every_image_counts_alike_whatever_its_size() -> None:
    small, large = maps(0, (3, 4), sharpness=0.5), maps(1, (30, 40), sharpness=9)
    both = value(measured(MeanEntropy(), [small, large]))
    assert both == pytest.approx((value(measured(MeanEntropy(), [small])) + value(measured(MeanEntropy(), [large]))) / 2)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_density_is_that_of_the_definition_spelled_out(temperature: float) -> None:
    scores = torch.randn(40, 6, generator=torch.Generator().manual_seed(2)).mul(2).softmax(1)
    expected = by_definition(scores.double(), temperature)
    assert neighborhood_density(scores, temperature) == pytest.approx(expected, rel=1e-4)
    classified = measured(SoftNeighborhoodDensity(temperature=temperature), [Classification(row) for row in scores])
    assert value(classified) == pytest.approx(expected, rel=1e-4)


def test_density_of_maps_compares_pixels_of_one_image_and_takes_the_mean_over_images() -> None:
    found = [maps(seed, (5, 7)) for seed in range(3)]
    every = [by_definition(m.coarse.flatten(1).T.double(), 0.05) for m in found if m.coarse is not None]
    assert value(measured(SoftNeighborhoodDensity(pixels=1000), list(found))) == pytest.approx(sum(every) / 3, rel=1e-4)


def test_dense_neighbourhoods_have_a_higher_density_than_scattered_ones() -> None:
    draw = torch.Generator().manual_seed(3)
    clusters = torch.eye(4).repeat(25, 1) * 0.96 + 0.01
    scattered = torch.randn(100, 4, generator=draw).mul(2).softmax(1)
    assert neighborhood_density(clusters, 0.05) > neighborhood_density(scattered, 0.05) + 0.2
    assert neighborhood_density(torch.ones(50, 3) / 3, 0.05) == pytest.approx(math.log(49), rel=1e-5)  # all alike: the most there is


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randn(100, 6, generator=torch.Generator().manual_seed(4)).softmax(1)
    whole = neighborhood_density(scores, 0.05)
    monkeypatch.setattr("saccade.metrics.unlabelled._ROWS", 7)
    assert neighborhood_density(scores, 0.05) == pytest.approx(whole, rel=1e-6)


def test_the_same_pixels_are_drawn_every_time_and_in_every_order() -> None:
    found: list[Prediction] = [maps(seed) for seed in range(4)]
    first = value(measured(SoftNeighborhoodDensity(pixels=20), found))
    torch.manual_seed(99)
    assert value(measured(SoftNeighborhoodDensity(pixels=20), found)) == first
    backwards = SoftNeighborhoodDensity(pixels=20)
    for number in (3, 2, 1, 0):
        backwards.update([found[number]], [Annotations()], [Meta("set", number)])
    assert value(backwards) == first
    before = torch.random.get_rng_state()
    measured(SoftNeighborhoodDensity(), found)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", [MeanEntropy, SoftNeighborhoodDensity])
@pytest.mark.parametrize("single", [False, True])
def test_merging_halves_equals_one_pass_and_counts_each_image_once(kind: type, single: bool) -> None:
    found: list[Prediction] = [Classification(torch.randn(5, generator=torch.Generator().manual_seed(s)).softmax(0)) if single else maps(s)
                               for s in range(6)]
    whole, left, right = measured(kind(), found), measured(kind(), found[:4]), measured(kind(), found[3:], start=3)
    left.merge(right)
    assert left.compute() == whole.compute()
    left.reset()
    assert math.isnan(value(left)) and left.details() == {}


@pytest.mark.parametrize("kind", [MeanEntropy, SoftNeighborhoodDensity])
def test_half_precision_probabilities_are_taken(kind: type) -> None:
    full, half = maps(5), maps(5)
    assert half.coarse is not None
    half.coarse = half.coarse.half()
    assert value(measured(kind(), [half])) == pytest.approx(value(measured(kind(), [full])), rel=1e-2)


@pytest.mark.parametrize("kind", [MeanEntropy, SoftNeighborhoodDensity])
def test_predictions_without_probabilities_are_refused(kind: type) -> None:
    with pytest.raises(InputError, match=f"{kind.__name__} needs class probabilities.*sample 0.*coarse"):
        measured(kind(), [SegmentationMap(torch.zeros(2, 2, dtype=torch.int64))])
    with pytest.raises(InputError, match="this model gives Detections"):
        measured(kind(), [Detections.empty()])
    broken = maps(0)
    assert broken.coarse is not None
    broken.coarse[0, 1, 1] = torch.nan
    with pytest.raises(NumericError, match="sample 0 of data set 'set'"):
        measured(kind(), [broken])
