"""Tracking figures: equal to TrackEval's, to closed forms, and independent of how the frames come."""
from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saccade.errors import DataError, NumericError
from saccade.metrics.mot.challenge import read_sequence
from saccade.metrics.mot.evaluation import Counts, class_average, count, pooled
from saccade.metrics.mot.motmetrics import MotmetricsCounts, motmetrics_counts
from saccade.metrics.mot.prepared import prepare
from saccade.metrics.mot.tracks import Regions, Sequence, Tracks, Truth
from saccade.metrics.tracking import MotTracking
from saccade.structures import Annotations, Classification, Detections, Meta

SHARED = Path(__file__).resolve().parents[3] / "shared/data/mot_text"
needs_files = pytest.mark.skipif(not SHARED.is_dir(), reason="the real tracking files are not here")


def sequence(truth: list[tuple[float, ...]], found: list[tuple[float, ...]], num_frames: int = 10, **flags: Any) -> Sequence:
    """A video from rows (frame, id, x1, y1, x2, y2)."""
    t, f = np.array(truth, dtype=float).reshape(-1, 6), np.array(found, dtype=float).reshape(-1, 6)
    zeros = np.zeros(len(t), dtype=np.int64)
    flags = {"counted": np.ones(len(t), dtype=bool), "distractor": np.zeros(len(t), dtype=bool), **flags}
    return Sequence(
        "made up", num_frames, Truth(t[:, 0].astype(int), t[:, 1].astype(int), t[:, 2:], zeros, **flags),
        Tracks(f[:, 0].astype(int), f[:, 1].astype(int), f[:, 2:], np.zeros(len(f), dtype=np.int64)),
    )


def rows(frames: Any, identity: int, x: float = 0.0) -> list[tuple[float, ...]]:
    """A box of 10 x 10 pixels at x in every one of `frames`."""
    return [(frame, identity, x, 0.0, x + 10.0, 10.0) for frame in frames]


def random_sequence(seed: int, num_frames: int, num_objects: int, area: float, whole_numbers: bool) -> Sequence:
    """Objects on random paths; found with noise, gaps, false alarms, new and exchanged ids. Whole numbers make many overlaps equal."""
    rng = np.random.default_rng(seed)
    place, speed, size = rng.uniform(0, area, (num_objects, 2)), rng.normal(0, 3, (num_objects, 2)), rng.uniform(40, 90, (num_objects, 2))
    ids, new = np.arange(num_objects) + 100, itertools.count(1000)
    truth, found = [], []
    for frame in range(1, num_frames + 1):
        place = place + speed + rng.normal(0, 1, place.shape)
        if num_objects > 1 and rng.random() < 0.1:
            i, j = rng.choice(num_objects, 2, replace=False)
            ids[i], ids[j] = ids[j], ids[i]
        ids = np.where(rng.random(num_objects) < 0.02, [next(new) for _ in ids], ids)
        boxes = np.concatenate([place, place + size], 1)
        noisy = boxes + rng.normal(0, 4, boxes.shape)
        if whole_numbers:
            boxes, noisy = boxes.round(-1), noisy.round(-1)
        truth += [(frame, g + 1, *boxes[g]) for g in np.flatnonzero(rng.random(num_objects) > 0.05)]
        found += [(frame, ids[g], *noisy[g]) for g in rng.permutation(np.flatnonzero(rng.random(num_objects) > 0.1))]
        if rng.random() < 0.5:
            corner = rng.uniform(0, area, 2)
            found.append((frame, next(new), *corner, *(corner + 50)))
    return sequence(truth, found, num_frames)


def trackeval_figures(video: Sequence) -> dict[str, Any]:
    """What TrackEval's three metrics say about the tables as they are."""
    metrics = pytest.importorskip("trackeval.metrics")
    from trackeval.datasets._base_dataset import _BaseDataset

    truth, found = video.truth, video.found
    true_ids, found_ids = np.unique(truth.ids), np.unique(found.ids)
    frames = [(truth.frame == n, found.frame == n) for n in range(1, video.num_frames + 1)]
    overlap = _BaseDataset._calculate_box_ious
    data = {
        "num_timesteps": video.num_frames, "num_gt_ids": len(true_ids), "num_tracker_ids": len(found_ids), "num_gt_dets": len(truth),
        "num_tracker_dets": len(found), "gt_ids": [np.searchsorted(true_ids, truth.ids[a]) for a, _ in frames],
        "tracker_ids": [np.searchsorted(found_ids, found.ids[b]) for _, b in frames],
        "similarity_scores": [overlap(truth.boxes[a], found.boxes[b], box_format="x0y0x1y1") for a, b in frames],
    }
    quiet = {"PRINT_CONFIG": False}
    figures: dict[str, Any] = {}
    for metric in (metrics.HOTA(), metrics.CLEAR(quiet), metrics.Identity(quiet)):
        figures |= {name.removeprefix("CLR_"): value for name, value in metric.eval_sequence(data).items()}
    return figures


def all_figures(counts: Counts) -> dict[str, Any]:
    return counts.hota.figures() | counts.clear.figures_of_one_video() | counts.identity.figures()


def assert_equal(mine: dict[str, Any], reference: dict[str, Any]) -> None:
    assert set(mine) == set(reference)
    for name, value in reference.items():
        np.testing.assert_allclose(mine[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("whole_numbers", [False, True])
def test_figures_equal_trackeval_also_where_overlaps_are_equal(whole_numbers: bool) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        video = random_sequence(seed, int(rng.integers(1, 30)), int(rng.integers(1, 12)), rng.choice([100, 200, 1000]), whole_numbers)
        assert_equal(all_figures(count(video)), trackeval_figures(video))


def test_figures_equal_trackeval_in_a_crowd_and_over_two_thousand_frames() -> None:
    for video in (random_sequence(1, 10, 150, 600.0, False), random_sequence(2, 2000, 3, 300.0, False)):
        assert_equal(all_figures(count(video)), trackeval_figures(video))


@pytest.mark.parametrize(
    "truth, found", [([], []), (rows([1], 1), []), ([], rows([1], 1)), (rows([1], 1), rows([1], 1)), (rows([2], 1), rows([1], 1))]
)
def test_empty_and_one_frame_videos_equal_trackeval(truth: list[Any], found: list[Any]) -> None:
    video = sequence(truth, found, num_frames=2)
    assert_equal(all_figures(count(video)), trackeval_figures(video))


def test_boxes_without_area_overlap_nothing_as_in_trackeval() -> None:
    flat = [(1, 1, 0.0, 0.0, 0.0, 10.0), (2, 1, 5.0, 5.0, 4.0, 4.0)]
    video = sequence(flat + rows([3], 1), flat + rows([3], 1), num_frames=3)
    assert_equal(all_figures(count(video)), trackeval_figures(video))


def test_a_perfect_tracker_has_every_figure_at_its_best() -> None:
    figures = count(sequence(rows(range(1, 11), 1), rows(range(1, 11), 7))).figures()
    for name in ("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDF1"):
        assert figures[name] == pytest.approx(1)
    assert figures["IDSW"] == figures["FP"] == figures["FN"] == figures["Frag"] == 0 and figures["MT"] == 1


def test_one_switch_halves_association_and_leaves_detection() -> None:
    figures = count(sequence(rows(range(1, 11), 1), rows(range(1, 6), 1) + rows(range(6, 11), 2))).figures()
    assert figures["IDSW"] == 1 and figures["MOTA"] == pytest.approx(0.9) and figures["DetA"] == 1
    assert figures["AssA"] == pytest.approx(0.5) and figures["HOTA"] == pytest.approx(0.5**0.5) and figures["IDF1"] == pytest.approx(0.5)


def test_a_miss_in_the_middle_is_a_fragment_and_no_switch() -> None:
    other, all_but_one = rows(range(1, 11), 2, x=500.0), rows([1, 2, 3, 4, 6, 7, 8, 9, 10], 1)
    assert count(sequence(rows(range(1, 11), 1) + other, all_but_one + other)).figures()["Frag"] == 1
    assert count(sequence(rows(range(1, 11), 1), all_but_one)).figures()["Frag"] == 0, "a frame in which nothing at all is found ends no track"
    figures = count(sequence(rows(range(1, 11), 1), all_but_one)).figures()
    assert figures["FN"] == 1 and figures["IDSW"] == 0 and figures["DetA"] == pytest.approx(0.9)
    assert figures["AssA"] == pytest.approx(0.9) and figures["IDF1"] == pytest.approx(18 / 19)


def test_a_false_track_costs_precision_alone() -> None:
    figures = count(sequence(rows(range(1, 11), 1), rows(range(1, 11), 1) + rows(range(1, 6), 2, x=500.0))).figures()
    assert figures["FP"] == 5 and figures["MOTA"] == pytest.approx(0.5) and figures["AssA"] == 1 and figures["DetPr"] == pytest.approx(10 / 15)


def test_what_falls_to_a_distractor_counts_neither_way() -> None:
    flags = {"counted": np.array([True, False, False]), "distractor": np.array([False, True, False])}
    truth = [*rows([1], 1), *rows([1], 2, x=100.0), *rows([1], 3, x=200.0)]
    figures = count(sequence(truth, [*rows([1], 1), *rows([1], 2, x=100.0), *rows([1], 3, x=200.0)], 1, **flags)).figures()
    assert figures["TP"] == 1 and figures["FP"] == 1 and figures["FN"] == 0


def test_crowd_regions_excuse_what_trackeval_excuses_for_bdd100k() -> None:
    module = pytest.importorskip("trackeval.datasets.bdd100k")
    plain = random_sequence(5, 12, 8, 200.0, False)
    rng = np.random.default_rng(5)
    regions = Regions(np.repeat(np.arange(1, 13), 2), np.concatenate([corner := rng.uniform(0, 150, (24, 2)), corner + 80], 1))
    video = Sequence("x", 12, Truth(plain.truth.frame, plain.truth.ids, plain.truth.boxes, plain.truth.labels, plain.truth.counted,
                                    plain.truth.distractor, regions), plain.found)
    reader = module.BDD100K.__new__(module.BDD100K)
    reader.class_name_to_class_id = {"pedestrian": 0}
    masks = [(video.truth.frame == n, video.found.frame == n, regions.frame == n) for n in range(1, 13)]
    raw = {
        "num_timesteps": 12, "gt_ids": [video.truth.ids[a] for a, _, _ in masks], "gt_dets": [video.truth.boxes[a] for a, _, _ in masks],
        "gt_classes": [video.truth.labels[a] for a, _, _ in masks], "tracker_ids": [video.found.ids[b] for _, b, _ in masks],
        "tracker_dets": [video.found.boxes[b] for _, b, _ in masks], "tracker_classes": [video.found.labels[b] for _, b, _ in masks],
        "gt_crowd_ignore_regions": [regions.boxes[c] for _, _, c in masks],
        "similarity_scores": [reader._calculate_box_ious(video.truth.boxes[a], video.found.boxes[b], box_format="x0y0x1y1") for a, b, _ in masks],
    }
    data = reader.get_preprocessed_seq_data(raw, "pedestrian")
    mine = prepare(video, 0)
    assert len(mine.found_ids) == data["num_tracker_dets"] < len(video.found)
    from trackeval.metrics import HOTA

    np.testing.assert_allclose(np.asarray(count(video, 0).hota.figures()["HOTA"]), HOTA().eval_sequence(data)["HOTA"], atol=1e-9)


def test_pooling_sums_and_the_class_average_leaves_out_classes_that_never_occur() -> None:
    good, bad = count(sequence(rows(range(1, 11), 1), rows(range(1, 11), 1))), count(sequence(rows(range(1, 11), 1), []))
    assert pooled([good, bad]).figures()["MOTA"] == pytest.approx(0.5) and pooled([good, bad]).figures()["FN"] == 10
    average = class_average({"a": good, "b": bad, "never": Counts()})
    assert average["HOTA"] == pytest.approx(0.5) and average["FN"] == 10
    assert np.isnan(class_average({"never": Counts()})["HOTA"])


@needs_files
def test_a_real_tracker_has_the_published_figures() -> None:
    counts = {
        name: count(read_sequence(name, SHARED / f"mot15/{name}/gt/gt.txt", SHARED / f"results/tracker_a/{name}.txt", benchmark="MOT15"))
        for name in ("TUD-Campus", "TUD-Stadtmitte")
    }
    figures = pooled(counts.values()).figures()
    assert [round(figures[name], 3) for name in ("IDF1", "MOTA", "HOTA")] == [0.624, 0.555, 0.400]
    assert (figures["FP"], figures["FN"], figures["IDSW"]) == (58, 602, 14)


@needs_files
@pytest.mark.parametrize("tracker, name, expected", [
    ("tracker_a", "TUD-Campus", (55.8, 52.6, 0.277, 13, 150, 7, 7, 1, 6, 1)),
    ("tracker_a", "TUD-Stadtmitte", (64.5, 56.4, 0.346, 45, 452, 7, 6, 5, 4, 1)),
    ("tracker_b", "PETS09-S2L1", (95.2, 96.2, 0.0, 169, 0, 2, 0, 19, 0, 0)), ("tracker_b", "KITTI-17", (83.0, 99.1, 0.003, 0, 0, 6, 0, 9, 0, 0)),
])
def test_real_trackers_have_py_motmetrics_figures(tracker: str, name: str, expected: tuple[float, ...]) -> None:
    video = read_sequence(name, SHARED / f"mot15/{name}/gt/gt.txt", SHARED / f"results/{tracker}/{name}.txt", benchmark="MOT15")
    figures = (MotmetricsCounts() + motmetrics_counts(prepare(video))).figures()
    names = ("num_false_positives", "num_misses", "num_switches", "num_fragmentations", "mostly_tracked", "partially_tracked", "mostly_lost")
    assert (round(100 * figures["idf1"], 1), round(100 * figures["mota"], 1), round(figures["motp"], 3), *(figures[n] for n in names)) == expected


def frame_of(video: Sequence, number: int, name: str = "v") -> tuple[Detections, Annotations, Meta]:
    t, f = video.truth.take(video.truth.frame == number), video.found.take(video.found.frame == number)
    found = Detections(torch.from_numpy(f.boxes), torch.ones(len(f)), torch.from_numpy(f.labels), track_ids=torch.from_numpy(f.ids))
    truth = Annotations(boxes=torch.from_numpy(t.boxes), labels=torch.from_numpy(t.labels), track_ids=torch.from_numpy(t.ids))
    return found, truth, Meta(dataset="d", id=f"{name}/{number}", video=name, frame=number - 1)


def test_streamed_frames_give_the_figures_of_the_tables_in_any_order_and_over_processes() -> None:
    video = random_sequence(3, 20, 6, 200.0, False)
    frames = [frame_of(video, n) for n in range(1, 21)]
    metrics = [MotTracking(classes=["person"]) for _ in range(3)]
    for found, truth, meta in frames:
        metrics[0].update([found], [truth], [meta])
    for turn, (found, truth, meta) in enumerate([*frames[::-1], *frames[:4]]):  # the last ones for a second time
        metrics[1 + turn % 2].update([found], [truth], [meta])
    metrics[1].merge(metrics[2])
    expected = count(video).figures()
    for metric in metrics[:2]:
        figures = metric.compute()
        assert all(value == pytest.approx(expected[name.removeprefix("mot/")], abs=1e-12) for name, value in figures.items())
    details = metrics[0].details()["mot"]
    assert details["per_video"]["HOTA"] == [pytest.approx(expected["HOTA"])] and len(details["curves"]["HOTA"]) == 19
    metrics[0].reset()
    assert np.isnan(metrics[0].compute()["mot/HOTA"])


def test_classes_are_judged_apart_then_pooled_and_averaged() -> None:
    metric = MotTracking(classes=["person", "car", "absent"])
    agnostic = MotTracking(classes=["person", "car", "absent"], class_agnostic=True)
    for frame in range(10):
        boxes = torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10]])
        found = Detections(boxes, torch.ones(2), torch.tensor([0, 0]), track_ids=torch.tensor([1, 2]))
        truth = Annotations(boxes=boxes, labels=torch.tensor([0, 1]), track_ids=torch.tensor([1, 2]))
        for each in (metric, agnostic):
            each.update([found], [truth], [Meta("d", frame, video="v", frame=frame)])
    figures = metric.compute()
    assert figures["mot/FN"] == figures["mot/FP"] == 10 and figures["mot/class_average/MOTA"] == pytest.approx(0.0)
    assert metric.details()["mot"]["per_class"]["HOTA"][1:] == [0, 0] and agnostic.compute()["mot/HOTA"] == pytest.approx(1)


def test_frames_that_cannot_be_judged_are_refused_with_their_name() -> None:
    metric = MotTracking(classes=["person"])
    found, truth, meta = frame_of(sequence(rows([1], 1), rows([1], 1)), 1)
    with pytest.raises(DataError, match="belongs to no video"):
        metric.update([found], [truth], [Meta("d", 3)])
    with pytest.raises(DataError, match="no track ids"):
        metric.update([Detections(found.boxes, found.scores, found.labels)], [truth], [meta])
    with pytest.raises(DataError, match="no track ids"):
        metric.update([found], [Annotations(boxes=truth.boxes, labels=truth.labels)], [meta])
    with pytest.raises(NumericError, match="non-finite scores"):
        metric.update([Detections(found.boxes, found.scores * float("nan"), found.labels, track_ids=found.track_ids)], [truth], [meta])
    twice = found[torch.tensor([0, 0])]
    with pytest.raises(DataError, match="track id 1 more than once"):
        metric.update([twice], [truth], [meta])
    with pytest.raises(TypeError, match="Detections"):
        metric.update([Classification(torch.ones(1))], [truth], [meta])
    assert np.isnan(metric.compute()["mot/HOTA"]), "nothing was taken"


def test_frames_without_objects_need_no_ids_and_difficult_and_crowd_objects_excuse() -> None:
    metric = MotTracking(classes=["person"])
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10], [100, 0, 200, 100]])
    truth = Annotations(boxes=boxes, labels=torch.zeros(3, dtype=torch.int64), track_ids=torch.tensor([1, 0, 0]),
                        difficult=torch.tensor([False, True, False]), crowd=torch.tensor([False, False, True]))
    found = Detections(torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10], [120, 20, 130, 30], [300, 0, 310, 10]]), torch.ones(4),
                       torch.zeros(4, dtype=torch.int64), track_ids=torch.arange(4))
    metric.update([found, Detections.empty()], [truth, Annotations(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))],
                  [Meta("d", 0, video="v", frame=0), Meta("d", 1, video="v", frame=1)])
    figures = metric.compute()
    assert figures["mot/FP"] == 1 and figures["mot/FN"] == 0
