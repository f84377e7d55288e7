"""Drawing shows what it is told to, where it is told to."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from saccade.data.class_sets import CLASS_SETS
from saccade.report.drawing import Style, draw, enlargement, side_by_side, true_labels, truth_beside_prediction, with_title
from saccade.report.palette import PALETTE, colour_of, text_colour_on
from saccade.structures import Annotations, Classification, Detections, Panoptic, Segment, SegmentationMap

GREY = np.full((480, 640, 3), 127, dtype=np.uint8)


def changed(picture: np.ndarray) -> np.ndarray:
    return (picture != GREY).any(-1)


def one_box(score: float = 0.9, **more: torch.Tensor) -> Detections:
    return Detections(torch.tensor([[200.0, 150, 400, 350]]), torch.tensor([score]), torch.tensor([1]), **more)


def test_a_box_changes_its_border_and_leaves_its_inside_and_the_picture_given() -> None:
    where = changed(draw(one_box(), GREY, ("cat", "dog")))
    assert where[150, 201:400].all() and where[350, 201:400].all() and where[151:350, 200].all() and where[151:350, 400].all()
    assert not where[200:330, 230:380].any() and not where[380:].any()
    assert (GREY == 127).all()


def test_a_box_has_the_colour_of_its_class_and_a_track_that_of_its_id() -> None:
    assert tuple(draw(one_box(), GREY)[250, 200]) == colour_of(1)
    assert tuple(draw(one_box(track_ids=torch.tensor([5])), GREY)[250, 200]) == colour_of(5)


def test_a_score_below_the_threshold_is_not_drawn() -> None:
    assert not changed(draw(one_box(0.3), GREY, min_score=0.5)).any()


def test_masks_are_filled() -> None:
    mask = torch.zeros(1, 480, 640, dtype=torch.bool)
    mask[0, 200:300, 250:350] = True
    assert changed(draw(one_box(masks=mask), GREY))[205:295, 255:345].all()


def test_small_pictures_are_enlarged_with_their_boxes() -> None:
    small = np.full((96, 128, 3), 127, dtype=np.uint8)
    drawn = draw(Detections(torch.tensor([[32.0, 24, 96, 72]]), torch.ones(1), torch.zeros(1, dtype=torch.int64)), small)
    assert drawn.shape == (384, 512, 3) and enlargement(96, 128) == 4
    assert tuple(drawn[200, 128]) == colour_of(0) and tuple(drawn[200, 384]) == colour_of(0)


def test_lines_and_letters_grow_with_the_picture() -> None:
    small, large = Style.for_size(480, 640), Style.for_size(1080, 1920)
    assert large.line > small.line >= 2 and large.letters > small.letters >= 14


@pytest.mark.parametrize(
    "box", [[-50.0, -50, 700, 500], [630, 470, 640, 480], [0, 0, 1, 1], [300, 200, 300, 200], [float("nan"), 0, 5, 5], [900, 900, 950, 950]]
)
def test_boxes_at_or_beyond_the_border_are_drawn_without_failing(box: list[float]) -> None:
    drawn = draw(Detections(torch.tensor([box]), torch.ones(1), torch.zeros(1, dtype=torch.int64)), GREY, ("a very long name " * 30,))
    assert drawn.shape == GREY.shape


def test_a_label_at_the_upper_border_stays_inside_the_picture() -> None:
    drawn = draw(Detections(torch.tensor([[100.0, 0, 300, 200]]), torch.ones(1), torch.zeros(1, dtype=torch.int64)), GREY, ("cat",))
    assert changed(drawn)[3:12, 103:130].any()


def test_names_beyond_ascii_differ_from_each_other() -> None:
    assert (draw(one_box(), GREY, ("", "ä")) != draw(one_box(), GREY, ("", "ö"))).any()


def test_a_classification_names_its_best_classes_in_the_corner() -> None:
    where = changed(draw(Classification(torch.tensor([0.2, 0.7, 0.1])), GREY, ("cat", "dog", "cow")))
    assert where[:40, :100].any() and not where[200:].any()
    assert tuple(draw(Classification(torch.tensor([0.2, 0.7, 0.1])), GREY)[8, 8]) == colour_of(1)


def test_a_segmentation_map_colours_labels_and_leaves_unknown_pixels() -> None:
    labels = torch.zeros(480, 640, dtype=torch.int64)
    labels[:, 320:] = 255
    where = changed(draw(SegmentationMap(labels), GREY, ("road",)))
    assert where[:, :320].all() and not where[:, 320:].any()


def test_a_segmentation_map_has_the_colours_of_the_known_class_set_of_its_names() -> None:
    known = CLASS_SETS["camvid11"]
    assert known.colours is not None
    drawn = draw(SegmentationMap(torch.full((480, 640), 8)), GREY, known.classes)  # cars
    expected = GREY[300, 600] * 0.45 + np.array(known.colours[8]) * 0.55
    assert np.abs(drawn[300, 600] - expected).max() <= 1 and tuple(drawn[8, 8]) == known.colours[8]


def test_panoptic_things_get_boxes_and_stuff_gets_colour() -> None:
    ids = torch.ones(480, 640, dtype=torch.int64)
    ids[100:200, 100:200] = 2
    ids[400:] = 0
    panoptic = Panoptic(ids, (Segment(1, 0, False), Segment(2, 1, True, score=0.8)))
    drawn = draw(panoptic, GREY, ("road", "car"))
    assert changed(drawn)[250, 300] and not changed(drawn)[450:].any()
    assert (draw(panoptic, GREY, ("road", "car"), min_score=0.9)[150, 150] == GREY[150, 150]).all()


def test_panoptic_maps_show_any_label_and_pass_over_what_is_void_or_unlisted() -> None:
    ids = torch.zeros(480, 640, dtype=torch.int64)
    ids[:, 300:400], ids[:, 400:500], ids[:, 500:] = 7, 8, 9
    drawn = draw(Panoptic(ids, (Segment(7, 300, False), Segment(8, 255, False), Segment(1, 2, True))), GREY)  # 9 is not listed, 1 has no pixel
    columns = changed(drawn)[200]
    assert columns[300:500].all() and not columns[:300].any() and not columns[500:].any()
    assert (draw(Panoptic(torch.zeros_like(ids), ()), GREY) == GREY).all()


def test_true_crowd_segments_are_named_and_true_scores_are_not_written() -> None:
    ids = torch.zeros(480, 640, dtype=torch.int64)
    ids[200:400, 100:500] = 4
    thing, crowd, found = (draw(Panoptic(ids, (segment,)), GREY, ("cat",)) for segment in (
        Segment(4, 0, True), Segment(4, 0, True, is_crowd=True), Segment(4, 0, True, score=0.5)
    ))
    widths = [int(changed(drawn)[190].nonzero()[0].max()) for drawn in (thing, found, crowd)]
    assert widths == sorted(set(widths))


def test_truth_is_drawn_with_crowds_and_difficult_objects_named() -> None:
    boxes, labels = torch.tensor([[200.0, 150, 400, 350]]), torch.tensor([0])
    plain = draw(Annotations(boxes=boxes, labels=labels), GREY, ("cat",))
    crowd = draw(Annotations(boxes=boxes, labels=labels, crowd=torch.tensor([True])), GREY, ("cat",))
    assert (plain != crowd).any() and tuple(plain[250, 200]) == colour_of(0)


def test_truth_and_prediction_stand_side_by_side() -> None:
    both = truth_beside_prediction(GREY, Annotations(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64)), one_box(), ("a", "b"))
    bar = with_title(GREY, "x").shape[0] - GREY.shape[0]
    left, right = both[bar:, :640], both[bar:, -640:]
    assert (left == GREY).all() and (right != GREY).any()
    assert side_by_side([GREY, GREY], gap=4).shape == (480, 1284, 3)


def test_beside_boxes_the_truth_has_no_masks_and_no_maps() -> None:
    known = Annotations(boxes=torch.tensor([[200.0, 150, 400, 350]]), labels=torch.tensor([1]), track_ids=torch.tensor([7]))
    more = Annotations(
        boxes=known.boxes, labels=known.labels, masks=torch.ones(1, 480, 640, dtype=torch.bool),
        segmentation=torch.zeros(480, 640, dtype=torch.uint8),
        panoptic=Panoptic(torch.ones(480, 640, dtype=torch.int64), (Segment(1, 0, False),)), track_ids=torch.tensor([7]),
    )
    assert (truth_beside_prediction(GREY, known, one_box(), ("a", "b")) == truth_beside_prediction(GREY, more, one_box(), ("a", "b"))).all()


def test_soft_and_multiple_labels_name_their_classes() -> None:
    assert true_labels(3) == [3]
    assert true_labels(torch.tensor([0.0, 1.0, 1.0])) == [1, 2]
    assert true_labels(torch.tensor([0.4, 0.3, 0.3])) == [0]


def test_palette_colours_are_distinct_and_text_on_them_is_readable() -> None:
    assert len(set(PALETTE)) == len(PALETTE)
    assert text_colour_on((240, 228, 66)) == (0, 0, 0) and text_colour_on((0, 60, 90)) == (255, 255, 255)
    assert colour_of(len(PALETTE) + 3) == colour_of(3) and colour_of(-1) == PALETTE[-1]


def test_drawing_something_unknown_is_refused() -> None:
    with pytest.raises(TypeError, match="int"):
        draw(3, GREY)  # type: ignore[arg-type]
