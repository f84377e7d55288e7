"""The terms of ProDA, DACS and MIC: what they compare, what they leave out, and what a resumed run goes on with."""
from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2 import RandomHorizontalFlip

from adapting_learners import started, state_of
from saccade.adaptation.adapting import Adapting
from saccade.adaptation.context import RAW, SOURCE, Context
from saccade.adaptation.fixed import frozen_copy
from saccade.adaptation.label_losses import label_cross_entropy, symmetric_cross_entropy
from saccade.adaptation.labels import LabelMaps, LabelSource, OnlineLabels, sure_shares
from saccade.adaptation.prototypes import PrototypeBank, assignment, class_means, denoised
from saccade.adaptation.terms.class_mix import MIXED, ClassMix, chosen_classes
from saccade.adaptation.terms.distillation import Distillation
from saccade.adaptation.terms.masked_consistency import MASKED, MaskedConsistency, hidden_patches
from saccade.adaptation.terms.prototypes import Prototypes
from saccade.adaptation.terms.pseudo_labels import PseudoLabels
from saccade.adaptation.terms.spread import Spread
from saccade.adaptation.terms.structure_consistency import PROTOTYPES, StructureConsistency
from saccade.adaptation.terms.supervision import Supervision
from saccade.adaptation.views import View, make_views
from saccade.data.transforms.classification import Cutout
from saccade.data.transforms.scale_crop import RandomScaleCrop
from saccade.data.transforms.strong import StrongAugment
from saccade.errors import InputError
from saccade.learning.ema import MovingAverage
from saccade.learning.optimizers import SGD
from saccade.models.deeplab import DeepLabV2
from saccade.ops.class_maps import resize_maps
from saccade.structures import Batch
from small_networks import classifier, domains, images, segmenter

CLASSES = ("a", "b", "c")


def network() -> DeepLabV2:
    """A network whose predictions and features vary over a picture."""
    model = segmenter(auxiliary=False)
    torch.manual_seed(1)
    torch.nn.init.normal_(model.head.branches[0].weight, std=0.05)  # type: ignore[union-attr, index]
    return model.eval()


def views() -> dict[str, View]:
    """A weak view, and a strong one that comes after it."""
    augment = [StrongAugment(num_operations=4, probability=1.0), Cutout(size=12, probability=1.0, ignore=True)]
    return {
        "weak": View(transforms=[RandomScaleCrop(size=(48, 48), scale=(0.8, 1.5)), RandomHorizontalFlip(p=0.5)], holes=True),
        "strong": View(after="weak", transforms=augment, holes=True),
    }


def step(model: DeepLabV2, batch: Batch | None = None, shown: dict[str, View] | None = None, seed: int = 0) -> Context:
    """A step in which all three networks are one."""
    torch.manual_seed(seed)
    made = make_views(views() if shown is None else shown, batch or domains(), None)
    return Context(model, frozen_copy(model), made, 0, frozen_copy(model))


def same_views() -> dict[str, View]:
    return {"weak": View(), "strong": View(after="weak")}


class Fixed(LabelSource):
    """The labels that it was given."""

    def __init__(self, maps: LabelMaps) -> None:
        super().__init__(0.0)
        self.maps = maps

    def find(self, context: Context, view: str, size: tuple[int, int]) -> LabelMaps:
        """The same for every view."""
        assert self.maps.labels.shape[1:] == size
        return self.maps


def test_denoised_labels_are_learnt_on_the_weak_view() -> None:
    model = network()
    context = step(model, shown=same_views())
    term = Prototypes(labels=OnlineLabels(), threshold=0.4)
    term.prepare(model)
    loss = term(context)["prototype_loss"]
    with torch.no_grad():
        outputs = model(context.view(RAW))
        features, logits = (resize_maps(outputs[name], (16, 16)) for name in ("embeddings", "logits"))
        means = class_means(features, logits.argmax(1), 3)
        bank = PrototypeBank.empty(3, features.shape[1]).averaged(means)
        probabilities = resize_maps(outputs["logits"].softmax(1), (16, 16))
        found = denoised(assignment(bank.distances(features)), probabilities)
        labels = found.labels.masked_fill(found.confidence < 0.4, 255)
        expected = symmetric_cross_entropy(logits, labels)
    assert loss.requires_grad and bool((labels != 255).any())
    torch.testing.assert_close(loss.detach(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(context.notes[PROTOTYPES].vectors, bank.vectors)
    assert term.bank is not None
    torch.testing.assert_close(term.bank.vectors, bank.moved(means, 1e-4).vectors)


@pytest.mark.parametrize("quirks", [False, True])
def test_prototypes_decide_where_soft_labels_do_not(quirks: bool) -> None:
    model = network()
    context = step(model)
    size = (12, 12)
    even = torch.full((2, 3, *size), 1 / 3)
    labels = Fixed(LabelMaps(torch.zeros(2, *size, dtype=torch.int64), torch.full((2, *size), 1 / 3), even))
    term = Prototypes(labels=labels, reference_quirks=quirks)
    term.prepare(model)
    bank = term._bank(term._means(context))
    found = term._labels(context, bank, labels.maps, size)
    features, _ = term._features(context, size)
    nearest = bank.distances(features).argmin(1)
    assert torch.equal(found[found != 255], nearest[found != 255])
    assert (found != 255).float().mean() > 0.8 and len(found[found != 255].unique()) > 1


def test_published_and_right_alignment_agree_where_the_view_is_no_more_than_a_crop() -> None:
    model = network()
    shown = {"weak": View(transforms=[RandomScaleCrop(size=(64, 64), scale=(1.0, 1.0)), RandomHorizontalFlip(p=1.0)])}
    context = step(model, images(2, 96), shown)
    right, published = (Prototypes(labels=OnlineLabels(), reference_quirks=quirks)._features(context, (16, 16))[0] for quirks in (False, True))
    assert torch.nn.functional.cosine_similarity(right, published).mean() > 0.97
    shifted = torch.nn.functional.cosine_similarity(right[..., 1:], published[..., :-1]).mean()
    assert torch.nn.functional.cosine_similarity(right, published).mean() > shifted


def test_the_students_own_labels_leave_its_gradients_alone() -> None:
    model = network()
    context = step(model)
    own = OnlineLabels(network="student", looks_at="weak")
    term = Prototypes(labels=own)
    term.prepare(model)
    assert term(context)["prototype_loss"].requires_grad
    assert PseudoLabels(labels=own, view="weak")(context)["pseudo_label_loss"].requires_grad
    assert context.outputs("student", "weak")["logits"].requires_grad and not own.read(context, "weak", (6, 6)).confidence.requires_grad


def test_prototypes_start_from_a_file_and_must_fit(tmp_path: Path) -> None:
    model = network()
    dimensions = model(images())["embeddings"].shape[1]
    stored = PrototypeBank(torch.randn(3, dimensions), torch.ones(3))
    (tmp_path / "prototypes.safetensors").write_bytes(stored.as_bytes(CLASSES))
    term = Prototypes(labels=OnlineLabels(), prototypes=str(tmp_path), momentum=0.0)
    term.prepare(model)
    term(step(model))
    assert term.bank is not None
    torch.testing.assert_close(term.bank.vectors, stored.vectors)
    (tmp_path / "prototypes.safetensors").write_bytes(PrototypeBank(torch.randn(3, 7), torch.ones(3)).as_bytes(CLASSES))
    term.prepare(model)
    with pytest.raises(InputError, match="7 numbers a class"):
        term(step(model))


def test_structure_reads_the_prototypes_of_the_term_before_it() -> None:
    model = network()
    context = step(model)
    with pytest.raises(InputError, match="put the term Prototypes before it"):
        StructureConsistency()(context)
    first = Prototypes(labels=OnlineLabels())
    first.prepare(model)
    first(context)
    losses = [StructureConsistency(weight=w, reference_quirks=q)(context)["structure_loss"] for w, q in ((1.0, False), (2.0, False), (1.0, True))]
    assert all(loss.requires_grad and loss > 0 for loss in losses)
    torch.testing.assert_close(losses[1], 2 * losses[0])
    assert losses[2] < losses[0]


def test_a_student_that_sees_what_the_teacher_sees_has_its_structure() -> None:
    model = network()
    context = step(model, shown=same_views())
    first = Prototypes(labels=OnlineLabels())
    first.prepare(model)
    first(context)
    assert StructureConsistency()(context)["structure_loss"].item() == pytest.approx(0, abs=1e-5)


def test_pseudo_labels_count_where_known_shown_and_sure() -> None:
    model = network()
    context = step(model)
    batch = context.view("strong")
    logits = resize_maps(context.outputs("student", "strong")["logits"], (12, 12))
    labels = OnlineLabels().read(context, "strong", (12, 12)).labels
    holes = torch.stack([target.segmentation for target in batch.targets])  # type: ignore[misc]
    places = (torch.arange(12) * (47 / 11) + 0.5).long()
    hidden = holes[:, places][:, :, places] == 255
    assert 0.02 < hidden.float().mean() < 0.8
    loss = PseudoLabels(labels=OnlineLabels(), view="strong")(context)["pseudo_label_loss"]
    torch.testing.assert_close(loss, label_cross_entropy(logits, labels.masked_fill(hidden, 255)))
    nothing = PseudoLabels(labels=OnlineLabels(threshold=1.0), view="strong")(context)["pseudo_label_loss"]
    assert nothing.item() == 0 and nothing.requires_grad
    soft = PseudoLabels(labels=OnlineLabels(), view="strong", loss="soft")(context)["pseudo_label_loss"]
    assert soft > 0 and not torch.equal(soft, loss)
    hard = Fixed(replace(OnlineLabels().read(context, "strong", (12, 12)), probabilities=None))
    with pytest.raises(InputError, match="take soft labels"):
        PseudoLabels(labels=hard, view="strong", loss="soft")(context)
    with pytest.raises(InputError, match="take soft labels"):
        Prototypes(labels=hard, view="strong")(context)


def test_labels_of_a_padded_batch_are_those_of_its_images_alone() -> None:
    model = network()
    small, large = images(1, 48), images(1, 64, seed=1)
    shown = {"weak": View(transforms=[RandomHorizontalFlip(p=1.0)])}
    alone = step(model, small, shown)
    pixels = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    pixels[0, :, :48, :48], pixels[1] = small.images[0], large.images[0]
    padding = torch.ones(2, 64, 64, dtype=torch.bool)
    padding[0, :48, :48], padding[1] = False, False
    both = step(model, Batch(pixels, [*small.targets, *large.targets], [*small.metas, *large.metas], padding), shown)
    one = OnlineLabels().read(alone, "weak", (12, 12))
    two = OnlineLabels().read(both, "weak", (64, 64))
    assert not two.known[0, 49:].any() and not two.known[0, :, 49:].any() and two.known[1].all()
    wide = OnlineLabels().read(alone, "weak", (48, 48))
    assert (two.labels[0, :48, :48] == wide.labels[0]).float().mean() > 0.99
    assert one.known.all()


def test_distillation_works_on_maps_and_on_single_scores() -> None:
    for model, batch in ((network(), domains()), (classifier().eval(), images())):
        other = frozen_copy(classifier() if batch.source is None else segmenter(auxiliary=False))
        context = Context(model, None, {RAW: batch}, 0, other)
        for quirks in (False, True):
            loss = Distillation(reference_quirks=quirks)(context)["distillation_loss"]
            assert loss.requires_grad and loss.ndim == 0
        itself = Context(model, None, {RAW: batch}, 0, frozen_copy(model))
        assert Distillation()(itself)["distillation_loss"].item() == pytest.approx(0, abs=1e-6)


def test_half_of_the_classes_are_pasted_with_their_labels() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([[0, 1, 2], [3, 4, 255]])
    seen = {tuple(sorted(labels[chosen_classes(labels)].tolist())) for _ in range(200)}
    assert all(len(chosen) == 3 and 255 not in chosen for chosen in seen) and len(seen) == 10
    assert not chosen_classes(torch.full((2, 2), 255)).any()


def test_mixed_images_have_source_pixels_with_their_truth_and_target_pixels_with_the_teachers_labels() -> None:
    model, batch = network(), domains()
    context = step(model, batch, {})
    term = ClassMix(threshold=0.5)
    loss = term(context)["class_mix_loss"]
    mixed, source, target = context.view(MIXED), context.view(SOURCE), context.view(RAW)
    teacher = OnlineLabels(network="teacher").read(context, RAW, (64, 64))
    share = sure_shares(teacher, 0.5)
    assert ((share > 0) & (share < 1)).all()
    weights = []
    for i in range(2):
        masks, labels = mixed.targets[i].masks, mixed.targets[i].segmentation
        assert masks is not None and labels is not None and source.targets[i].segmentation is not None
        pasted = masks[0]
        assert 0.3 < pasted.float().mean() < 0.9
        assert torch.equal(mixed.images[i][:, pasted], source.images[i][:, pasted])
        assert torch.equal(mixed.images[i][:, ~pasted], target.images[i][:, ~pasted])
        assert torch.equal(labels[pasted], source.targets[i].segmentation[pasted].long())
        assert torch.equal(labels[~pasted], teacher.labels[i][~pasted])
        weights.append(torch.where(pasted, 1.0, share[i]))
    logits = resize_maps(model(mixed)["logits"], (64, 64))
    labels = torch.stack([t.segmentation for t in mixed.targets])  # type: ignore[misc]
    torch.testing.assert_close(loss, label_cross_entropy(logits, labels, torch.stack(weights)))


def test_transforms_of_mixed_images_move_labels_along() -> None:
    context = step(network(), domains(1), {})
    torch.manual_seed(3)
    ClassMix()(context)
    plain = context.views.pop(MIXED)
    torch.manual_seed(3)
    ClassMix(transforms=[RandomHorizontalFlip(p=1.0)])(context)
    assert torch.equal(context.view(MIXED).images, plain.images.flip(-1))
    for one, other in zip(context.view(MIXED).targets, plain.targets, strict=True):
        assert torch.equal(one.segmentation, other.segmentation.flip(-1))  # type: ignore[arg-type, union-attr]


def test_what_can_not_be_mixed_is_named() -> None:
    context = step(network(), domains(), {"small": View(transforms=[RandomScaleCrop(size=(32, 32))])})
    with pytest.raises(InputError, match="crop to the same size"):
        ClassMix(view="small")(context)
    with pytest.raises(InputError, match="its images need label maps"):
        ClassMix(source_view=RAW)(context)
    with pytest.raises(InputError, match="name labelled images of the source domain"):
        ClassMix()(step(network(), images(), {}))


def test_most_patches_are_hidden_as_the_mean_colour() -> None:
    torch.manual_seed(0)
    drawn = hidden_patches(50, (60, 100), 16, 0.7)
    assert drawn.shape == (50, 60, 100) and drawn.float().mean() == pytest.approx(0.7, abs=0.03)
    assert torch.equal(drawn[:, :16, :16].flatten(1).float().mean(1), drawn[:, 0, 0].float())
    model = network()
    context = step(model, images(), {})
    loss = MaskedConsistency(patch=16, threshold=0.3)(context)["masked_loss"]
    masked = context.view(MASKED)
    normalised = model.pixel_norm(masked.images)
    hidden = (masked.images != context.view(RAW).images).any(1)
    assert 0.3 < hidden.float().mean() < 1 and not normalised.permute(0, 2, 3, 1)[hidden].any()
    assert loss.requires_grad and loss > 0
    assert MaskedConsistency(patch=16, threshold=1.0)(context)["masked_loss"].item() == 0


def proda(**changes: object) -> Adapting:
    """The first stage of ProDA on a small network."""
    labels = OnlineLabels(network="fixed")
    terms = [
        Supervision(), Prototypes(labels=labels, momentum=0.1), Spread(view="weak"), StructureConsistency(),
        PseudoLabels(labels=labels, view="strong"), ClassMix(looks_at=RAW), MaskedConsistency(patch=16, view="weak"), Distillation(view="strong"),
    ]

    class Student:
        def opens(self) -> None:
            return None

    model = segmenter(auxiliary=False, norm_affine=True)
    torch.manual_seed(1)
    torch.nn.init.normal_(model.head.branches[0].weight, std=0.05)  # type: ignore[union-attr, index]
    arguments: dict[str, object] = {
        "terms": terms, "optimizer": SGD(lr=1e-3, momentum=0.9), "teacher": MovingAverage(momentum=0.1), "views": views(), "fixed": Student(),
        "mode": "train", **changes,
    }
    return started(Adapting(model=model, **arguments))  # type: ignore[arg-type]


def test_the_same_state_gives_the_same_next_steps_with_every_term_together() -> None:
    def next_steps(learner: Adapting) -> list[dict[str, float]]:
        torch.manual_seed(7)
        return [learner.step(domains(seed=s)) for s in range(2)]

    first = proda()
    figures = first.step(domains(seed=9))
    assert {"seg_loss", "prototype_loss", "spread_loss", "structure_loss", "pseudo_label_loss", "class_mix_loss", "masked_loss",
            "distillation_loss"} <= set(figures)  # fmt: skip
    weights, state = state_of(first.model), copy.deepcopy(first.state_dict())
    assert state["terms"][1]["vectors"].shape[0] == 3
    expected = next_steps(first)
    second = proda()
    second.model.load_state_dict(weights)
    second.load_state_dict(state)
    assert next_steps(second) == expected
    for name, value in second.student.state_dict().items():
        assert torch.equal(value, first.student.state_dict()[name]), name


def test_the_teacher_can_be_in_training_mode_with_the_students_statistics() -> None:
    for mode, buffers in (("evaluate", "average"), ("train", "copy")):
        learner = proda(teacher_mode=mode, teacher=MovingAverage(momentum=0.1, buffers=buffers))  # type: ignore[arg-type]
        learner.step(domains())
        assert learner.teacher is not None and learner.teacher.training == (mode == "train")
        same = [torch.equal(b, dict(learner.student.named_buffers())[n]) for n, b in learner.teacher.named_buffers() if b.is_floating_point()]
        assert all(same) == (buffers == "copy")
    with pytest.raises(InputError, match="there is no teacher"):
        proda(teacher_mode="train", teacher=None)


def test_terms_without_their_outputs_say_so() -> None:
    model = classifier().eval()
    context = Context(model, frozen_copy(model), {RAW: images(), "weak": images()}, 0, frozen_copy(model))
    with pytest.raises(InputError, match="Prototypes reads embeddings, which ImageClassifier does not give"):
        Prototypes(labels=OnlineLabels())(context)
