"""What terms can read beside the target: the source domain with its labels, a network that never changes, a student in training mode."""
from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import RandomHorizontalFlip

from adapting_learners import started, state_of, tent
from saccade.adaptation.adapting import Adapting
from saccade.adaptation.context import SOURCE, Context
from saccade.adaptation.objective import Objective
from saccade.adaptation.term import Term
from saccade.adaptation.terms.entropy import Entropy
from saccade.adaptation.terms.supervision import Supervision
from saccade.adaptation.views import View, make_views
from saccade.engine.checkpoints import ModelCard, save_checkpoint
from saccade.engine.fixed_network import FixedNetwork
from saccade.errors import InputError
from saccade.layers.normalization import batch_norms
from saccade.learning.optimizers import SGD
from saccade.models.classifier import ImageClassifier
from saccade.models.contract import Model
from saccade.structures import Annotations
from small_networks import classifier, domains, images, segmenter


class Agreement(Term):
    """The student's logits stay those of the fixed network."""

    def __call__(self, context: Context) -> dict[str, Tensor]:
        ours, theirs = (context.outputs(which, "raw")["logits"] for which in ("student", "fixed"))  # type: ignore[arg-type]
        assert not theirs.requires_grad
        return {"agreement_loss": (ours - theirs).square().mean()}


def with_fixed(fixed: FixedNetwork | None = None, model: Model | None = None, **changes: object) -> Adapting:
    """A classifier that grows surer but stays near a fixed network."""
    arguments: dict[str, object] = {"terms": [Entropy(), Agreement()], "optimizer": SGD(lr=0.1), "fixed": fixed or FixedNetwork(), **changes}
    return started(Adapting(model=model or classifier(), **arguments))  # type: ignore[arg-type]


def saved(model: Model, folder: Path) -> Path:
    """A checkpoint of `model`."""
    card = ModelCard({"type": "ImageClassifier", "backbone": {"type": "TimmBackbone", "name": "resnet10t"}}, model.classes, [], {})
    return save_checkpoint(folder, 1, model.state_dict(), card, {"step": 1})


def test_the_source_is_seen_with_its_labels_and_the_target_without() -> None:
    batch = domains(2)
    assert batch.source is not None
    batch.targets = [Annotations(segmentation=torch.zeros(64, 64, dtype=torch.uint8)) for _ in range(2)]
    views = {"flipped": View(after=SOURCE, transforms=[RandomHorizontalFlip(p=1.0)]), "student": View(transforms=[RandomHorizontalFlip(p=1.0)])}
    made = make_views(views, batch, None)
    assert made[SOURCE] is batch.source
    for before, after in zip(batch.source.targets, made["flipped"].targets, strict=True):
        assert before.segmentation is not None and after.segmentation is not None
        assert torch.equal(before.segmentation.flip(-1), after.segmentation)
    assert all(target.segmentation is None for name in ("raw", "student") for target in made[name].targets)
    with pytest.raises(InputError, match=r"views.flipped comes after the source, but the data has none"):
        make_views(views, images(), None)


def test_parts_of_a_batch_have_parts_of_the_source() -> None:
    def learner() -> Adapting:
        return started(Adapting(model=segmenter(), terms=[Supervision(), Entropy()], optimizer=SGD(lr=0.1)))

    whole, parts = domains(2), domains(2)
    assert whole.source is not None and parts.source is not None
    for target in whole.source.targets:
        target.segmentation = target.segmentation.clamp(max=2)  # type: ignore[union-attr]  # every pixel counts, so both images count alike
    pieces = []
    for index in range(2):
        piece = whole.select(index, index + 1)
        piece.source = whole.source.select(index, index + 1)
        pieces.append(piece)
    one, two = learner(), learner()
    ours, theirs = one.step(whole), two.step(*pieces)
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_the_fixed_network_stays_what_the_student_was() -> None:
    learner = with_fixed()
    before = state_of(learner.student)
    for seed in range(3):
        learner.step(images(2, seed=seed))
    assert learner.fixed is not None and all(torch.equal(value, before[name]) for name, value in learner.fixed.state_dict().items())
    assert not learner.fixed.training and not any(p.requires_grad for p in learner.fixed.parameters())
    assert any(not torch.equal(value, before[name]) for name, value in learner.student.state_dict().items())


def test_a_resumed_run_has_the_fixed_network_of_its_beginning() -> None:
    whole = with_fixed()
    whole.step(images(2))
    weights, state = state_of(whole.student), copy.deepcopy(whole.state_dict())
    torch.manual_seed(5)
    fresh = ImageClassifier(classes=["a", "b", "c"], backbone=copy.deepcopy(classifier().backbone))
    resumed = with_fixed(model=fresh)
    resumed.student.load_state_dict(weights)
    resumed.load_state_dict(state)
    for seed in range(1, 4):
        assert whole.step(images(2, seed=seed)) == resumed.step(images(2, seed=seed))


def test_a_fixed_network_from_a_checkpoint_is_built_from_its_card_and_not_saved_again(tmp_path: Path) -> None:
    other = classifier()
    with torch.no_grad():
        other.head.fc.weight.add_(1.0)
    learner = with_fixed(FixedNetwork(checkpoint=str(saved(other, tmp_path))))
    assert learner.fixed is not None and "fixed" not in learner.state_dict() and "fixed" in with_fixed().state_dict()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in learner.fixed.state_dict().items())
    assert learner.step(images(2))["agreement_loss"] > 0
    strangers = ImageClassifier(classes=["x", "y", "z"], backbone=classifier().backbone)
    with pytest.raises(InputError, match=r"other classes than the student: x, y, z against a, b, c"):
        with_fixed(FixedNetwork(checkpoint=str(saved(strangers, tmp_path / "strangers"))))
    with pytest.raises(InputError, match="no checkpoint"):
        with_fixed(FixedNetwork(checkpoint=str(tmp_path / "nothing")))


def test_a_term_that_reads_a_network_which_is_not_there_says_how_to_get_it() -> None:
    with pytest.raises(InputError, match=r"fixed: \{type: FixedNetwork\}"):
        started(Adapting(model=classifier(), terms=[Agreement()], optimizer=SGD(lr=0.1))).step(images(2))
    with pytest.raises(InputError, match="no fixed network"):
        tent().network("fixed")


@pytest.mark.parametrize("mode", ["evaluate", "train"])
def test_the_mode_says_whether_dropout_draws_and_norms_move(mode: str) -> None:
    model = ImageClassifier(classes=["a", "b", "c"], backbone=classifier().backbone, dropout=0.5)
    learner = started(Adapting(model=model, terms=[Entropy()], optimizer=SGD(lr=1e-9), mode=mode))  # type: ignore[arg-type]
    mean = next(iter(batch_norms(model).values())).running_mean
    assert mean is not None
    before = mean.clone()
    losses = {learner.step(images(4))["entropy_loss"] for _ in range(2)}
    assert (len(losses) == 2, not torch.equal(mean, before)) == ((True, True) if mode == "train" else (False, False))
    model.eval()  # as an evaluation between two steps leaves it
    learner.step(images(4))
    assert model.training == (mode == "train")


@pytest.mark.parametrize(("norm", "moves"), [("batch", True), ("eval", False)])
def test_norms_move_in_training_mode_unless_the_network_keeps_them(norm: str, moves: bool) -> None:
    """AdaptSegNet and ADVENT move them with fixed scales; the warm-up of ProDA does not (segmentation_adaptation.md 1.8)."""
    model = segmenter(norm=norm)
    learner = started(Adapting(model=model, terms=[Supervision()], optimizer=SGD(lr=1e-3), mode="train"))
    before = state_of(model)
    learner.step(domains(1))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any("running_mean" in name for name in changed) == moves
    norms = {f"{path}.{leaf}" for path, norm in batch_norms(model).items() for leaf in ("weight", "bias")}
    assert norms and not norms & changed and any(name.startswith("head.") for name in changed)


def test_the_student_trains_while_teacher_and_fixed_network_do_not() -> None:
    student, teacher, fixed = segmenter(), segmenter(), segmenter()
    Objective(student, teacher, [Entropy()], {}, None, 1, fixed=fixed, mode="train")(images())
    assert (student.training, teacher.training, fixed.training) == (True, False, False)
