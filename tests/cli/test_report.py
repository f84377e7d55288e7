"""`saccade report`: where the page goes, and what is no run."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that has only just begun."""
    (tmp_path / "young").mkdir()
    record = {"kind": "train", "step": 10, "epoch": 0.1, "time": 1.0, "loss": 3.25, "lr": 0.1}
    (tmp_path / "young" / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    return tmp_path / "young"


def test_one_run_gets_its_page_in_its_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", folder) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert "3.25 at 10" in (folder / "report.html").read_text()


def test_several_runs_get_a_page_of_their_own(folder: Path, tmp_path: Path) -> None:
    assert run("report", folder, folder, "--out", tmp_path / "new" / "both.html") == 0
    assert (tmp_path / "new" / "both.html").is_file() and not (folder / "report.html").exists()


def test_what_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", tmp_path / "nothing") == 2
    assert "nothing is not a folder" in capsys.readouterr().err
