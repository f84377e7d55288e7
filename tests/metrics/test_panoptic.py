"""Panoptic quality against counts done by hand and against the definition spelled out; merging, crowds, void, and what is refused."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from saccade.errors import DataError
from saccade.metrics.panoptic import PanopticQuality
from saccade.structures import Annotations, Detections, Meta, Panoptic, Segment

CLASSES = ("person", "car", "road", "sky")
THINGS = (True, True, False, False)


def strip(*runs: tuple[int, int]) -> torch.Tensor:
    """A map of one row: (id, length) one after the other."""
    return torch.cat([torch.full((length,), number, dtype=torch.int64) for number, length in runs])[None]


def panoptic(segment_map: torch.Tensor, labels: dict[int, int], crowd: tuple[int, ...] = ()) -> Panoptic:
    return Panoptic(segment_map, tuple(Segment(number, label, THINGS[label], number in crowd) for number, label in labels.items()))


def quality(found: Panoptic, truth: Panoptic) -> PanopticQuality:
    metric = PanopticQuality(classes=CLASSES)
    metric.update([found], [Annotations(panoptic=truth)], [Meta("set", 1)])
    return metric


def counts(metric: PanopticQuality, label: int) -> tuple[int, int, int]:
    table = metric.table()
    return int(table.tp[label]), int(table.fp[label]), int(table.fn[label])


def random_image(rng: np.random.Generator) -> tuple[Panoptic, Panoptic]:
    """Truth of stripes with void and crowds, and a prediction that is the truth shifted and relabelled here and there."""
    edges = np.sort(rng.choice(np.arange(1, 60), 6, replace=False))
    rows = np.searchsorted(edges, np.arange(60), side="right")
    true_map = torch.from_numpy((rows * (rows != 3)).astype(np.int64) * 70_001).repeat(4, 1)
    shifted = np.searchsorted(edges + rng.integers(-3, 4, 6), np.arange(60), side="right")
    found_map = torch.from_numpy(shifted.astype(np.int64)).repeat(4, 1)
    labels = rng.integers(0, 4, 7)
    there = [int(v) // 70_001 for v in true_map.unique() if v]
    truth = panoptic(true_map, {v * 70_001: int(labels[v]) for v in there}, tuple(v * 70_001 for v in there if rng.random() < 0.2))
    found = {int(v): int(labels[v]) if rng.random() < 0.8 else int(rng.integers(4)) for v in found_map.unique() if v}
    return panoptic(found_map, found), truth


def by_definition(images: list[tuple[Panoptic, Panoptic]]) -> np.ndarray:
    """(K, 4) sum of overlaps, TP, FP, FN, segment by segment."""
    result = np.zeros((len(CLASSES), 4))
    for found, truth in images:
        matched_true, matched_found = set(), set()
        void = truth.segment_map == 0
        masks = {("t", s.id): truth.segment_map == s.id for s in truth.segments} | {("f", s.id): found.segment_map == s.id for s in found.segments}
        for t in truth.segments:
            for f in found.segments:
                a, b = masks["t", t.id], masks["f", f.id]
                overlap = float((a & b).sum()) / float((a | b).sum() - (b & void).sum())
                if t.label == f.label and not t.is_crowd and overlap > 0.5:
                    result[t.label, :2] += overlap, 1
                    matched_true.add(t.id)
                    matched_found.add(f.id)
        for t in truth.segments:
            result[t.label, 3] += not t.is_crowd and t.id not in matched_true
        for f in found.segments:
            excused = void.clone()
            crowds = [t for t in truth.segments if t.is_crowd and t.label == f.label]
            if crowds:
                excused |= masks["t", crowds[-1].id]
            own = masks["f", f.id]
            result[f.label, 2] += f.id not in matched_found and not (own & excused).sum() > own.sum() / 2
    return result


def test_figures_of_one_image_counted_by_hand() -> None:
    truth = panoptic(strip((5, 6), (6, 4), (7, 10)), {5: 0, 6: 1, 7: 2})
    found = panoptic(strip((1, 5), (2, 5), (3, 10)), {1: 0, 2: 0, 3: 2})
    figures = quality(found, truth).compute()
    # person: one match of 5 / 6 and one false positive; car: one miss; road: one perfect match; sky does not occur.
    assert figures["panoptic/PQ"] == pytest.approx((5 / 6 / 1.5 + 0 + 1) / 3) and figures["panoptic/PQ_things"] == pytest.approx(5 / 6 / 1.5 / 2)
    assert figures["panoptic/SQ"] == pytest.approx((5 / 6 + 0 + 1) / 3) and figures["panoptic/RQ"] == pytest.approx((1 / 1.5 + 0 + 1) / 3)
    assert [figures[f"panoptic/{name}_stuff"] for name in ("PQ", "SQ", "RQ")] == [1, 1, 1]


def test_counts_are_those_of_the_definition_spelled_out() -> None:
    rng = np.random.default_rng(0)
    images = [random_image(rng) for _ in range(60)]
    metric = PanopticQuality(classes=CLASSES)
    for number, (found, truth) in enumerate(images):
        metric.update([found], [Annotations(panoptic=truth)], [Meta("set", number)])
    table, expected = metric.table(), by_definition(images)
    assert np.array_equal(np.stack([table.tp, table.fp, table.fn], 1), expected[:, 1:]) and table.tp.min() > 5 and table.fp.min() > 5
    np.testing.assert_allclose(table.sq * table.tp, expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(table.pq, table.sq * table.rq, rtol=1e-12)


def test_an_overlap_of_exactly_one_half_is_no_match() -> None:
    truth = panoptic(strip((1, 5), (2, 5)), {1: 0, 2: 2})
    assert counts(quality(panoptic(strip((1, 10)), {1: 0}), truth), 0) == (0, 1, 1)


def test_void_is_left_out_of_unions_and_excuses_what_lies_mostly_on_it() -> None:
    truth = panoptic(strip((1, 4), (0, 6)), {1: 0})
    assert quality(panoptic(strip((9, 10)), {9: 0}), truth).compute()["panoptic/SQ"] == 1
    assert counts(quality(panoptic(strip((0, 4), (9, 6)), {9: 1}), truth), 1) == (0, 0, 0)
    half = quality(panoptic(strip((0, 1), (9, 6)), {9: 1}), panoptic(strip((1, 4), (0, 3)), {1: 0}))
    assert counts(half, 1) == (0, 1, 0)  # exactly half on void is an error


def test_a_crowd_region_excuses_its_own_class_alone_and_is_never_missed() -> None:
    truth = panoptic(strip((1, 8), (2, 2)), {1: 0, 2: 2}, crowd=(1,))
    found = panoptic(strip((5, 4), (6, 4), (7, 2)), {5: 0, 6: 1, 7: 2})
    metric = quality(found, truth)
    assert counts(metric, 0) == (0, 0, 0) and counts(metric, 1) == (0, 1, 0) and counts(metric, 2) == (1, 0, 0)


def test_an_image_without_segments_counts_predictions_and_an_empty_prediction_misses_all() -> None:
    nothing = panoptic(torch.zeros(2, 3, dtype=torch.int64), {})
    something = panoptic(torch.full((2, 3), 4), {4: 1})
    assert np.isnan(quality(nothing, nothing).compute()["panoptic/PQ"])
    assert counts(quality(something, nothing), 1) == (0, 0, 0)  # all of it lies on void
    assert counts(quality(nothing, something), 1) == (0, 0, 1)


def test_processes_merge_to_the_same_figures_and_an_image_counts_once() -> None:
    rng = np.random.default_rng(1)
    images = [random_image(rng) for _ in range(9)]
    whole, first, second = (PanopticQuality(classes=CLASSES) for _ in range(3))
    for metric, numbers in ((whole, range(9)), (first, (0, 2, 4, 6, 8)), (second, (1, 3, 5, 7, 0))):
        for number in numbers:
            metric.update([images[number][0]], [Annotations(panoptic=images[number][1])], [Meta("set", number)])
    first.merge(second)
    assert first.compute() == whole.compute() and first.details() == whole.details()
    first.reset()
    assert np.isnan(first.compute()["panoptic/PQ"])


def test_details_are_plain_columns_with_none_for_absent_classes() -> None:
    columns = quality(panoptic(strip((1, 3)), {1: 2}), panoptic(strip((8, 3)), {8: 2})).details()["panoptic"]["per_class"]
    assert columns == {
        "classes": list(CLASSES), "thing": [False, False, False, False], "PQ": [None, None, 1.0, None], "SQ": [None, None, 1.0, None],
        "RQ": [None, None, 1.0, None], "TP": [0, 0, 1, 0], "FP": [0] * 4, "FN": [0] * 4,
    }


@pytest.mark.parametrize("found, truth, message", [
    (panoptic(strip((1, 3)), {1: 0}), panoptic(strip((1, 4)), {1: 0}), "original pixels"),
    (panoptic(strip((1, 3), (2, 1)), {1: 0}), panoptic(strip((1, 4)), {1: 0}), r"prediction for sample 1 .* ids \[2\]"),
    (panoptic(strip((1, 4)), {1: 0}), panoptic(strip((1, 3), (7, 1)), {1: 0}), r"truth for sample 1 .* ids \[7\]"),
    (panoptic(strip((1, 4)), {1: 0, 5: 0}), panoptic(strip((1, 4)), {1: 0}), "segment 5, which has no pixel"),
    (Panoptic(strip((1, 4)), (Segment(1, 4, True),)), panoptic(strip((1, 4)), {1: 0}), "4 classes"),
])
def test_maps_that_contradict_their_segments_are_refused_with_the_sample(found: Panoptic, truth: Panoptic, message: str) -> None:
    with pytest.raises(DataError, match=message):
        quality(found, truth)


def test_truth_without_a_map_and_predictions_of_another_kind_are_refused() -> None:
    metric = PanopticQuality(classes=CLASSES)
    with pytest.raises(DataError, match="has no panoptic map"):
        metric.update([panoptic(strip((1, 3)), {1: 0})], [Annotations()], [Meta("set", 1)])
    with pytest.raises(TypeError, match="Detections"):
        metric.update([Detections.empty()], [Annotations()], [Meta("set", 1)])
