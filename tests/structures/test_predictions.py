"""Predictions: rows that stay together, and the way to `supervision` and back."""
from __future__ import annotations

import numpy as np
import pytest
import supervision
import torch

from saccade.structures import Classification, Detections, SegmentationMap, Tubes


def found() -> Detections:
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, 1:3, 1:4] = masks[1, 2:5, 3:7] = True
    return Detections(
        torch.tensor([[1.0, 1.0, 4.0, 3.0], [3.0, 2.0, 7.0, 5.0], [0.0, 0.0, 1.5, 1.25]]), torch.tensor([0.9, 0.5, 0.25]), torch.tensor([2, 0, 2]),
        masks, torch.tensor([11, 12, 13]), torch.arange(6.0).reshape(3, 2),
    )  # fmt: skip


def test_detections_refuse_fields_of_other_lengths() -> None:
    with pytest.raises(ValueError, match=r"3 boxes.*'scores': 2"):
        Detections(torch.zeros(3, 4), torch.zeros(2), torch.zeros(3, dtype=torch.int64))


def test_selecting_detections_keeps_rows_together() -> None:
    best = found().above(0.4)
    assert len(best) == 2 and best.track_ids.tolist() == [11, 12] and best.embeddings.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert found()[torch.tensor([2, 0])].labels.tolist() == [2, 2] and found()[1:].scores.tolist() == [0.5, 0.25]
    assert found()[torch.zeros(3, dtype=torch.bool)].masks.shape == (0, 6, 8)


def test_no_detections_are_detections() -> None:
    empty = Detections.empty()
    assert len(empty) == 0 and len(empty.above(0.5)) == 0 and empty.masks is None
    assert len(empty.to_supervision()) == 0
    assert Detections.from_supervision(supervision.Detections.empty()).boxes.shape == (0, 4)


def test_detections_return_from_supervision_as_they_went() -> None:
    there = found().to_supervision(("person", "car", "bus"))
    assert isinstance(there, supervision.Detections)
    assert there.data["class_name"].tolist() == ["bus", "person", "bus"]
    assert there.tracker_id.tolist() == [11, 12, 13] and there.mask.dtype == bool
    back = Detections.from_supervision(there)
    for name in ("boxes", "scores", "labels", "masks", "track_ids"):
        got, sent = getattr(back, name), getattr(found(), name)
        assert got.dtype == sent.dtype and torch.equal(got, sent), name


def test_detections_with_gradients_and_half_precision_can_be_handed_over() -> None:
    made = Detections(torch.ones(1, 4, requires_grad=True), torch.ones(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.int64))
    assert made.to_supervision().xyxy.dtype == np.float32


def test_supervision_can_filter_what_it_was_given() -> None:
    there = found().to_supervision()
    kept = Detections.from_supervision(there[there.class_id == 2])
    assert kept.track_ids.tolist() == [11, 13]


def test_absent_confidences_and_classes_get_defaults() -> None:
    back = Detections.from_supervision(supervision.Detections(xyxy=np.array([[0.0, 0.0, 2.0, 2.0]])))
    assert back.scores.tolist() == [1.0] and back.labels.tolist() == [0] and back.masks is None and back.track_ids is None


def test_a_classification_names_its_best_classes() -> None:
    scores = Classification(torch.tensor([0.1, 0.6, 0.3]))
    assert scores.label == 1 and [c for c, _ in scores.top(2)] == [1, 2] and len(scores.top(9)) == 3


def test_a_classification_returns_from_supervision_as_it_went() -> None:
    scores = Classification(torch.tensor([0.1, 0.6, 0.3]))
    back = Classification.from_supervision(scores.to_supervision(), 3)
    torch.testing.assert_close(back.scores, scores.scores)
    some = supervision.Classifications(class_id=np.array([2]), confidence=np.array([0.8], dtype=np.float32))
    torch.testing.assert_close(Classification.from_supervision(some, 4).scores, torch.tensor([0.0, 0.0, 0.8, 0.0]))


def test_maps_and_tubes_know_their_size() -> None:
    assert SegmentationMap(torch.zeros(2, 3, dtype=torch.int64)).to("meta").labels.device.type == "meta"
    assert len(Tubes([torch.arange(2)], [torch.zeros(2, 4)], torch.ones(1), torch.zeros(1, dtype=torch.int64))) == 1


def test_a_segmentation_map_moves_with_all_it_has() -> None:
    whole = SegmentationMap(torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3), torch.ones(4, 1, 2))
    moved = whole.to("meta")
    assert {str(v.device) for v in (moved.labels, moved.scores, moved.coarse) if v is not None} == {"meta"}
    assert moved.coarse is not None and moved.coarse.shape == (4, 1, 2)
