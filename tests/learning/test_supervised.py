"""One step of supervised learning: the update, its parts, and what it refuses."""
from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.engine.launch import import_fabric
from saccade.errors import NumericError
from saccade.layers.pixels import PixelNorm
from saccade.learning.contract import Learner
from saccade.learning.optimizers import SGD, AdamW
from saccade.learning.schedules import MultiStep
from saccade.learning.supervised import Supervised
from saccade.models.contract import Model
from saccade.structures import Annotations, Batch, Meta, Outputs, Prediction


class Linear(Model):
    """Predicts the mean of the label from the mean colour; losses are means over the batch."""

    def __init__(self) -> None:
        super().__init__(("a",), PixelNorm())
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)

    def forward(self, batch: Batch) -> Outputs:
        return {"value": self.layer(batch.images.float().mean((2, 3)) / 255)[:, 0]}

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        error = outputs["value"] - torch.tensor([float(t.label or 0) for t in batch.targets])
        return {"squared": error.square().mean(), "absolute": 0.5 * error.abs().mean()}

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        return []


def batch(first: int, count: int) -> Batch:
    draw = torch.Generator().manual_seed(first)
    images = torch.randint(0, 256, (count, 3, 4, 4), generator=draw, dtype=torch.uint8)
    return Batch(images, [Annotations(label=(first + i) % 3) for i in range(count)], [Meta("set", first + i) for i in range(count)])


def joined(*parts: Batch) -> Batch:
    return Batch(torch.cat([p.images for p in parts]), [t for p in parts for t in p.targets], [m for p in parts for m in p.metas])


def learner(precision: Any = "32-true", total: int = 10, plugins: Any = None, **settings: Any) -> Supervised:
    made = Supervised(**{"model": Linear(), "optimizer": SGD(lr=0.1), **settings})
    fabric = import_fabric()(accelerator="cpu", devices=1, precision=None if plugins else precision, plugins=plugins)
    made.setup(fabric, total, 5)
    return made


def test_a_learner_is_what_the_loop_expects() -> None:
    assert isinstance(learner(), Learner)


def test_the_step_is_torchs_own() -> None:
    ours = learner(optimizer=SGD(lr=0.1, momentum=0.9), clip_norm=0.05)
    plain = Linear()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    for step in range(4):
        figures = ours.step(batch(step, 6))
        loss = sum(plain.losses(plain(batch(step, 6)), batch(step, 6)).values())
        assert isinstance(loss, Tensor)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
        optimizer.step()
        optimizer.zero_grad()
        assert figures["loss"] == pytest.approx(loss.item()) and figures["grad_norm"] == pytest.approx(float(norm))
        assert figures["loss"] == pytest.approx(figures["squared"] + figures["absolute"]) and figures["lr"] == 0.1
    for mine, theirs in zip(ours.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_accumulated_parts_are_one_batch() -> None:
    whole, parts = learner(), learner()
    a = whole.step(joined(batch(0, 3), batch(10, 3)))
    b = parts.step(batch(0, 3), batch(10, 3))
    assert a == pytest.approx(b)
    for mine, theirs in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_schedule_moves_every_group_by_its_own_rate() -> None:
    made = learner(schedule=MultiStep(milestones=[1]), groups={"bias": {"lr": 2.0}})
    assert made.step(batch(0, 2))["lr"] == 0.1
    assert [g["lr"] for g in made._optimizer.param_groups] == pytest.approx([0.1, 0.2])
    assert made.step(batch(0, 2))["lr"] == pytest.approx(0.01)
    assert [g["lr"] for g in made._optimizer.param_groups] == pytest.approx([0.01, 0.02])


def test_the_state_continues_the_run() -> None:
    whole = learner(optimizer=AdamW(lr=0.1), schedule=MultiStep(milestones=[3]))
    for step in range(2):
        whole.step(batch(step, 4))
    resumed = learner(optimizer=AdamW(lr=0.1), schedule=MultiStep(milestones=[3]))
    resumed.model.load_state_dict(whole.model.state_dict())
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for step in range(2, 6):
        assert whole.step(batch(step, 4)) == resumed.step(batch(step, 4))
    for mine, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("label", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused_before_the_update(label: float) -> None:
    made = learner()
    made.step(batch(0, 2))
    before = copy.deepcopy(made.model.state_dict())
    bad = batch(7, 2)
    bad.targets[1].label = label  # type: ignore[assignment]
    with pytest.raises(NumericError, match=r"step 2.*squared.*set/7, set/8"):
        made.step(bad)
    assert all(torch.equal(before[k], v) for k, v in made.model.state_dict().items())


def test_bf16_trains_close_to_fp32_with_whole_weights() -> None:
    exact, mixed = learner(), learner("bf16-mixed")
    for step in range(5):
        a, b = exact.step(batch(step, 6)), mixed.step(batch(step, 6))
        assert b["loss"] == pytest.approx(a["loss"], rel=0.05)
    assert all(p.dtype == torch.float32 for p in mixed.model.parameters())


def test_an_overflow_of_the_fp16_loss_scale_costs_the_update_and_not_the_run() -> None:
    from lightning_fabric.plugins.precision import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    made = learner(plugins=MixedPrecision("16-mixed", "cpu", scaler), clip_norm=1.0)
    exact = learner(clip_norm=1.0)
    for step in range(3):
        assert made.step(batch(step, 6))["loss"] == pytest.approx(exact.step(batch(step, 6))["loss"], rel=0.05)
    before = copy.deepcopy(made.model.state_dict())
    scaler.update(2.0**127)
    far = batch(5, 6)
    far.targets[0].label = 1000
    figures = made.step(far)
    assert not torch.isfinite(torch.tensor(figures["grad_norm"]))
    assert all(torch.equal(before[k], v) for k, v in made.model.state_dict().items())
    assert scaler.get_scale() < 2.0**127
    assert made.state_dict()["scaler"]["scale"] == scaler.get_scale()


def test_a_gradient_that_overflows_again_and_again_ends_the_run() -> None:
    from lightning_fabric.plugins.precision import MixedPrecision

    made = learner(plugins=MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10, backoff_factor=0.999)))
    made.model.layer.weight.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[operator]
    for step in range(24):
        made.step(batch(step, 2))
    with pytest.raises(NumericError, match=r"gradient of layer\.weight"):
        made.step(batch(24, 2))
