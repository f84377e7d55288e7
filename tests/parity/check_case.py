"""Compares this project with stored reference outputs: `python tests/parity/check_case.py CASE_DIR...`.

A case says what was computed (`case.json`) and what came out (`golden.npz`); a runner of `runners/` computes the same with saccade. Floats agree when
|got - golden| <= absolute + relative * |golden| (an output's own numbers before the case's), integers when they are equal, but for the fraction
that an output names as `mismatch`, or within the numbers of their own that they have. Prints one line an output with its largest deviation, and
exits with 1 when anything misses.
"""
from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
if importlib.util.find_spec("saccade") is None:
    sys.path.insert(0, str(HERE.parents[1] / "src"))

EQUAL_SCORES = 3e-6
Run = Callable[[Path, dict[str, Any]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Comparison:
    """One output beside its golden: the largest deviation, and that over what is allowed there (a miss above 1)."""

    name: str
    passed: bool
    deviation: float
    of_tolerance: float
    note: str = ""

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "MISS"
        return f"{verdict} {self.name:<32} largest deviation {self.deviation:.3g} ({self.of_tolerance:.3g} of the tolerance){self.note}"


def find_runner(case: dict[str, Any]) -> Run:
    """The run function of the first runner that knows `case`; files whose name begins the case's name are asked first."""
    names = sorted((m.name for m in pkgutil.iter_modules([str(HERE / "runners")])), key=lambda n: (not case["case"].startswith(n), n))
    for name in names:
        for matches, run in importlib.import_module(f"runners.{name}").RUNNERS:
            if matches(case):
                return run
    raise LookupError(f"no runner knows the case {case['case']!r}; asked: {', '.join(names)}")


def check(folder: Path) -> list[Comparison]:
    """Run the case in `folder` and compare every output that it stores."""
    case = json.loads((folder / "case.json").read_text())
    golden = np.load(folder / "golden.npz")
    got = swap_equal_scores(find_runner(case)(folder, case), golden)
    given = {*case.get("inputs", {}), *case.get("stored_inputs", {})}
    names = [n for n in case["outputs"] if n in golden.files and not n.startswith("in_") and (n not in given or n in got)]
    return [compare(name, got.get(name), golden[name], case) for name in names]


def swap_equal_scores(got: dict[str, np.ndarray], golden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`got` with detections (`det_*`) of practically equal scores in the golden's order: rounding decides which of them comes first."""
    names = [n for n in golden if n.startswith("det_") and n in got and got[n].shape == golden[n].shape]
    if "det_scores" not in names:
        return got
    scores = golden["det_scores"]
    order = np.arange(len(scores))
    for run in np.split(order, np.flatnonzero(np.abs(np.diff(scores)) > EQUAL_SCORES) + 1):
        rows = [(got[n][run, None].astype(float), golden[n][None, run]) for n in names]
        cost = sum(np.abs(a - b).reshape(len(run), len(run), -1).sum(2) for a, b in rows)
        mine, theirs = linear_sum_assignment(cost)
        order[run[theirs]] = run[mine]
    return got | {n: got[n][order] for n in names}


def compare(name: str, got: np.ndarray | None, golden: np.ndarray, case: dict[str, Any]) -> Comparison:
    """One output against its golden; `got` may be full or already strided."""
    if got is None:
        return Comparison(name, False, float("inf"), float("inf"), ": the runner does not give it")
    spec = case["outputs"][name]
    value = _as_stored(np.asarray(got), spec, case.get("kept_rows", {}).get(name))
    if value.shape != golden.shape:
        return Comparison(name, False, float("inf"), float("inf"), f": shape {value.shape}, expected {golden.shape}")
    if golden.dtype.kind != "f" and "absolute" not in spec:
        wrong = float((value != golden).mean()) if golden.size else 0.0
        allowed = spec.get("mismatch", 0.0)
        ratio = wrong / allowed if allowed else (float("inf") if wrong else 0.0)
        return Comparison(name, wrong <= allowed, wrong, ratio, ", the fraction of integers that differ")
    absolute, relative = (spec.get(k, case["tolerance"][k]) for k in ("absolute", "relative"))
    with np.errstate(invalid="ignore"):
        difference = np.abs(value.astype(np.float64) - golden)
        allowed = absolute + relative * np.abs(golden.astype(np.float64))
    difference = np.where((value == golden) | (np.isnan(value) & np.isnan(golden)), 0.0, difference)
    difference = np.where(np.isnan(difference), np.inf, difference)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.where(difference == 0, 0.0, difference / allowed).max(initial=0.0))
    return Comparison(name, ratio <= 1, float(difference.max(initial=0.0)), ratio)


def _as_stored(value: np.ndarray, spec: dict[str, Any], kept: Sequence[int] | None) -> np.ndarray:
    if kept is not None:
        value = value[: kept[0]]
    stride = spec.get("stride")
    if stride is None or (list(value.shape) == spec.get("stored_shape") and list(value.shape) != spec["shape"]):
        return value
    return value[tuple(slice(None, None, step) for step in stride)]


def main(folders: Iterable[str]) -> int:
    """Check every folder; 0 when all outputs agree, 1 otherwise."""
    paths, misses = [Path(folder) for folder in folders], 0
    if not paths:
        print(__doc__)
        return 2
    for path in paths:
        try:
            results = check(path)
        except LookupError as error:
            print(f"{path.name}: {error}")
            misses += 1
            continue
        bad = [r for r in results if not r.passed]
        misses += len(bad) or (not results)
        worst = max(results, key=lambda r: r.of_tolerance, default=None)
        print(f"{path.name}: {len(results) - len(bad)} of {len(results)} outputs agree" + (f"; worst: {worst.name}" if worst else ""))
        print("\n".join(f"  {r}" for r in results), flush=True)
    return 1 if misses else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
