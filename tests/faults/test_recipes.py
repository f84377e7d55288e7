"""F9: recipes with mistakes or malice end with exit code 2 at once, name the place, execute nothing and create nothing."""
from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

CASES = {
    "unknown section": ("modle: {type: SSD}", ["r.yaml:1", "did you mean model"]),
    "unknown key": ("run: {stepz: 3}", ["r.yaml:1", "run.stepz", "steps"]),
    "wrong type": ("run: {steps: many}", ["r.yaml:1", "run.steps", "many", "steps"]),
    "wrong range": ("run: {steps: -5}", ["r.yaml:1", "run.steps", "greater than 0"]),
    "unknown class": ("learner: {type: Supervisd}", ["r.yaml:1", "Supervised"]),
    "python tag": ("run: !!python/object/apply:os.system ['touch created']", ["r.yaml:1", "tag"]),
    "duplicate key": ("run:\n  steps: 1\n  steps: 2", ["r.yaml:3", "second time", "r.yaml:2"]),
    "path upwards": ("base: ../../etc/passwd.yaml", ["r.yaml:1", "leaves the recipe's folder"]),
    "not yaml": ("run: [1, 2", ["r.yaml"]),
    "a list": ("- 1\n- 2", ["mapping"]),
    "alias bomb": (
        "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]",
        ["values"],
    ),
    "nested bomb": ("a: " + "[" * 500_000 + "]" * 500_000, ["characters"]),
    "deep nesting": ("a: " + "[" * 5_000 + "]" * 5_000, ["levels deep"]),
    "binary": ("\x00\x01\x02", ["r.yaml"]),
}


def computing_of_children() -> float:
    """Seconds of processor time, which other work on the machine does not stretch."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("name", CASES)
def test_a_bad_recipe_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    text, words = CASES[name]
    (tmp_path / "r.yaml").write_text(text)
    before, computed = sorted(tmp_path.rglob("*")), computing_of_children()
    done = subprocess.run(
        [sys.executable, "-m", "saccade", "recipe", "check", "r.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False
    )
    assert computing_of_children() - computed < 1.0
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert len(done.stderr) < 2_000
    assert sorted(tmp_path.rglob("*")) == before


def test_train_refuses_the_same_before_creating_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("run: {stepz: 3}")
    done = subprocess.run(
        [sys.executable, "-m", "saccade", "train", "r.yaml", "--out", "run"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "run.stepz" in done.stderr
    assert not (tmp_path / "run").exists()
