"""A student and its opponents learn in the published order, from the same passes, and go on where they were stopped."""
from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapting_learners import started, state_of
from saccade.adaptation.adapting import Adapting
from saccade.adaptation.terms.adversarial import Adversarial
from saccade.adaptation.terms.supervision import Supervision
from saccade.errors import InputError
from saccade.layers.discriminator import Discriminator
from saccade.learning.gradients import NotFiniteError
from saccade.learning.optimizers import SGD, Adam
from saccade.learning.schedules import Poly
from saccade.models.contract import Model
from saccade.ops.class_maps import resize_maps, self_information
from saccade.structures import Batch
from small_networks import classifier, domains, segmenter

LAMBDAS = {"aux_logits": 0.02, "logits": 0.1}


def adversary(output: str = "logits", **changes: object) -> Adversarial:
    """A small discriminator."""
    arguments: dict[str, object] = {
        "output": output, "weight": LAMBDAS[output], "discriminator": Discriminator(channels=8), "optimizer": Adam(lr=1e-3, betas=(0.9, 0.99)),
        "schedule": Poly(power=0.9, total_steps=10), **changes,
    }
    return Adversarial(**arguments)  # type: ignore[arg-type]


def two_players(accumulate: int = 1, outputs: Sequence[str] = ("aux_logits", "logits"), student: Model | None = None, **changes: object) -> Adapting:
    """AdaptSegNet with two levels, small."""
    torch.manual_seed(1)
    learner = Adapting(
        model=student or segmenter(), terms=[Supervision(), *(adversary(output, **changes) for output in outputs)], mode="train",
        optimizer=SGD(lr=1e-3, momentum=0.9, weight_decay=5e-4), schedule=Poly(power=0.9, total_steps=10), groups={"head": {"lr": 10.0}},
    )
    return started(learner, accumulate)


def in_the_published_order(student: Model, judges: dict[str, nn.Module], steps: Sequence[Sequence[Batch]], maps: str, loss: str, halve: bool) -> None:
    """The steps of AdaptSegNet's and ADVENT's training scripts (segmentation_adaptation.md 4.1), written out."""
    def gan(answer: Tensor, domain: float) -> Tensor:
        truth = torch.full_like(answer, domain)
        return F.binary_cross_entropy_with_logits(answer, truth) if loss == "bce" else F.mse_loss(answer, truth)

    def seen(logits: Tensor, batch: Batch) -> Tensor:
        probabilities = resize_maps(logits, (batch.images.shape[-2], batch.images.shape[-1])).softmax(1)
        return probabilities if maps == "softmax" else self_information(probabilities)

    student.train()
    heads = [p for n, p in student.named_parameters() if not n.startswith("backbone.") and p.requires_grad]
    backbone = [p for n, p in student.named_parameters() if n.startswith("backbone.") and p.requires_grad]
    mover = torch.optim.SGD([{"params": backbone, "lr": 1e-3}, {"params": heads, "lr": 1e-2}], momentum=0.9, weight_decay=5e-4)
    movers = {output: torch.optim.Adam(judge.parameters(), lr=1e-3, betas=(0.9, 0.99)) for output, judge in judges.items()}
    for number, parts in enumerate(steps):
        decay = (1 - number / 10) ** 0.9
        for optimizer, rates in ((mover, (1e-3, 1e-2)), *((m, (1e-3,)) for m in movers.values())):
            optimizer.zero_grad()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * decay
        for part in parts:
            assert part.source is not None
            for judge in judges.values():
                judge.requires_grad_(False)
            source = student(part.source)
            (sum(student.losses(source, part.source).values()) / len(parts)).backward()  # type: ignore[union-attr]
            target = student(part)
            adversarial = sum(LAMBDAS[output] * gan(judges[output](seen(target[output], part)), 0) for output in judges)
            (adversarial / len(parts)).backward()  # type: ignore[union-attr]
            for output, judge in judges.items():
                judge.requires_grad_(True)
                for outputs, batch, domain in ((source, part.source, 0.0), (target, part, 1.0)):
                    (gan(judge(seen(outputs[output].detach(), batch)), domain) / (2 if halve else 1) / len(parts)).backward()
        mover.step()
        for optimizer in movers.values():
            optimizer.step()


@pytest.mark.parametrize(
    ("maps", "loss", "halve", "count"), [("softmax", "bce", True, 1), ("self_information", "bce", True, 2), ("softmax", "ls", False, 1)],
)
def test_a_step_is_that_of_the_published_scripts(maps: str, loss: str, halve: bool, count: int) -> None:
    learner = two_players(count, maps=maps, loss=loss, halve=halve)
    student = copy.deepcopy(learner.student)
    judges = {output: copy.deepcopy(o.network) for output, o in zip(("aux_logits", "logits"), learner.opponents, strict=True)}
    steps = [[domains(1, seed=10 * step + part) for part in range(count)] for step in range(3)]
    before = state_of(student)
    for parts in steps:
        learner.step(*parts)
    in_the_published_order(student, judges, steps, maps, loss, halve)
    for name, value in student.state_dict().items():
        torch.testing.assert_close(learner.student.state_dict()[name], value, rtol=0, atol=1e-6, msg=name)
    for own, judge in zip(learner.opponents, judges.values(), strict=True):
        for name, value in judge.state_dict().items():
            torch.testing.assert_close(own.network.state_dict()[name], value, rtol=0, atol=1e-6, msg=name)
    moved = [name for name, value in student.state_dict().items() if not torch.equal(value, before[name])]
    assert any("running_mean" in name for name in moved) and any(name.startswith("aux_head") for name in moved)


def test_nobody_gets_gradients_from_the_others_phase() -> None:
    learner, batch = two_players(), domains(1)
    learner._inner.gradients(batch)
    assert all(p.grad is None for opponent in learner.opponents for p in opponent.network.parameters())
    students = {name: p.grad.clone() for name, p in learner.student.named_parameters() if p.grad is not None}
    assert any(gradient.any() for gradient in students.values())
    for opponent in learner.opponents:
        opponent.gradients(batch)
    assert all(p.grad is not None and p.grad.any() for opponent in learner.opponents for p in opponent.network.parameters())
    for name, p in learner.student.named_parameters():
        assert (p.grad is None) == (name not in students) and (p.grad is None or torch.equal(p.grad, students[name]))


def test_the_adversary_moves_target_maps_towards_the_source() -> None:
    learner = two_players(outputs=["logits"])
    alone = two_players(outputs=["logits"], weight=0.0)
    for step in range(2):
        figures, without = learner.step(domains(1, seed=step)), alone.step(domains(1, seed=step))
    assert figures["adversarial_loss"] > 0 and without["adversarial_loss"] == 0
    assert not torch.equal(learner.student.head.branches[0].weight, alone.student.head.branches[0].weight)  # type: ignore[union-attr, index]


def test_the_state_goes_on_bit_for_bit() -> None:
    whole = two_players()
    whole.step(domains(1, seed=1))
    weights, state = state_of(whole.student), copy.deepcopy(whole.state_dict())
    resumed = two_players(student=segmenter())
    for opponent in resumed.opponents:
        nn.init.zeros_(opponent.network.convs[0].weight)  # type: ignore[union-attr, index, arg-type]
    resumed.student.load_state_dict(weights)
    resumed.load_state_dict(state)
    for seed in range(2, 5):
        assert whole.step(domains(1, seed=seed)) == resumed.step(domains(1, seed=seed))
    for own, other in zip(whole.opponents, resumed.opponents, strict=True):
        assert all(torch.equal(value, other.network.state_dict()[name]) for name, value in own.network.state_dict().items())
        assert own.learner.steps == other.learner.steps == 4
    assert all(torch.equal(value, resumed.student.state_dict()[name]) for name, value in whole.student.state_dict().items())


def test_what_is_not_finite_for_an_opponent_stops_the_student_too() -> None:
    learner = two_players(outputs=["logits"])
    student = {name: p.detach().clone() for name, p in learner.student.named_parameters()}
    with torch.no_grad():
        learner.opponents[0].network.convs[-1].bias.fill_(1e30)  # type: ignore[union-attr, index]
    learner.opponents[0]._side._losses = lambda network, source, target: {"discriminator_loss": network(source).square().mean() * 1e30}
    with pytest.raises(NotFiniteError, match="discriminator_loss"):
        learner.step(domains(1))
    assert all(torch.equal(p, student[name]) for name, p in learner.student.named_parameters())


def test_figures_and_groups_tell_the_players_apart() -> None:
    learner = two_players()
    figures = learner.step(domains(1))
    assert {"seg_loss", "aux_seg_loss", "adversarial_loss", "aux_adversarial_loss", "discriminator_source_loss", "aux_discriminator_target_loss",
            "discriminator_lr", "aux_discriminator_grad_norm", "lr", "grad_norm"} <= set(figures)
    assert figures["loss"] == pytest.approx(sum(figures[n] for n in ("seg_loss", "aux_seg_loss", "adversarial_loss", "aux_adversarial_loss")))
    assert [(g.name, g.lr) for g in learner.parameter_groups()] == [
        ("all others", 1e-3), ("head", 1e-2), ("aux_discriminator", 1e-3), ("discriminator", 1e-3)]


def test_what_can_not_be_played_is_refused() -> None:
    with pytest.raises(InputError, match=r"no view 'source'.*data\.source"):
        two_players().step(Batch(domains(1).images, domains(1).targets, domains(1).metas))
    with pytest.raises(InputError, match="two terms have the opponent discriminator"):
        two_players(outputs=["logits", "logits"])
    with pytest.raises(InputError, match="nobody to play against"):
        Adapting(model=segmenter(), terms=[adversary()], optimizer=SGD(lr=1.0), trainable="nothing")
    with pytest.raises(InputError, match="Adversarial reads maps"):
        two_players(outputs=["logits"], student=classifier()).step(_labelled())


def _labelled() -> Batch:
    batch = domains(2)
    assert batch.source is not None
    for target in batch.source.targets:
        target.label = 0
    return batch


def test_a_loss_scale_is_shared_and_an_overflow_costs_both_players_the_step() -> None:
    from lightning_fabric.plugins.precision import MixedPrecision

    from saccade.engine.launch import import_fabric

    def players() -> Adapting:
        torch.manual_seed(1)
        return Adapting(model=segmenter(), terms=[Supervision(), adversary(optimizer=SGD(lr=0.1))], mode="train", optimizer=SGD(lr=1e-3))

    def weights(learner: Adapting) -> list[Tensor]:
        return [p.detach().clone() for p in (*learner.student.parameters(), *learner.opponents[0].network.parameters())]

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    mixed, exact = players(), started(players())
    mixed.setup(import_fabric()(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler)), 10, 5)
    start = weights(exact)
    for seed in range(2):
        mixed.step(domains(1, seed=seed))
        exact.step(domains(1, seed=seed))
    for ours, theirs, before in zip(weights(mixed), weights(exact), start, strict=True):
        # Half precision blurs the way; a player that missed a step would be half of it off.
        assert (ours - theirs).norm() <= 0.25 * (theirs - before).norm() + 1e-7
    scaler.update(2.0**127)
    still = weights(mixed)
    figures = mixed.step(domains(1))
    assert not torch.isfinite(torch.tensor([figures["grad_norm"], figures["discriminator_grad_norm"]])).any()
    assert all(torch.equal(a, b) for a, b in zip(still, weights(mixed), strict=True)) and scaler.get_scale() < 2.0**127
