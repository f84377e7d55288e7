"""Regions on a pyramid: torchvision's pooler under its rules, image after image, and the box head."""
from __future__ import annotations

import torch
from torchvision.ops import MultiScaleRoIAlign

from saccade.layers.roi import BoxHead, RoIAlignLevels, region_rows

SIZES = ((64, 80), (32, 40), (16, 20), (8, 10))
BOXES = [
    torch.tensor([[3.0, 4, 30, 40], [0, 0, 319, 255], [100, 50, 180, 130], [10.5, 10.5, 11, 11]]),
    torch.zeros(0, 4),
    torch.tensor([[20.0, 20, 245, 240]]),
]


def features(channels: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, channels, *size, generator=generator) for size in SIZES]


def test_torchvisions_rules_give_torchvisions_regions() -> None:
    maps = features()
    pooler = MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2)
    expected = pooler({str(i): m for i, m in enumerate(maps)}, BOXES, [(256, 320)] * 3)
    found = RoIAlignLevels(samples=2, aligned=False, level_rule="torchvision")(maps, BOXES)
    torch.testing.assert_close(found, expected)


def test_a_box_is_read_from_the_level_of_its_size() -> None:
    sides = torch.tensor([0.0, 30, 111.9, 112, 223.9, 224, 448, 5000])
    boxes = torch.stack([torch.zeros_like(sides), torch.zeros_like(sides), sides, sides], 1)
    for rule in ("mmdet", "torchvision"):
        assert RoIAlignLevels(level_rule=rule).levels(boxes).tolist() == [0, 0, 0, 1, 1, 2, 3, 3]  # type: ignore[arg-type]


def test_regions_of_a_constant_picture_are_constant_even_beyond_its_border() -> None:
    found = RoIAlignLevels()([torch.full((1, 2, *size), 5.0) for size in SIZES], [torch.tensor([[-2.0, -2, 60, 60]])])
    torch.testing.assert_close(found, torch.full((1, 2, 7, 7), 5.0))


def test_no_regions_at_all_still_have_gradients() -> None:
    maps = [m.requires_grad_() for m in features()]
    found = RoIAlignLevels()(maps, [torch.zeros(0, 4)] * 3)
    assert found.shape == (0, 3, 7, 7)
    head = BoxHead(num_classes=2, in_channels=3, hidden=[8])
    logits, deltas = head(found)
    (logits.sum() + deltas.sum()).backward()
    assert logits.shape == (0, 3) and deltas.shape == (0, 8) and all(p.grad is not None for p in head.parameters())


def test_rows_name_the_image_of_each_box() -> None:
    assert region_rows(BOXES)[:, 0].tolist() == [0, 0, 0, 0, 2]
    assert torch.equal(region_rows(BOXES)[:, 1:], torch.cat(BOXES))


def test_half_precision_reads_the_right_place() -> None:
    """Coordinates near 1000 have steps of 4 pixels in bfloat16."""
    ramp = torch.arange(512.0).expand(1, 1, 8, 512)
    box = [torch.tensor([[1001.0, 4, 1011, 14]])]
    pooled = [RoIAlignLevels(strides=(4,), size=1)([ramp.to(kind)], box) for kind in (torch.float32, torch.bfloat16)]
    assert pooled[1].dtype == torch.bfloat16
    assert abs(float(pooled[0]) - 251) < 1e-3 and abs(float(pooled[1]) - 251) < 1.1
