"""The tear-down says what is so: shapes that were seen, parameters that are there, FLOPs that can be counted by hand, lines that exist."""
from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torchvision.transforms import v2

import saccade
from saccade.layers.pixels import PixelNorm
from saccade.models.contract import Model
from saccade.report.explanation import (
    Explanation,
    LoopLine,
    Setting,
    describe_output,
    follow_batch,
    follow_sample,
    loop_lines,
    loss_terms,
    where_written,
)
from saccade.report.explanation_view import parts, render, short, show
from saccade.structures import Annotations, Batch, Outputs, make_sample


class TwoLayers(Model):
    """8 x 8 pixels through a convolution that is used twice, and a frozen linear layer."""

    def __init__(self) -> None:
        super().__init__(("a", "b"), PixelNorm())
        self.backbone = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.head = nn.Linear(3, 2)
        self.head.requires_grad_(False)

    def forward(self, batch: Batch) -> Outputs:
        features = self.backbone(self.backbone(self.pixel_norm(batch.images)))
        return {"logits": self.head(features.mean((2, 3)))}

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"first": outputs["logits"].square().sum(), "second": 3 * outputs["logits"].square().sum()}


def test_modules_have_the_shapes_parameters_and_flops_that_one_counts_by_hand() -> None:
    model = TwoLayers()
    outputs, rows, total = follow_batch(model, model.example_batch((8, 8), batch_size=2))
    by_name = {row.name: row for row in rows}
    assert list(by_name) == ["", "pixel_norm", "backbone", "head"] and set(outputs) == {"logits"}
    convolution = by_name["backbone"]
    assert convolution.output == "2 x 3 x 8 x 8" and convolution.calls == 2 and convolution.parameters == 81
    assert convolution.flops == 2 * 2 * (2 * 8 * 8 * 3 * 27) and by_name["head"].flops == 2 * 2 * 3 * 2
    assert total == convolution.flops + by_name["head"].flops == by_name[""].flops
    assert by_name[""].output == "logits: 2 x 2" and by_name[""].trainable == 81 and by_name["head"].trainable == 0
    assert not model.backbone._forward_hooks


class InSlices(TwoLayers):
    """A sequence of which only parts are called, and a parameter that is handed to a module."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 3, 3, bias=False), nn.Conv2d(3, 3, 3, bias=False))  # type: ignore[assignment]
        self.query = nn.Parameter(torch.zeros(1, 3))

    def forward(self, batch: Batch) -> Outputs:
        features = self.backbone[1:](self.backbone[:1](self.pixel_norm(batch.images)))
        return {"logits": self.head(features.mean((2, 3))) + self.head(self.query)}


def test_a_sequence_that_is_called_in_parts_has_the_flops_of_its_parts() -> None:
    model = InSlices()
    with torch.no_grad():
        _, rows, total = follow_batch(model, model.example_batch((8, 8)))
    by_name = {row.name: row for row in rows}
    assert by_name["backbone"].flops == by_name["backbone.0"].flops + by_name["backbone.1"].flops == 2 * (6 * 6 + 4 * 4) * 3 * 27
    assert by_name["head"].calls == 2 and total == by_name["backbone"].flops + by_name["head"].flops
    assert model.query.requires_grad


def test_a_sample_is_described_after_every_transform() -> None:
    sample = make_sample(torch.full((3, 40, 60), 7, dtype=torch.uint8), Annotations(boxes=torch.tensor([[0.0, 0, 30, 20]]), labels=torch.tensor([1])))
    steps, last = follow_sample(sample, [v2.Resize([20, 20]), v2.RandomHorizontalFlip(p=1.0)], source=[])
    assert [s.name for s in steps] == ["list", "Resize", "RandomHorizontalFlip"] and last.size == (20, 20)
    first = {f[0]: f[1:] for f in steps[0].fields}
    assert first["image"] == ("uint8 Image", "3 x 40 x 60", "7 .. 7") and first["boxes"] == ("float32 BoundingBoxes", "1 x 4", "0 .. 30")
    assert {f[0]: f[2] for f in steps[1].fields}["image"] == "3 x 20 x 20" and steps[1].objects == 1
    assert "torchvision/transforms/v2" in steps[1].where


def test_where_written_leads_to_the_line() -> None:
    file, line = where_written(Model).rsplit(":", 1)
    source = Path(saccade.__file__).parents[1] / file
    assert source.read_text().splitlines()[int(line) - 1].startswith("class Model(")
    assert where_written(len) == ""


def test_loss_terms_have_their_shares() -> None:
    terms = loss_terms({"a": torch.tensor(1.0), "b": torch.tensor(3.0)})
    assert [(t.name, t.value, t.share) for t in terms] == [("a", 1.0, 0.25), ("b", 3.0, 0.75)]
    assert loss_terms({"a": torch.tensor(0.0)})[0].share == 0


def example_loop(steps: int) -> int:
    """Count."""
    total = 0
    for step in range(steps):
        if step % 2:
            total += step
    return total


def test_the_loop_is_shown_in_its_order_with_lines_that_exist() -> None:
    lines = loop_lines(example_loop)
    assert [(line.depth, line.text) for line in lines] == [
        (0, "total = 0"), (0, "for step in range(steps):"), (1, "if step % 2:"), (2, "total += step"), (0, "return total"),
    ]
    for line in lines:
        file, number = line.where.rsplit(":", 1)
        assert Path(file).read_text().splitlines()[int(number) - 1].strip() == line.text


@pytest.mark.parametrize(
    "output, text",
    [
        (torch.zeros(2, 3), "2 x 3"), (torch.tensor(1), "scalar"), ({"a": torch.zeros(1), "b": [torch.zeros(2), torch.zeros(3)]}, "a: 1, b: 2, b: 3"),
        ([torch.zeros(i) for i in range(6)], "0, 1, 2, 3, 2 more"), (None, ""),
    ],
)
def test_outputs_are_described_by_their_shapes(output: object, text: str) -> None:
    assert describe_output(output) == text


def explanation() -> Explanation:
    model = TwoLayers()
    batch = model.example_batch((8, 8))
    outputs, rows, flops = follow_batch(model, batch)
    return Explanation(
        "two <layers>", [Setting("model.type", "TwoLayers", "recipe.yaml:1")], [], rows, flops, 1, loss_terms(model.losses(outputs, batch)),
        loop=[LoopLine(1, "step()", "loop.py:3")], notes=["Town stands in"],
    )


def test_terminal_and_page_show_the_same(tmp_path: Path) -> None:
    text = io.StringIO()
    show(explanation(), Console(file=text, width=160), depth=1)
    page = render(explanation())
    for expected in ("model.type", "recipe.yaml:1", "Conv2d (x2)", "1 x 3 x 8 x 8", "75.0%", "loop.py:3", "Town stands in"):
        assert expected in text.getvalue() and expected in page, expected
    assert "two &lt;layers&gt;" in page and "http" not in page.replace("http-equiv", "")


def test_depth_limits_the_modules_shown() -> None:
    shown = {part.heading: part for part in parts(explanation(), depth=0)}
    assert len(shown["Modules down to level 0"].table.rows) == 1


def test_counts_are_short() -> None:
    assert [short(n) for n in (0, 999, 1000, 25_557_032, 4.1e9)] == ["0", "999", "1 k", "25.6 M", "4.1 G"]
