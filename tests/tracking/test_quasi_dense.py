"""Quasi-dense association: what the parity case does not show."""
from __future__ import annotations

import numpy as np
import torch

from saccade.structures import Detections
from saccade.tracking.quasi_dense import QuasiDense
from tracking import scenes


def found(boxes: list[list[float]], scores: list[float], looks: list[list[float]], labels: list[int] | None = None) -> Detections:
    return scenes.detections(np.concatenate([np.array(boxes), np.array(scores)[:, None]], 1), np.array(looks, dtype=np.float64), labels)


A, B = [10.0, 10, 50, 90], [200.0, 10, 240, 90]


def test_an_object_is_known_again_wherever_it_is() -> None:
    tracker = QuasiDense()
    tracker.update(found([A, B], [0.9, 0.9], [[9, 0], [0, 9]]), 0)
    assert tracker.update(found([A, B], [0.9, 0.9], [[0, 9], [9, 0]]), 1).track_ids.tolist() == [2, 1]


def test_a_backdrop_draws_a_false_match_to_itself() -> None:
    sure, unsure = found([A], [0.9], [[5, 0]]), found([A, B], [0.9, 0.6], [[5, 0], [4.6, 2]])
    with_memory, without = QuasiDense(match_metric="softmax"), QuasiDense(match_metric="softmax", backdrop_frames=0)
    for tracker in (with_memory, without):
        tracker.update(sure, 0)
        tracker.update(unsure, 1)
    lone = found([B], [0.9], [[4.6, 2]])
    assert with_memory.update(lone, 2).track_ids.tolist() != [1]
    assert without.update(lone, 2).track_ids.tolist() == [1]


def test_a_weak_copy_of_a_match_is_no_track_and_no_backdrop() -> None:
    tracker = QuasiDense(match_metric="cosine")
    tracker.update(found([A], [0.9], [[5, 0]]), 0)
    rows, ids, _ = tracker.associate(found([A, B], [0.9, 0.4], [[0, 5], [5, 0]]), 1)
    assert dict(zip(rows.tolist(), ids.tolist(), strict=True)) == {0: 2, 1: -2}
    assert sum(len(known) for known, _ in tracker.backdrops) == 0


def test_quirks_let_an_empty_frame_pass_unnoticed() -> None:
    for quirks in (True, False):
        tracker = QuasiDense(memory_frames=3, reference_quirks=quirks)
        tracker.update(found([A], [0.9], [[5, 0]]), 0)
        for frame in range(1, 6):
            tracker.update(Detections.empty(), frame)
        assert len(tracker.ids) == (1 if quirks else 0)


def test_ids_count_from_one_and_with_quirks_from_zero() -> None:
    for quirks in (True, False):
        assert QuasiDense(reference_quirks=quirks).update(found([A], [0.9], [[5, 0]]), 0).track_ids.tolist() == [0 if quirks else 1]


def test_what_was_seen_in_inference_mode_is_remembered_outside() -> None:
    """Online adaptation predicts in inference mode and may go on outside."""
    tracker = QuasiDense()
    with torch.inference_mode():
        tracker.update(found([A], [0.9], [[5, 0]]), 0)
        tracker.update(found([A], [0.9], [[5, 0.1]]), 1)
    look = torch.tensor([[5.0, 0.2]], requires_grad=True, dtype=torch.float64)
    frame = found([A], [0.9], [[0, 0]])
    frame.embeddings = look * 1
    assert tracker.update(frame, 2).track_ids.tolist() == [1]
    assert not tracker.embeddings.requires_grad


def test_backdrops_before_the_first_embedding_are_no_trouble() -> None:
    tracker = QuasiDense(backdrop_frames=3)
    tracker.update(Detections.empty(), 0)
    for frame in range(1, 4):
        assert tracker.update(found([A], [0.9], [[5, 0]]), frame).track_ids.tolist() == [1]


def test_half_precision_is_taken() -> None:
    tracker = QuasiDense()
    for frame in range(2):
        given = found([A, B], [0.9, 0.9], [[9, 0], [0, 9]])
        half = Detections(given.boxes.bfloat16(), given.scores.bfloat16(), given.labels, embeddings=given.embeddings.bfloat16())
        assert tracker.update(half, frame).track_ids.tolist() == [1, 2]
