"""QDTrack's weights from mmtracking and DARTH: names both ways, student and teacher, and mmdetection's detector alone."""
from __future__ import annotations

import pytest
import torch

from saccade.errors import InputError
from saccade.weights.load import load_into
from saccade.weights.maps import key_map, mmdet, recognise
from small_tracker import tracker_model


def test_both_directions_meet() -> None:
    model, fresh = tracker_model(), tracker_model(seed=1)
    theirs = key_map("qdtrack").from_saccade(model.state_dict(), model)
    assert {"detector.backbone.layer1.0.conv1.weight", "detector.neck.fpn_convs.3.conv.bias", "detector.rpn_head.rpn_reg.weight",
            "detector.roi_head.bbox_head.shared_fcs.0.weight", "detector.roi_head.bbox_head.fc_cls.bias", "track_head.embed_head.convs.0.gn.weight",
            "track_head.embed_head.fcs.0.bias", "track_head.embed_head.fc_embed.weight"} <= theirs.keys()
    assert recognise(list(theirs)) == "qdtrack"
    report = load_into(fresh, theirs)
    assert report.origin == "qdtrack" and not report.missing and not report.unexpected
    assert all(torch.equal(fresh.state_dict()[key], value) for key, value in model.state_dict().items())


def test_of_a_darth_checkpoint_the_student_or_the_teacher_is_taken() -> None:
    student, teacher = tracker_model(), tracker_model(seed=1)
    both = {**student.state_dict(), **{f"teacher.{key}": value for key, value in teacher.state_dict().items()}}
    theirs = key_map("qdtrack").from_saccade(both, student)
    assert len(theirs) == 2 * len(student.state_dict()) and "teacher_detector.neck.lateral_convs.0.conv.weight" in theirs
    with pytest.raises(InputError, match=r"teacher\."):
        load_into(tracker_model(), theirs)
    for origin, left, wanted in (("auto", "teacher.", student), ("qdtrack_teacher", "student.", teacher)):
        fresh = tracker_model(seed=2)
        load_into(fresh, theirs, origin=origin, missing=[left])
        assert all(torch.equal(fresh.state_dict()[key], value) for key, value in wanted.state_dict().items())
    back = key_map("qdtrack_teacher").from_saccade(key_map("qdtrack_teacher").to_saccade(theirs, student), student)
    assert back.keys() == theirs.keys() and all(torch.equal(back[key], value) for key, value in theirs.items())


def test_mmdetections_detector_fills_the_detector_alone() -> None:
    model, fresh = tracker_model(), tracker_model(seed=1)
    theirs = mmdet.from_saccade(model.detector.state_dict(), model.detector)
    load_into(fresh.detector, theirs, origin="mmdet")
    assert all(torch.equal(fresh.detector.state_dict()[key], value) for key, value in model.detector.state_dict().items())
