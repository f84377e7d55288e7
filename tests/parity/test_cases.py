"""Every reference case that is kept here gives the reference's outputs."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from check_case import check, compare, swap_equal_scores

CASES = sorted(path.parent for path in (Path(__file__).parent / "cases").glob("*/case.json"))


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_outputs_equal_the_reference(folder: Path) -> None:
    results = check(folder)
    assert results, f"{folder.name} compares nothing"
    assert not [str(r) for r in results if not r.passed]
    compared = {r.name for r in results}
    stated = {n for n in json.loads((folder / "case.json").read_text())["outputs"] if not n.startswith("in_")}
    assert stated - compared == set(), "outputs without a golden"


def _case(**spec: Any) -> dict[str, Any]:
    return {"tolerance": {"absolute": 1e-4, "relative": 1e-4}, "outputs": {"x": {"shape": [4], **spec}}}


def test_a_deviation_beyond_the_tolerance_is_a_miss() -> None:
    golden = np.array([0, 1, 2, 100], np.float32)
    assert compare("x", golden + np.float32(9e-5), golden, _case()).passed
    assert not compare("x", golden + np.array([2e-4, 0, 0, 0], np.float32), golden, _case()).passed
    assert compare("x", golden + np.array([0, 0, 0, 9e-3], np.float32), golden, _case()).passed
    assert not compare("x", golden + np.array([5e-5, 0, 0, 0], np.float32), golden, _case(absolute=1e-5)).passed


def test_nan_infinity_absence_and_other_shapes_are_misses() -> None:
    golden = np.ones(4, np.float32)
    for value in (np.full(4, np.nan), np.full(4, np.inf), None, np.ones(3), np.ones((4, 1))):
        assert not compare("x", value, golden, _case()).passed


def test_integers_must_be_equal_but_for_the_fraction_named() -> None:
    golden, last_off = np.array([1, 2, 3, 4], np.int32), np.array([0, 0, 0, 1])
    assert compare("x", golden.astype(np.int64), golden, _case()).passed
    assert not compare("x", golden + last_off, golden, _case()).passed
    assert not compare("x", golden + 0.5, golden, _case()).passed
    assert compare("x", golden + last_off, golden, _case(mismatch=0.25)).passed


def test_full_outputs_are_strided_as_the_golden_is() -> None:
    value = np.arange(7, dtype=np.float32)
    case = {"tolerance": {"absolute": 0, "relative": 0}, "outputs": {"x": {"shape": [7], "stride": [3], "stored_shape": [3]}}}
    assert compare("x", value, value[::3], case).passed
    assert compare("x", value[::3], value[::3], case).passed
    assert not compare("x", value[:3], value[::3], case).passed


def test_only_detections_of_equal_scores_may_swap() -> None:
    golden = {"det_scores": np.array([0.9, 0.5000001, 0.5, 0.2]), "det_labels": np.array([3, 7, 8, 1]), "det_boxes": np.arange(16.0).reshape(4, 4)}
    swapped = {name: value[[0, 2, 1, 3]] for name, value in golden.items()}
    assert all(np.array_equal(value, golden[name]) for name, value in swap_equal_scores(swapped, golden).items() if name != "det_scores")
    moved = {name: value[[1, 0, 2, 3]] for name, value in golden.items()}
    assert swap_equal_scores(moved, golden)["det_labels"].tolist() == [7, 3, 8, 1]
