"""Several segmentation networks as one: their logits are averaged, whatever pixels each was trained on."""
from __future__ import annotations

import pytest
import torch

from saccade.errors import InputError
from saccade.layers.pixels import PixelNorm
from saccade.models.deeplab import DeepLabV2
from saccade.models.ensemble import SegmentationEnsemble
from saccade.ops.class_maps import resize_maps
from saccade.structures import collate, make_sample
from small_networks import images, segmenter

CLASSES = ("a", "b", "c")


def members() -> list[DeepLabV2]:
    """Two networks that disagree and take other pixels."""
    first, second = segmenter().eval(), segmenter(auxiliary=False, name="resnet18").eval()
    second.pixel_norm = PixelNorm(mean=[100, 110, 120], std=[1, 1, 1], channel_order="bgr")
    for model in (first, second):
        for name, weight in model.named_parameters():
            if name.startswith("head."):
                torch.nn.init.normal_(weight, std=0.3)
    return [first, second]


def test_upsampled_logits_are_averaged() -> None:
    first, second = members()
    batch = images(2, 72)
    with torch.no_grad():
        expected = [resize_maps(model(batch)["logits"], (72, 72)) for model in (first, second)]
        for weights, shares in ((None, (0.5, 0.5)), ([0.25, 0.75], (0.25, 0.75))):
            model = SegmentationEnsemble(classes=CLASSES, members=[first, second], weights=weights).eval()
            outputs = model(batch)
            mean = shares[0] * expected[0] + shares[1] * expected[1]
            torch.testing.assert_close(resize_maps(outputs["logits"], (72, 72)), mean, atol=1e-4, rtol=1e-4)
            for index, found in enumerate(model.predictions(outputs, batch)):
                assert torch.equal(found.labels, mean[index].argmax(0))  # type: ignore[union-attr]


def test_one_member_is_itself_and_padding_changes_nothing() -> None:
    (_, model) = members()
    alone = SegmentationEnsemble(classes=CLASSES, members=[model], weights=[1.0]).eval()
    batch = collate([make_sample(images(1, size, seed=size).images[0]) for size in (64, 48)])
    with torch.no_grad():
        ours, theirs = (m.predictions(m(batch), batch) for m in (alone, model))
    assert all(torch.equal(a.labels, b.labels) for a, b in zip(ours, theirs, strict=True))  # type: ignore[union-attr]


def test_what_can_not_be_averaged_is_refused() -> None:
    with pytest.raises(InputError, match="it has 2, they 3"):
        SegmentationEnsemble(classes=("a", "b"), members=[segmenter()])
    with pytest.raises(InputError, match="they are missing"):
        SegmentationEnsemble(classes=CLASSES, members=[])
    with pytest.raises(InputError, match="1 members and 2 weights"):
        SegmentationEnsemble(classes=CLASSES, members=[segmenter()], weights=[0.5, 0.5])
