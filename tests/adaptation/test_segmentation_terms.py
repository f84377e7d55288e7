"""The terms of segmentation compute what their papers say, on maps of any size, padded or not."""
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.adaptation.class_scores import class_scores
from saccade.adaptation.class_shares import GTA5_PIXELS, ClassShares
from saccade.adaptation.context import RAW, SOURCE, Context
from saccade.adaptation.maps import logit_maps
from saccade.adaptation.term import Term
from saccade.adaptation.terms.adversarial import Adversarial
from saccade.adaptation.terms.class_consistency import ClassConsistency
from saccade.adaptation.terms.class_prior import ClassPrior
from saccade.adaptation.terms.entropy import Entropy
from saccade.adaptation.terms.map_entropy import MapEntropy
from saccade.adaptation.terms.max_square import MaxSquare
from saccade.adaptation.terms.supervision import Supervision
from saccade.errors import InputError
from saccade.layers.pixels import PixelNorm
from saccade.learning.optimizers import Adam
from saccade.models.contract import Model
from saccade.ops.class_maps import resize_maps
from saccade.structures import Annotations, Batch, Meta, Outputs, collate, make_sample
from small_networks import classifier, detector, domains, images, segmenter, two_stage


class Says(Model):
    """A model that gives the same maps whatever it sees."""

    def __init__(self, logits: Tensor, classes: tuple[str, ...] | None = None) -> None:
        super().__init__(classes or tuple("abcdefghijklmnopqrs"[: logits.shape[1]]), PixelNorm())
        self.logits = torch.nn.Parameter(logits)

    def forward(self, batch: Batch) -> Outputs:
        return {"logits": self.logits, "aux_logits": 2 * self.logits}


def grey(count: int, size: tuple[int, int], *labels: Tensor) -> Batch:
    """Images of no interest, with these label maps."""
    targets = [Annotations(segmentation=own) for own in labels] or [Annotations() for _ in range(count)]
    return Batch(torch.zeros(count, 3, *size, dtype=torch.uint8), targets, [Meta() for _ in range(count)])


def value(term: Term, logits: Tensor, source: Batch | None = None) -> float:
    """The only loss of `term` on maps that are `logits`, of images of the same size."""
    model = Says(logits)
    term.prepare(model)
    views = {RAW: grey(len(logits), (int(logits.shape[-2]), int(logits.shape[-1])))} | ({} if source is None else {SOURCE: source})
    (loss,) = term(Context(model, None, views, 0)).values()
    assert loss.requires_grad
    return float(loss.detach())


def certain(labels: Tensor, num_classes: int) -> Tensor:
    """Logits (N, C, H, W) that are sure of `labels` (N, H, W)."""
    return 60.0 * F.one_hot(labels, num_classes).movedim(-1, 1)


def test_even_maps_have_an_entropy_of_one_and_certain_ones_of_none() -> None:
    assert value(MapEntropy(weight=1.0), torch.zeros(2, 19, 5, 7)) == pytest.approx(1)
    assert value(MapEntropy(weight=0.5), torch.zeros(1, 4, 5, 7)) == pytest.approx(0.5)
    assert value(MapEntropy(weight=1.0), certain(torch.randint(0, 19, (1, 5, 7)), 19)) == pytest.approx(0, abs=1e-6)


def test_the_entropy_of_a_range_is_that_of_the_least_sure_pixels() -> None:
    logits = torch.randn(1, 5, 10, 10)
    probabilities = logits.softmax(1)
    entropies = -(probabilities * probabilities.log2()).sum(1).flatten() / math.log2(5)
    assert value(MapEntropy(weight=1.0), logits) == pytest.approx(float(entropies.mean()), rel=1e-5)
    assert value(MapEntropy(weight=1.0, share=0.3), logits) == pytest.approx(float(entropies.sort().values[-30:].mean()), rel=1e-5)
    assert value(MapEntropy(weight=1.0, share=0.0), logits) == pytest.approx(float(entropies.max()), rel=1e-5)


def test_terms_work_at_the_size_of_the_images_with_corners_aligned() -> None:
    logits, batch = torch.randn(1, 3, 3, 3), grey(1, (9, 17))
    model = Says(logits)
    step = Context(model, None, {RAW: batch}, 0)
    maps = logit_maps(MapEntropy(), step, "student", RAW)
    torch.testing.assert_close(maps, F.interpolate(logits, (9, 17), mode="bilinear", align_corners=True))
    assert MapEntropy(weight=1.0)(step)["entropy_loss"].item() != pytest.approx(value(MapEntropy(weight=1.0), logits), rel=1e-3)


def test_levels_are_named_apart() -> None:
    step = Context(Says(torch.randn(1, 3, 4, 4)), None, {RAW: grey(1, (4, 4))}, 0)
    assert set(MapEntropy(output="aux_logits")(step) | MapEntropy()(step)) == {"aux_entropy_loss", "entropy_loss"}
    assert set(MaxSquare(output="aux_logits")(step) | MaxSquare()(step)) == {"aux_max_square_loss", "max_square_loss"}
    assert MapEntropy()(step)["entropy_loss"].item() != MapEntropy(output="aux_logits")(step)["aux_entropy_loss"].item()


def test_maximum_squares_are_those_of_the_paper_with_image_weights_or_without() -> None:
    logits = torch.randn(2, 4, 6, 6)
    probabilities = logits.softmax(1)
    assert value(MaxSquare(weight=1.0), logits) == pytest.approx(float(-probabilities.square().mean() / 2), rel=1e-5)
    total = 0.0
    for own in probabilities:
        for row in own.flatten(1).T:
            h = int((own.argmax(0) == row.argmax()).sum())
            total -= float(row.square().sum()) / max(1.0, h**0.2 * 36**0.8)
    assert value(MaxSquare(weight=1.0, image_weights=0.2), logits) == pytest.approx(total / (2 * 4), rel=1e-5)


def test_the_prior_asks_for_half_of_each_class_and_forbids_nothing() -> None:
    half = torch.zeros(1, 4, 4, dtype=torch.int64)
    half[0, :2] = 1  # 0 and 1 on half of the pixels each
    logits = certain(half, 3)
    assert value(ClassPrior(prior=[0.5, 0.5, 0.0]), logits) == pytest.approx(0, abs=1e-6)
    assert value(ClassPrior(prior=[2.0, 2, 4]), logits) == pytest.approx(0.5 * 0.5, abs=1e-6)  # shares are made to sum to one
    assert value(ClassPrior(prior=[0.0, 0.0, 1.0], slack=1.0, weight=3.0), logits) == pytest.approx(3, abs=1e-5)
    images_apart = certain(torch.stack([torch.zeros(4, 4, dtype=torch.int64), torch.ones(4, 4, dtype=torch.int64)]), 2)
    assert value(ClassPrior(prior=[0.5, 0.5]), images_apart) == pytest.approx(0.25, abs=1e-6)  # of each image, not of the batch


def test_a_running_prior_counts_the_source_and_survives_a_restart() -> None:
    labels = torch.tensor([[0, 0, 0, 2], [255, 255, 2, 0]], dtype=torch.uint8)
    source, model = grey(1, (2, 4), labels), Says(certain(torch.ones(1, 2, 4, dtype=torch.int64), 3))
    term = ClassPrior(slack=1.0)
    step = Context(model, None, {RAW: grey(1, (2, 4)), SOURCE: source}, 0)
    assert term(step)["class_prior_loss"].item() == pytest.approx(1, abs=1e-5)
    assert term.state_dict()["counts"].tolist() == [4, 0, 2]
    with torch.no_grad():
        term(step)  # a look from outside counts nothing
    again = ClassPrior(slack=1.0)
    again.load_state_dict(term.state_dict())
    again(step)
    assert again.state_dict()["counts"].tolist() == [8, 0, 4]


class Labelled:
    """Five label maps of one class each."""

    name, videos = "five", ()

    def __init__(self, *classes: str) -> None:
        self.classes = classes

    def __len__(self) -> int:
        return 5

    def annotations(self, index: int) -> Annotations:
        return Annotations(segmentation=torch.full((2, 2), (0, 0, 1, 2, 2)[index], dtype=torch.uint8))


def test_a_prior_is_measured_given_or_published() -> None:
    assert ClassShares(dataset=Labelled("a", "b", "c")).pixels(("a", "b", "c")).tolist() == [8, 4, 8]  # type: ignore[arg-type]
    assert ClassShares(dataset=Labelled("a", "b", "c"), images=2).pixels(("a", "b", "c")).tolist() == [4, 4, 0]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="five has other classes"):
        ClassShares(dataset=Labelled("a", "b", "c")).pixels(("a", "b"))  # type: ignore[arg-type]
    road = Says(torch.zeros(1, 2, 2, 2), ("road", "bicycle"))
    term = ClassPrior(prior="gta5", slack=1.0)
    term.prepare(road)
    share = GTA5_PIXELS["road"] / (GTA5_PIXELS["road"] + GTA5_PIXELS["bicycle"])
    loss = term(Context(road, None, {RAW: grey(1, (2, 2))}, 0))["class_prior_loss"]
    assert loss.item() == pytest.approx(share - 0.5, rel=1e-5)
    with pytest.raises(InputError, match="have no a, b, c"):
        ClassPrior(prior="gta5").prepare(Says(torch.zeros(1, 3, 2, 2)))
    with pytest.raises(InputError, match="3 shares"):
        ClassPrior(prior=[0.5, 0.5]).prepare(Says(torch.zeros(1, 3, 2, 2)))


def test_supervision_is_the_students_own_loss_on_the_source() -> None:
    for model, label in ((segmenter(), False), (classifier(), True)):
        batch = domains(2)
        assert batch.source is not None
        for target in batch.source.targets if label else ():
            target.label = 1
        losses = Supervision(weight=0.5)(Context(model.eval(), None, {RAW: batch, SOURCE: batch.source}, 0))
        expected = model.losses(model(batch.source), batch.source)
        assert losses.keys() == expected.keys()
        for name, loss in losses.items():
            torch.testing.assert_close(loss, 0.5 * expected[name])
    with pytest.raises(InputError, match=r"data\.source"):
        Supervision()(Context(segmenter().eval(), None, {RAW: images()}, 0))


def padded() -> tuple[Batch, list[Batch]]:
    """Two pictures of different sizes in one batch, and each by itself."""
    samples = [make_sample(images(1, size, seed=size).images[0], id=size) for size in (64, 48)]
    return collate(samples), [collate([sample]) for sample in samples]


def test_padding_is_no_prediction() -> None:
    model = segmenter(name="resnet18").eval()  # without average pooling, which sees padding
    for p in model.parameters():  # maps that differ from place to place
        p.data += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    batch, alone = padded()
    together, parts = Context(model, None, {RAW: batch}, 0), [Context(model, None, {RAW: own}, 0) for own in alone]
    scores = [class_scores(Entropy(), step, "student", RAW).logits for step in (together, *parts)]
    torch.testing.assert_close(scores[0], torch.cat(scores[1:]), atol=1e-4, rtol=1e-3)
    maps = logit_maps(Entropy(), together, "student", RAW)
    for index, (step, size) in enumerate(zip(parts, (64, 48), strict=True)):
        torch.testing.assert_close(maps[index, :, :size, :size], logit_maps(Entropy(), step, "student", RAW)[0], atol=1e-4, rtol=1e-3)
    assert not maps[1, :, 48:].any() and not maps[1, :, :, 48:].any()
    pixels = torch.tensor([64.0**2, 48.0**2])
    entropies = torch.stack([MapEntropy(weight=1.0)(step)["entropy_loss"].detach() for step in parts])
    assert MapEntropy(weight=1.0)(together)["entropy_loss"].item() == pytest.approx(float((pixels * entropies).sum() / pixels.sum()), rel=1e-4)
    for term in (MaxSquare(weight=1.0, image_weights=0.2), ClassPrior(prior=[1.0, 1.0, 4.0], slack=1.0)):
        term.prepare(model)
        mean = sum(next(iter(term(step).values())).item() for step in parts) / 2
        assert next(iter(term(together).values())).item() == pytest.approx(mean, rel=1e-4)


def test_the_discriminator_sees_nothing_where_there_is_no_picture() -> None:
    model, (batch, _) = segmenter().eval(), padded()
    batch.source = domains(1).source
    assert batch.source is not None
    for maps in ("softmax", "self_information"):
        term = Adversarial(optimizer=Adam(lr=1e-4), maps=maps)  # type: ignore[arg-type]
        seen = term._seen(Context(model, None, {RAW: batch, SOURCE: batch.source}, 0), RAW)
        assert not seen[1, :, 48:].any() and seen[1, :, :48, :48].all() and seen.shape == (2, 3, 64, 64)


def test_all_class_scores_have_an_entropy_those_of_maps_too() -> None:
    model = segmenter().eval()
    step = Context(model, None, {RAW: images()}, 0)
    scores = class_scores(Entropy(), step, "student", RAW)
    logits = step.outputs("student", RAW)["logits"]
    assert scores.logits.shape == (2 * 8 * 8, 3) and scores.background is None
    assert torch.equal(scores.logits[8 + 1], logits[0, :, 1, 1])
    assert 0 < Entropy()(step)["entropy_loss"].item() <= math.log(3)


@pytest.mark.parametrize("make", [classifier, segmenter, detector])
def test_consistency_follows_the_teacher_and_reaches_the_student_alone(make: Any) -> None:
    student, teacher = make().eval(), make().eval()
    step = Context(student, teacher, {"student": images(), "teacher": images()}, 0)
    assert ClassConsistency()(step)["consistency_loss"].item() == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        for p in teacher.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    step = Context(student, teacher, {"student": images(), "teacher": images()}, 0)
    loss = ClassConsistency(weight=2.0)(step)["consistency_loss"]
    ours, theirs = (class_scores(Entropy(), step, which, which).logits.detach().softmax(1) for which in ("student", "teacher"))  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(2 * float((ours - theirs).square().mean()), rel=1e-4) and loss.item() > 0
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in student.parameters()) and all(p.grad is None for p in teacher.parameters())


def test_consistency_of_what_does_not_correspond_is_refused() -> None:
    model = segmenter().eval()
    with pytest.raises(InputError, match="let one view come `after` the other"):
        ClassConsistency()(Context(model, model, {"student": images(size=64), "teacher": images(size=32)}, 0))
    stages = two_stage().eval()
    with pytest.raises(InputError, match="use DetectionConsistency"):
        ClassConsistency()(Context(stages, stages, {"student": images(), "teacher": images()}, 0))


def test_both_adversarial_losses_are_those_of_the_definition() -> None:
    answer = torch.randn(1, 1, 3, 5)
    crossed, squared = (Adversarial(optimizer=Adam(lr=1e-4), loss=loss) for loss in ("bce", "ls"))  # type: ignore[arg-type]
    torch.testing.assert_close(crossed.distance(answer, 0.0), F.softplus(answer).mean())
    torch.testing.assert_close(crossed.distance(answer, 1.0), F.softplus(-answer).mean())
    torch.testing.assert_close(squared.distance(answer, 1.0), (answer - 1).square().mean())


def test_resized_maps_keep_their_corners() -> None:
    maps = torch.arange(4.0).reshape(1, 1, 2, 2)
    assert resize_maps(maps, (3, 3))[0, 0].tolist() == [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]]
