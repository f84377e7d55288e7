"""`saccade demo-detection`: every step leaves what the next one and the reader need."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import run

DOMAINS = ("day", "night", "fog", "rain", "sketch", "camera")
SHORT = ["run.steps=2", "run.evaluate_every=2", "run.save_every=2", "run.batch_size=2"] + [f"data.evaluate.{d}.num_videos=2" for d in DOMAINS]


def test_the_demo_trains_scores_every_domain_predicts_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo-detection", "--out", tmp_path / "demo", *SHORT) == 0
    said = capsys.readouterr().out
    assert all(f" {domain} " in said for domain in DOMAINS) and "report.html" in said
    for domain in DOMAINS:
        assert "voc/mAP" in json.loads((tmp_path / f"demo/evaluation/{domain}/figures.json").read_text())
    drawn = {p.name for p in (tmp_path / "demo/predictions").iterdir()}
    assert {"clip.mp4", "predictions.json", "day_0.jpg", "night_0.jpg"} <= drawn
    page = (tmp_path / "demo/report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and page.count("data:image") > 6
    assert run("demo-detection", "--out", tmp_path / "demo", *SHORT) == 2  # a folder with a run is not overwritten
