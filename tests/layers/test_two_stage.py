"""The parts of a two-stage detector that the models' tests do not reach: truth, padding, anchors of trackers' settings, sampling of regions."""
from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from saccade.layers.sampling import choose_evenly
from saccade.layers.two_stage import MMDET, TORCHVISION, Truth, TwoStage, TwoStageSettings, extend_edges, picture_sizes, places_beyond, truths_of
from saccade.structures import Annotations


class Tiny(nn.Module):
    """Four maps of strides 4 to 32."""

    channels, strides = (4, 4, 4, 4), (4, 8, 16, 32)

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 4, stride=4), *(nn.Conv2d(4, 4, 3, stride=2, padding=1) for _ in range(3))])

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for conv in self.convs:
            images = conv(images).relu()
            maps.append(images)
        return maps


def detector(settings: TwoStageSettings = MMDET, classes: int = 2) -> TwoStage:
    torch.manual_seed(1)
    small = replace(settings, channels=8, hidden=(16,), train_per_level=60, train_proposals=50, test_per_level=40, test_proposals=30)
    return TwoStage(num_classes=classes, backbone=Tiny(), settings=small, choose=choose_evenly)


def truth(boxes: list[list[float]], labels: list[int]) -> Truth:
    return Truth(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), torch.arange(len(labels)))


def test_outputs_have_the_shapes_that_are_promised() -> None:
    own = detector()
    outputs = own(torch.rand(2, 3, 64, 96))
    assert [tuple(f.shape) for f in outputs["features"]] == [(2, 8, 16, 24), (2, 8, 8, 12), (2, 8, 4, 6), (2, 8, 2, 3), (2, 8, 1, 2)]
    assert [tuple(x.shape[1:2]) for x in outputs["rpn_logits"]] == [(3,)] * 5 and outputs["rpn_deltas"][0].shape == (2, 12, 16, 24)
    assert outputs["sizes"].tolist() == [[64, 96]] * 2 and outputs["canvas"] == (64, 96)
    assert [len(p) for p in outputs["proposals"]] == [50, 50] and not outputs["proposals"][0].requires_grad
    logits, deltas = own.box_outputs(outputs["features"], outputs["proposals"])
    assert logits.shape == (100, 3) and deltas.shape == (100, 8)
    assert all(len(p) <= 30 for p in own.propose(outputs, training=False))
    own.eval()
    for boxes, scores, labels in own.detect(own(torch.rand(2, 3, 64, 96))):
        assert boxes.shape == (len(scores), 4) and len(labels) == len(scores) and (scores.diff() <= 0).all()


def test_crowds_and_objects_without_area_or_outside_are_not_learnt() -> None:
    boxes = torch.tensor([[5.0, 5, 20, 20], [0, 0, 30, 30], [5, 5, 5, 9], [70, 5, 90, 20], [-20, -20, 0, 0], [60, 40, 80, 60]])
    target = Annotations(boxes=boxes, labels=torch.arange(6), crowd=torch.tensor([False, True, False, False, False, False]))
    found, nothing = truths_of([target, Annotations()], torch.tensor([[48.0, 64.0]] * 2))
    assert found.rows.tolist() == found.labels.tolist() == [0, 5] and torch.equal(found.boxes, boxes[[0, 5]])
    assert nothing.boxes.shape == (0, 4) and len(nothing.labels) == 0


def test_sampled_regions_have_their_objects_first_and_the_objects_themselves_among_them() -> None:
    objects = truth([[10, 10, 30, 30], [40, 10, 60, 50]], [1, 0])
    proposals = torch.tensor([[11.0, 10, 30, 31], [70, 70, 90, 90], [40, 12, 60, 50]])
    regions = detector().sample_regions(proposals, objects)
    assert regions.labels.tolist() == [1, 0, 1, 0, 2] and len(regions.deltas) == 4
    assert torch.equal(regions.boxes[:2], objects.boxes) and not regions.deltas[:2].any()
    assert regions.boxes[-1].tolist() == [70, 70, 90, 90]


@pytest.mark.parametrize("settings", [MMDET, TORCHVISION, replace(MMDET, clip_boxes=False)])
def test_proposals_stay_within_the_picture_if_they_are_clipped(settings: TwoStageSettings) -> None:
    own = detector(settings).eval()
    padding = torch.zeros(1, 64, 96, dtype=torch.bool)
    padding[:, 50:], padding[:, :, 80:] = True, True
    boxes, = own(torch.rand(1, 3, 64, 96), padding)["proposals"]
    within = (boxes >= 0).all() and (boxes <= torch.tensor([80, 50, 80, 50])).all()
    assert bool(within) == settings.clip_boxes


def test_anchors_beyond_a_pictures_own_padding_are_not_trained() -> None:
    padding = torch.ones(2, 64, 96, dtype=torch.bool)
    padding[0, :30, :40], padding[1] = False, False
    for settings, trained in ((MMDET, [32 * 64, 64 * 96]), (TORCHVISION, [64 * 96] * 2)):
        own = detector(settings)
        outputs = own(torch.rand(2, 3, 64, 96), padding)
        own.rpn_sampler = replace(own.rpn_sampler, number=100_000)
        none = truth([], [])
        targets = own.anchor_targets(outputs, [none, none], own.anchors(outputs))
        finest = 16 * 24 * 3
        assert targets.negative[:, :finest].sum(1).tolist() == [pixels // 16 * 3 for pixels in trained]


def test_what_lies_beyond_a_picture_is_hidden_unless_it_trains_or_quirks_are_wanted() -> None:
    images, padding = torch.rand(2, 3, 64, 96), torch.ones(2, 64, 96, dtype=torch.bool)
    padding[0, :32, :64], padding[1] = False, False
    images[0, :, 32:], images[0, :, :, 64:] = 0, 0
    for mode, quirks, equal in ((False, False, True), (False, True, False), (True, False, False)):
        own = detector(replace(MMDET, reference_quirks=quirks)).train(mode)
        with torch.no_grad():
            together, alone = own.maps(images, padding)["rpn_logits"][0][0, :, :8, :16], own.maps(images[:1, :, :32, :64])["rpn_logits"][0][0]
        assert torch.allclose(together, alone, atol=1e-6) == equal


def test_copies_hide_padding_of_their_own() -> None:
    """Teachers are copies: what one network hides must not depend on the other."""
    own = detector().eval()
    teacher = copy.deepcopy(own)
    images, padding = torch.rand(2, 3, 64, 96), torch.ones(2, 64, 96, dtype=torch.bool)
    padding[0, :32, :64], padding[1] = False, False
    for mine, other in zip(own.maps(images, padding)["features"], teacher.maps(images, padding)["features"], strict=True):
        assert torch.equal(mine, other)


def test_edges_are_carried_on_beyond_the_picture() -> None:
    grown = extend_edges(torch.arange(12.0).view(1, 1, 3, 4).repeat(2, 1, 1, 1), torch.tensor([[2.0, 3.0], [3.0, 4.0]]))
    assert grown[0, 0].tolist() == [[0, 1, 2, 2], [4, 5, 6, 6], [4, 5, 6, 6]] and torch.equal(grown[1, 0], torch.arange(12.0).view(3, 4))
    assert places_beyond(torch.tensor([[64.0, 96.0]]), (64, 96)) is None
    beyond = places_beyond(torch.tensor([[1.0, 2.0], [2.0, 3.0]]), (2, 3))
    assert beyond is not None and beyond.tolist() == [[[False, False, True], [True, True, True]], [[False] * 3] * 2]
    assert picture_sizes(torch.zeros(2, 3, 2, 3), beyond).tolist() == [[1, 2], [2, 3]]


def test_evenly_spaced_training_repeats_itself() -> None:
    own, objects = detector(), [truth([[10, 10, 50, 40]], [1]), truth([], [])]
    outputs = own(torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    first, second = own.losses(outputs, objects), own.losses(outputs, objects)
    assert all(torch.equal(first[name], second[name]) for name in first)
