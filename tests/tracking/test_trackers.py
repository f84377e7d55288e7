"""Every tracker: equal to its textbook on scripted sequences; gaps, empty frames, classes, state, memory, bad input."""
from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from saccade.errors import InputError, NumericError
from saccade.recipes import build
from saccade.structures import Detections
from saccade.tracking.appearance import DeepSORT
from saccade.tracking.byte_track import ByteTrack
from saccade.tracking.contract import Tracker
from saccade.tracking.oc_sort import OCSORT
from saccade.tracking.quasi_dense import QuasiDense
from saccade.tracking.sort import SORT
from tracking import scenes, textbook

PAIRS: dict[str, tuple[Callable[[], Tracker], Callable[[], Any]]] = {
    "SORT": (lambda: SORT(score_threshold=None), textbook.Sort),
    "SORT, patient": (lambda: SORT(score_threshold=None, retain_frames=5, min_hits=1, match_iou=0.2), lambda: textbook.Sort(5, 1, 0.2)),
    "ByteTrack": (ByteTrack, textbook.Byte),
    "ByteTrack, MOT20": (
        lambda: ByteTrack(match_iou=0.2, fuse_scores=False, retain_frames=5), lambda: textbook.Byte(limits=(0.8, 0.5, 0.7), fuse=False, buffer=5)
    ),
    "OC-SORT": (lambda: OCSORT(score_threshold=0.6, init_threshold=0.6), textbook.OcSort),
    "OC-SORT as published": (
        lambda: OCSORT(score_threshold=0.6, init_threshold=0.6, reference_quirks=True), lambda: textbook.OcSort(quirks=True)
    ),
    "DeepSORT": (lambda: DeepSORT(score_threshold=0.0), textbook.DeepSort),
    "DeepSORT, forgetful": (
        lambda: DeepSORT(score_threshold=0.0, samples=4, appearance_distance=0.05), lambda: textbook.DeepSort(budget=4, distance=0.05)
    ),
}
TRACKERS: dict[str, Callable[..., Any]] = {"SORT": SORT, "ByteTrack": ByteTrack, "OCSORT": OCSORT, "DeepSORT": DeepSORT, "QuasiDense": QuasiDense}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("seed", range(4))
def test_boxes_and_ids_equal_the_textbook(name: str, seed: int) -> None:
    tracker, expected = (make() for make in PAIRS[name])
    shown = 0
    for index, frame in enumerate(scenes.walk(seed)):
        got = scenes.table(tracker.update(scenes.detections(frame["dets"], frame["embeddings"]), index))
        given = (frame["dets"], frame["embeddings"]) if isinstance(tracker, DeepSORT) else (frame["dets"],)
        wanted = expected.update(*given)
        assert got[:, 4].tolist() == wanted[:, 4].tolist(), f"frame {index}"
        np.testing.assert_allclose(got, wanted, atol=1e-8)
        shown += len(got)
    assert shown > 250 and expected.count > 8


@pytest.mark.parametrize("quirks", [False, True])
def test_the_filter_after_a_gap_is_that_of_the_textbook(quirks: bool) -> None:
    """What OC-SORT shows are detections, so its re-update is seen in the states."""
    tracker = OCSORT(score_threshold=0.6, init_threshold=0.6, reference_quirks=quirks)
    expected = textbook.OcSort(quirks=quirks)
    for index, frame in enumerate(scenes.walk(3)):
        tracker.update(scenes.detections(frame["dets"]), index)
        expected.update(frame["dets"])
        assert tracker.tracks.ids.tolist() == [t.number for t in expected.tracks]
        if len(tracker.tracks):
            np.testing.assert_allclose(tracker.tracks.means, np.stack([t.kalman.x for t in expected.tracks]), rtol=1e-7, atol=1e-7)


def test_the_quirks_of_oc_sort_change_states() -> None:
    plain, quirky = OCSORT(score_threshold=0.6), OCSORT(score_threshold=0.6, reference_quirks=True)
    for index, frame in enumerate(scenes.walk(3)):
        for tracker in (plain, quirky):
            tracker.update(scenes.detections(frame["dets"]), index)
    assert len(plain.tracks) != len(quirky.tracks) or not np.allclose(plain.tracks.means, quirky.tracks.means, rtol=1e-3)


def crossing(frames: int = 40, hidden: range = range(18, 22)) -> list[Detections]:
    """Two objects that pass through each other; the one behind is not found while it is hidden. Embeddings tell them apart."""
    found = []
    look = torch.eye(2, dtype=torch.float64) * 6
    for t in range(frames):
        boxes = torch.tensor([[10.0 + 5 * t, 50, 50 + 5 * t, 150], [210.0 - 5 * t, 56, 250 - 5 * t, 156]], dtype=torch.float64)
        both = Detections(boxes, torch.tensor([0.95, 0.93], dtype=torch.float64), torch.zeros(2, dtype=torch.int64), embeddings=look)
        found.append(both[:1] if t in hidden else both)
    return found


def test_appearance_keeps_objects_apart_that_cross() -> None:
    for tracker in (QuasiDense(), DeepSORT(confirm_hits=1), OCSORT(min_hits=0), SORT(retain_frames=10, min_hits=0)):
        results = [tracker.update(frame, index) for index, frame in enumerate(crossing())]
        first, last = results[0].track_ids, results[-1].track_ids
        assert first is not None and last is not None
        assert last.tolist() == first.tolist() == [1, 2], type(tracker).__name__


def test_byte_track_follows_through_low_scores_where_sort_loses() -> None:
    frames = [scenes.detections(np.array([[10.0 + 3 * t, 20, 50 + 3 * t, 120, 0.3 if 10 <= t < 25 else 0.9]])) for t in range(35)]
    byte, sort = ByteTrack(), SORT(score_threshold=0.6, min_hits=0)
    assert [byte.update(frame, t).track_ids.tolist() for t, frame in enumerate(frames)] == [[1]] * 35
    assert {i for t, frame in enumerate(frames) for i in sort.update(frame, t).track_ids.tolist()} == {1, 2}


def one(x: float, score: float = 0.9, label: int = 0) -> Detections:
    """A single box whose left border is at `x`."""
    found = scenes.detections(np.array([[x, 20, x + 40, 120, score]]), np.array([[1.0, 2, 3]]), [label])
    return found


def quick(name: str, **settings: Any) -> Any:
    """The tracker with settings that show a track at once."""
    at_once = {"SORT": {"min_hits": 0}, "OCSORT": {"min_hits": 0}, "DeepSORT": {"confirm_hits": 1}}.get(name, {})
    return TRACKERS[name](**at_once, **settings)


@pytest.mark.parametrize("name", TRACKERS)
def test_frames_that_are_left_out_age_tracks_like_empty_ones(name: str) -> None:
    retained = {"SORT": 1, "QuasiDense": 9}.get(name, 30)
    for gap in (retained, retained + 1):
        skipping, stepping = quick(name), quick(name)
        before = skipping.update(one(10), 5), stepping.update(one(10), 5)
        for frame in range(6, 6 + gap):
            assert len(stepping.update(Detections.empty(), frame)) == 0
        after = skipping.update(one(10), 6 + gap), stepping.update(one(10), 6 + gap)
        assert torch.equal(after[0].track_ids, after[1].track_ids)
        survived = gap <= retained
        assert (after[0].track_ids.tolist() == before[0].track_ids.tolist()) == survived, f"{gap} frames without the object"


@pytest.mark.parametrize("name", TRACKERS)
def test_a_gap_of_a_billion_frames_takes_no_time_and_ends_all_tracks(name: str) -> None:
    tracker = quick(name)
    tracker.update(one(10), 0)
    tracker.update(one(10), 1_000_000_000)
    found = tracker.update(one(10), 1_000_000_001)
    assert found.track_ids.tolist() == [2]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_video_of_one_frame_and_one_without_objects(name: str) -> None:
    assert TRACKERS[name]().update(one(10), 0).track_ids.tolist() == [1] if name != "DeepSORT" else True
    empty = TRACKERS[name]()
    for frame in range(3):
        found = empty.update(Detections.empty(), frame)
        assert len(found) == 0 and found.track_ids is not None and found.track_ids.dtype == torch.int64


@pytest.mark.parametrize("name", TRACKERS)
def test_frames_must_come_in_order_and_reset_begins_anew(name: str) -> None:
    tracker = quick(name)
    tracker.update(one(10), 3)
    for frame in (3, 2):
        with pytest.raises(ValueError, match=rf"frame {frame} after frame 3.*reset"):
            tracker.update(one(10), frame)
    tracker.reset()
    assert tracker.update(one(200), 0).track_ids.tolist() == [1]


@pytest.mark.parametrize("name", TRACKERS)
def test_classes_are_kept_apart_or_the_first_stays(name: str) -> None:
    apart, together = quick(name), quick(name, within_class=False)
    for tracker in (apart, together):
        tracker.update(one(10, label=1), 0)
    found = together.update(one(10, label=2), 1)
    assert found.track_ids.tolist() == [1] and found.labels.tolist() == [1]
    again = together.update(one(10, label=2), 2)
    assert again.track_ids.tolist() == [1] and again.labels.tolist() == [1]
    apart.update(one(10, label=2), 1)
    assert apart.update(one(10, label=2), 2).track_ids.tolist() == [2]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_stored_state_goes_on_as_if_nothing_had_happened(name: str) -> None:
    frames = [scenes.detections(f["dets"], f["embeddings"]) for f in scenes.walk(5)]
    straight, first, second = TRACKERS[name](), TRACKERS[name](), TRACKERS[name]()
    wanted = [straight.update(frame, i) for i, frame in enumerate(frames)]
    for i, frame in enumerate(frames[:30]):
        first.update(frame, i)
    stored = io.BytesIO()
    torch.save(first.state_dict(), stored)
    stored.seek(0)
    second.load_state_dict(torch.load(stored, weights_only=True))
    branch = copy.deepcopy(second)
    for tracker in (second, branch):  # a copy does not share what it remembers
        for i, frame in enumerate(frames[30:], start=30):
            got = tracker.update(frame, i)
            assert torch.equal(got.track_ids, wanted[i].track_ids) and torch.equal(got.boxes, wanted[i].boxes)


@pytest.mark.parametrize("name", TRACKERS)
def test_settings_come_from_recipes(name: str) -> None:
    assert isinstance(build({"type": name}), TRACKERS[name])
    with pytest.raises(InputError, match="unknown key"):
        build({"type": name, "patience": 3})
    with pytest.raises(InputError):
        build({"type": name, "within_class": "maybe"})


@pytest.mark.parametrize("name", TRACKERS)
def test_boxes_without_an_area_are_passed_over(name: str) -> None:
    tracker = quick(name)
    dets = np.array([[10.0, 20, 50, 120, 0.9], [5, 5, 5, 50, 0.9], [30, 90, 60, 20, 0.9]])
    for frame in range(3):
        found = tracker.update(scenes.detections(dets, np.eye(3)), frame)
        assert found.track_ids.tolist() == [1]


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_name_the_frame(name: str, value: float) -> None:
    for column in (2, 4):
        dets = np.array([[10.0, 20, 50, 120, 0.9]])
        dets[0, column] = value
        with pytest.raises(NumericError, match="frame 7"):
            TRACKERS[name]().update(scenes.detections(dets, np.ones((1, 3))), 7)


@pytest.mark.parametrize("name", ["DeepSORT", "QuasiDense"])
def test_appearance_trackers_say_that_they_need_embeddings(name: str) -> None:
    with pytest.raises(InputError, match=r"embeddings.*SORT"):
        TRACKERS[name]().update(scenes.detections(np.array([[10.0, 20, 50, 120, 0.9]])), 0)


@pytest.mark.parametrize("name", TRACKERS)
def test_an_id_is_never_given_twice_in_a_frame(name: str) -> None:
    tracker = TRACKERS[name]()
    for index, frame in enumerate(scenes.walk(6, objects=20)):
        ids = tracker.update(scenes.detections(frame["dets"], frame["embeddings"]), index).track_ids
        assert len(ids.unique()) == len(ids)


@pytest.mark.parametrize("name", TRACKERS)
def test_rows_carry_their_own_masks_scores_and_embeddings(name: str) -> None:
    tracker = quick(name)
    for index, frame in enumerate(scenes.walk(7, frames=10)):
        given = scenes.detections(frame["dets"], frame["embeddings"])
        given.masks = torch.arange(len(given))[:, None, None].expand(-1, 1, 8).bitwise_right_shift(torch.arange(8)).bitwise_and(1).bool()
        found = tracker.update(given, index)
        for row in range(len(found)):
            source = int((given.embeddings == found.embeddings[row]).all(1).nonzero())
            assert torch.equal(found.masks[row], given.masks[source]) and found.scores[row] == given.scores[source]


@pytest.mark.parametrize("name", TRACKERS)
def test_memory_stays_flat_over_2000_frames(name: str) -> None:
    """Objects are replaced by others every 40 frames; what is remembered must not depend on how many there were."""
    draw = np.random.default_rng(0)
    tracker = quick(name)
    size = {}
    for frame in range(2000):
        x = np.arange(5) * 80 + frame % 40 * 2.0
        dets = np.stack([x, np.full(5, 20.0), x + 40, np.full(5, 120.0), np.full(5, 0.95)], 1)
        look = 6 * np.roll(np.eye(5, 64), frame // 40, 1) + draw.normal(0, 0.1, (5, 64))
        tracker.update(scenes.detections(dets, look), frame)
        if frame in (199, 1999):
            size[frame] = len(pickle.dumps(tracker))  # all that it holds, state or not
    assert size[1999] < size[199] + 1000, size


def test_thresholds_hold_in_the_precision_of_the_scores() -> None:
    """0.6 in single precision is a little more than 0.6; it must not pass a limit of "more than 0.6" for that."""
    found = Detections(torch.tensor([[10.0, 20, 50, 120]]), torch.tensor([0.6]), torch.zeros(1, dtype=torch.int64))
    assert len(OCSORT(score_threshold=0.6, init_threshold=0.0, min_hits=0).update(found, 0)) == 0
    assert found.boxes.dtype == SORT(min_hits=0).update(found, 0).boxes.dtype == torch.float32
