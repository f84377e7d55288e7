"""`saccade demo` with settings of seconds: every step leaves its run, and the report holds the table and the video."""
from __future__ import annotations

import base64
import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

from command_line import run
from saccade.cli.demo import RUNS, _in_a_sentence
from saccade.data.media import VideoReader
from saccade.engine.checkpoints import find_checkpoint
from saccade.report.sections import MethodResult, methods_table
from saccade.weights.load import read_tensors

SHORT = (
    "run.steps=2", "run.batch_size=2", "data.evaluate.day.num_videos=1", "data.evaluate.day.frames_per_video=3", "tent.run.steps=1",
    "darth.run.steps=1", "oracle.run.steps=1", "oracle.run.batch_size=2", "darth.data.train.num_videos=2", "darth.data.train.frames_per_video=3",
)
ROWS = ("source", "source, not adapted", "TENT", "DARTH, offline", "DARTH, online (prequential)", "oracle, with labels")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished demo, and what it said."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "120")
        said = io.StringIO()
        with redirect_stdout(said):
            assert run("demo", "--target", "night", "--out", folder, *SHORT) == 0
    return folder, said.getvalue()


def test_every_step_leaves_an_ordinary_run(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    for name in RUNS:
        assert (folder / name / "recipe.yaml").is_file() and (folder / name / "metrics.jsonl").is_file(), name
        assert "mot/HOTA" in json.loads((folder / name / "evaluation" / "night" / "figures.json").read_text()), name
    assert sorted(p.name for p in (folder / "source" / "evaluation").iterdir()) == ["day", "night"]
    assert find_checkpoint(folder / "darth" / "student") and len((folder / "darth_online" / "frames.jsonl").read_text().splitlines()) == 6


def test_all_are_tested_on_the_same_data_and_start_from_the_source(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    recipes = {name: yaml.safe_load((folder / name / "recipe.yaml").read_text()) for name in RUNS}
    tested = [recipe["data"]["evaluate"]["night"] for recipe in recipes.values()]
    assert all(spec == tested[0] for spec in tested) and tested[0]["num_videos"] == 2
    assert recipes["darth_online"]["data"]["train"] == tested[0]
    weights = find_checkpoint(folder / "source") / "model.safetensors"
    assert all(Path(recipes[name]["weights"]["source"]) == weights.resolve() for name in RUNS[1:])
    source, oracle = read_tensors(weights), read_tensors(find_checkpoint(folder / "oracle") / "model.safetensors")
    moved = max(float((oracle[name].float() - source[name].float()).abs().max()) for name in source if "running" not in name and "num_b" not in name)
    assert 0 < moved < 0.01  # one careful step away from the source


def test_the_table_has_a_row_for_each_model(demo: tuple[Path, str]) -> None:
    folder, said = demo
    lines = [" ".join(line.split()) for line in said.splitlines()]
    at = [next(i for i, line in enumerate(lines) if line.startswith(f"{row} {'day' if row == 'source' else 'night'} ")) for row in ROWS]
    assert at == sorted(at) and all(re.search(r"( \d+\.\d){5}$", lines[i]) for i in at)
    assert "HOTA DetA AssA MOTA IDF1" in said.replace("   ", " ").replace("  ", " ")
    assert re.search(r"report: .*report\.html  \(\d+ s in all\)", said) and str(folder) in said


def test_the_report_holds_the_table_and_plays_the_video_from_within(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    page = (folder / "report.html").read_text()
    assert (folder / "report.html").stat().st_size < 15e6 and all(row in page for row in ROWS)
    film = re.search(r'<video controls muted loop [^>]*poster="data:image/jpeg;base64,[^"]+" src="data:video/mp4;base64,([^"]+)">', page)
    assert film is not None and base64.b64decode(film[1]) == (folder / "side_by_side.mp4").read_bytes()
    assert "media-src data:" in page and "http://" not in page.replace("http://www.w3.org", "") and (folder / "side_by_side.jpg").is_file()
    assert len(list(VideoReader(folder / "side_by_side.mp4"))) == 6
    codec = b"avc1"  # H.264, which browsers play
    assert codec in (folder / "side_by_side.mp4").read_bytes()


def test_a_folder_with_a_run_and_wrong_overrides_are_refused(demo: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = demo
    assert run("demo", "--out", folder, *SHORT) == 2
    assert "already holds a run" in " ".join(capsys.readouterr().err.split())
    assert run("demo", "--out", tmp_path / "demo", *SHORT, "darth.run.stepz=1") == 2  # before anything is trained
    assert "stepz" in capsys.readouterr().err and not (tmp_path / "demo").exists()


def test_the_best_of_those_without_labels_is_marked_and_the_gap_told() -> None:
    hota = {"source": 0.5, "before": 0.1, "tent": 0.2, "darth": 0.3, "online": float("nan"), "oracle": 0.5}
    results = [MethodResult(name, "fog", {"mot/HOTA": value}, name not in ("source", "oracle")) for name, value in hota.items()]
    table = methods_table(results, ("HOTA",))
    assert table.marked == {(3, 2)} and [row[2] for row in table.rows] == ["50.0", "10.0", "20.0", "30.0", "–", "50.0"]
    words = _in_a_sentence(results, "in fog")
    assert "of 50.0 there and of 10.0 in fog" in words and "reaches 30.0, 50% of the way" in words
    assert "of the way" not in _in_a_sentence(results[:5] + results[1:2], "in fog")
