"""Assignment of boxes to objects: as mmdetection's loop over objects, as torchvision's matcher, whatever the table's chunks."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from saccade.layers import assigning
from saccade.layers.assigning import IGNORED, NEGATIVE, MaxIoUAssigner


def scene(objects: int, boxes: int = 300, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners, sides = torch.rand(boxes + objects, 2, generator=generator) * 80, torch.rand(boxes + objects, 2, generator=generator) * 30 + 4
    every = torch.cat([corners, corners + sides], 1)
    near = every[:objects].repeat(3, 1) + torch.randn(3 * objects, 4, generator=generator) * 2
    return torch.cat([every[objects:], near, every[:1]]), every[:objects]


def by_loops(boxes: Tensor, objects: Tensor, positive: float, negative: float, minimum: float) -> Tensor:
    iou = box_iou(objects, boxes)
    best, nearest = iou.max(0)
    matched = torch.full((len(boxes),), IGNORED)
    matched[(best >= 0) & (best < negative)] = NEGATIVE
    matched[best >= positive] = nearest[best >= positive]
    for number, row in enumerate(iou):
        if row.max() >= minimum:
            matched[row == row.max()] = number
    return matched


@pytest.mark.parametrize(("positive", "negative", "minimum"), [(0.7, 0.3, 0.3), (0.5, 0.4, 0.0)])
@pytest.mark.parametrize("table", [1 << 24, 1000])
def test_assignment_is_that_of_a_loop_over_objects(
    monkeypatch: pytest.MonkeyPatch, positive: float, negative: float, minimum: float, table: int
) -> None:
    monkeypatch.setattr(assigning, "_TABLE", table)
    boxes, objects = scene(9)
    objects[4] = objects[1]  # two objects in one place
    assigner = MaxIoUAssigner(positive=positive, negative=negative, minimum=minimum)
    found = assigner(boxes, objects)
    assert torch.equal(found.matched, by_loops(boxes, objects, positive, negative, minimum))
    torch.testing.assert_close(found.overlaps, box_iou(objects, boxes).max(0).values)
    assert (found.matched == IGNORED).any() and (found.matched >= 0).any()


def test_own_ties_are_torchvisions_matcher() -> None:
    boxes, objects = scene(12, seed=3)
    theirs = Matcher(0.7, 0.3, allow_low_quality_matches=True)(box_iou(objects, boxes))
    ours = MaxIoUAssigner(positive=0.7, negative=0.3, ties="own")(boxes, objects).matched
    assert torch.equal(ours, theirs)  # both: -1 background, -2 between the thresholds


def test_boxes_mostly_within_ignored_regions_learn_nothing_unless_an_object_claims_them() -> None:
    objects, ignored = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[50.0, 0, 70, 20]])
    boxes = torch.tensor([[52.0, 2, 60, 10], [40, 0, 51, 10], [0, 0, 10, 10]])
    assigner = MaxIoUAssigner(positive=0.7, negative=0.3, ignore_share=0.5)
    found = assigner(boxes, objects, ignored)
    assert found.matched.tolist() == [IGNORED, NEGATIVE, 0] and found.overlaps.tolist() == [-1, 0, 1]
    assert MaxIoUAssigner(positive=0.7, negative=0.3)(boxes, objects, ignored).matched.tolist() == [NEGATIVE, NEGATIVE, 0]


def test_without_objects_everything_is_background_and_without_boxes_nothing_happens() -> None:
    assigner, boxes = MaxIoUAssigner(positive=0.7, negative=0.3), torch.rand(5, 4)
    assert (assigner(boxes, torch.zeros(0, 4)).matched == NEGATIVE).all()
    assert len(assigner(torch.zeros(0, 4), boxes).matched) == 0
