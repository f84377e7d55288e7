"""Mixup, CutMix and ResizeMix: what happens to pixels, labels and their share."""
from __future__ import annotations

import pytest
import torch

from saccade.data.randomness import generator
from saccade.data.transforms.batch import BatchTransform, CutMix, Mixup, OneOf, ResizeMix
from saccade.errors import InputError
from saccade.structures import Annotations, Batch, Meta

SIDE, CLASSES = 40, 6


def batch_of(count: int = 6) -> Batch:
    """Image i is grey of level 40 i and of class i."""
    images = (torch.arange(count, dtype=torch.uint8) * 40).reshape(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE).contiguous()
    return Batch(images, [Annotations(label=i) for i in range(count)], [Meta("set", i) for i in range(count)])


def labels_of(batch: Batch) -> torch.Tensor:
    return torch.stack([label for t in batch.targets if isinstance(label := t.label, torch.Tensor)])


@pytest.mark.parametrize("transform", [
    Mixup(alpha=0.8), CutMix(alpha=1.0), CutMix(alpha=1.0, minmax=(0.2, 0.6)), CutMix(alpha=1.0, correct_share=False), ResizeMix(alpha=1.0),
], ids=["mixup", "cutmix", "cutmix minmax", "cutmix uncorrected", "resizemix"])
def test_labels_sum_to_one_and_agree_with_the_pixels(transform: BatchTransform) -> None:
    for seed in range(40):
        mixed = transform(batch_of(), generator(seed), CLASSES)
        labels = labels_of(mixed)
        torch.testing.assert_close(labels.sum(1), torch.ones(6))
        assert (labels >= 0).all() and ((labels > 0).sum(1) <= 2).all()
        if getattr(transform, "correct_share", True):  # the mean grey level tells how much of each class is in the image
            levels = mixed.images.float().mean((1, 2, 3))
            torch.testing.assert_close(levels, labels @ (40.0 * torch.arange(CLASSES)), atol=0.6, rtol=0)


def test_mixup_does_not_change_the_batch_it_is_given() -> None:
    batch = batch_of()
    for transform in (Mixup(alpha=0.8), CutMix(alpha=1.0), ResizeMix(alpha=1.0)):
        transform(batch, generator(3), CLASSES)
    assert torch.equal(batch.images, batch_of().images) and batch.targets[2].label == 2


def test_shares_of_mixup_follow_beta() -> None:
    shares = torch.stack([labels_of(Mixup(alpha=0.4)(batch_of(), generator(i), CLASSES)).amax(1).min() for i in range(400)])
    folded = shares[shares < 1]
    expected = torch.distributions.Beta(0.4, 0.4).sample((20000,))
    assert abs(torch.maximum(folded, 1 - folded).mean() - torch.maximum(expected, 1 - expected).mean()) < 0.03


def test_cutmix_keeps_the_share_that_was_drawn_only_when_told_to() -> None:
    for seed in range(30):
        corrected, drawn = (labels_of(CutMix(alpha=1.0, correct_share=c)(batch_of(), generator(seed), CLASSES)) for c in (True, False))
        assert (corrected.diagonal() >= drawn.diagonal() - 1e-6).all()  # clipping leaves more of the image, never less


def test_resizemix_puts_the_whole_partner_in_the_rectangle() -> None:
    columns = torch.linspace(0, 255, SIDE).to(torch.uint8).expand(2, 3, SIDE, SIDE).clone()
    columns[0] = 0
    batch = Batch(columns, [Annotations(label=0), Annotations(label=1)], [Meta("set", 0), Meta("set", 1)])
    seen = 0
    for seed in range(40):
        mixed = ResizeMix(alpha=1.0, min_share=0.2, max_share=0.5)(batch, generator(seed), 2)
        if labels_of(mixed)[0, 1] > 0.2:
            row = mixed.images[0, 0].amax(0)
            assert row.max() > 235 and row[row > 0].min() < 20
            seen += 1
    assert seen > 5


def test_probabilities_decide_between_the_choices() -> None:
    choices = OneOf(choices=[Mixup(alpha=1.0, probability=0.3), CutMix(alpha=1.0, probability=0.5)])
    counts = {"mixup": 0, "cutmix": 0, "none": 0}
    for seed in range(600):
        mixed = choices(batch_of(), generator(seed), CLASSES)
        counts["none" if isinstance(mixed.targets[0].label, int) else "mixup" if mixed.images.is_floating_point() else "cutmix"] += 1
    assert abs(counts["mixup"] / 600 - 0.3) < 0.06 and abs(counts["cutmix"] / 600 - 0.5) < 0.06
    with pytest.raises(ValueError, match="at most 1"):
        OneOf(choices=[Mixup(alpha=1.0), CutMix(alpha=1.0, probability=0.1)])


def test_the_draw_is_a_function_of_the_generator() -> None:
    first, again, other = (Mixup(alpha=1.0)(batch_of(), generator(seed), CLASSES).images for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_soft_labels_stay_soft_and_missing_ones_are_an_error() -> None:
    batch = batch_of(2)
    batch.targets[0].label = torch.tensor([0.5, 0.5, 0, 0, 0, 0])
    assert torch.allclose(labels_of(Mixup(alpha=1.0)(batch, generator(0), CLASSES)).sum(1), torch.ones(2))
    batch.targets[1].label = None
    with pytest.raises(InputError, match="sample 1 has none"):
        Mixup(alpha=1.0)(batch, generator(0), CLASSES)
    padded = Batch(batch.images, batch.targets, batch.metas, torch.zeros(2, SIDE, SIDE, dtype=torch.bool))
    with pytest.raises(InputError, match="padded"):
        CutMix(alpha=1.0)(padded, generator(0), CLASSES)
