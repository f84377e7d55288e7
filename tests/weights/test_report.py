"""The tables of `saccade weights show`: statistics, filters, differences, and the command itself on real files."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from saccade.cli import main
from saccade.weights.compare import compare, counts
from saccade.weights.report import tensor_rows, totals

TENSORS = {
    "head.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    "head.bias": torch.tensor([float("nan"), 2.0]),
    "counter": torch.tensor(7),
    "empty": torch.zeros(0, 3),
    "half": torch.ones(5, dtype=torch.float16),
}


def test_statistics_are_those_of_the_finite_values() -> None:
    rows = {row.name: row for row in tensor_rows(TENSORS)}
    weight, bias, empty = rows["head.weight"], rows["head.bias"], rows["empty"]
    assert (weight.mean, weight.std, weight.minimum, weight.maximum) == (2.5, pytest.approx(1.25**0.5), 1.0, 4.0)
    assert bias.not_finite == 1 and bias.mean == 2.0
    assert empty.mean is None and empty.elements == 0 and rows["counter"].shape == () and rows["half"].dtype == "float16"


def test_totals_count_elements_bytes_and_broken_values() -> None:
    assert totals(tensor_rows(TENSORS)) == "5 tensors, 12 elements; 0.00 MB float32, 0.00 MB float16, 0.00 MB int64; 1 not finite"


@pytest.mark.parametrize(("patterns", "names"), [(["head"], 2), (["*.weight"], 1), (["counter", "half"], 2), (["absent"], 0), ([], 5)])
def test_filters_are_parts_of_names_or_patterns(patterns: list[str], names: int) -> None:
    assert len(tensor_rows(TENSORS, patterns)) == names


def test_differences_are_told_apart() -> None:
    left = {"same": torch.ones(2), "moved": torch.tensor([1.0, -4.0]), "cast": torch.ones(2), "grown": torch.ones(2), "gone": torch.ones(1)}
    right = {"same": torch.ones(2), "moved": torch.tensor([1.0, -3.0]), "cast": torch.ones(2).half(), "grown": torch.ones(3), "new": torch.ones(1)}
    rows = {row.name: row for row in compare(left, right)}
    assert {name: row.kind for name, row in rows.items()} == {
        "same": "equal", "moved": "values", "cast": "type", "grown": "shape", "gone": "only left", "new": "only right"
    }
    assert (rows["moved"].largest, rows["moved"].relative) == (1.0, 0.25)
    assert counts(list(rows.values()))["equal"] == 1
    assert {row.name: row.kind for row in compare(left, right, values=False)}["moved"] == "equal"


def test_nan_against_a_number_is_a_difference() -> None:
    (row,) = compare({"a": torch.tensor([float("nan")])}, {"a": torch.tensor([1.0])})
    assert row.kind == "values"


def test_the_command_lists_and_compares_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = {name: value for name, value in TENSORS.items() if name != "empty"}
    save_file(tensors, tmp_path / "a.safetensors")
    save_file(tensors | {"half": torch.zeros(5, dtype=torch.float16)}, tmp_path / "b.safetensors")
    with pytest.raises(SystemExit) as ended:
        main(["weights", "show", str(tmp_path / "a.safetensors"), "--filter", "head"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and "head.weight" in shown and "2 x 2" in shown and "half" not in shown and "2 tensors, 6 elements" in shown
    with pytest.raises(SystemExit):
        main(["weights", "show", str(tmp_path / "a.safetensors"), "--diff", str(tmp_path / "b.safetensors")])
    shown = capsys.readouterr().out
    assert "half" in shown and "head.weight" not in shown and "1 values" in shown


def test_the_command_says_what_a_broken_source_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["weights", "show", str(tmp_path / "absent.pth")])
    assert ended.value.code == 2 and "no file, folder or published checkpoint" in capsys.readouterr().err


def test_the_command_lists_what_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["weights", "list", "mobilenet"])
    shown = capsys.readouterr().out
    assert "lufficc/ssd320_mobilenet_v3_voc" in shown and "69.50 %" in shown and "vgg16" not in shown
