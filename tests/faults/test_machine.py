"""What a machine may be like: folders that take no file, a clock that is wrong, one core or an unknown number, no network."""
from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_run import end, in_process, records, run_to_end, same, train, weights

from command_line import run as code_of
from saccade.cli import main
from saccade.data.media import VideoWriter

CLASSIFIER = """
model: {type: ImageClassifier, backbone: {type: LeNet5}}
data:
  train: {type: TownClassification, size: 32, num_images: 8}
  evaluate: {val: {type: TownClassification, split: val, size: 32, num_images: 4}}
  evaluation_transforms: [{type: Resize, size: [32, 32]}]
learner: {type: Supervised, optimizer: {type: SGD, lr: 0.01}}
metrics: [{type: ClassificationAccuracy}]
run: {steps: 2, batch_size: 4}
"""
DETECTOR = """
base: [ssd_town]
model: {backbone: {name: resnet10t, extra_channels: [32], options: {channels: [8, 16, 24, 32]}}, image_size: 64}
data:
  train: {num_videos: 8, size: 64}
  evaluate: !delete
  evaluation_transforms: [{type: Resize, size: [64, 64]}]
run: {steps: 2, batch_size: 4, best: null, evaluate_every: null, save_every: null}
"""


def command(*words: str, prepare: Callable[[], object] = lambda: None) -> None:
    """`saccade words...`, in the tests' process or one of its own."""
    prepare()
    main(list(words))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a tiny classifier, with the recipe and a picture beside it."""
    folder = tmp_path_factory.mktemp("machine")
    (folder / "tiny.yaml").write_text(CLASSIFIER)
    Image.new("RGB", (40, 30), (90, 30, 200)).save(folder / "a.jpg")
    assert end([in_process(command, "train", str(folder / "tiny.yaml"), "--out", str(folder / "run"), "--accelerator", "cpu")]) == [0]
    return folder


def words_for(what: str, trained: Path, out: Path) -> list[str]:
    return {
        "train": ["train", str(trained / "tiny.yaml"), "--out", str(out), "--accelerator", "cpu"],
        "evaluate": ["evaluate", str(trained / "run"), "--out", str(out), "--device", "cpu"],
        "predict": ["predict", str(trained / "run"), str(trained / "a.jpg"), "--out", str(out), "--device", "cpu"],
        "report": ["report", str(trained / "run"), "--out", str(out / "report.html")],
        "make": ["data", "make", "town", "--out", str(out), "--format", "coco", "--size", "64"],
    }[what]


# Permissions do not bind root, so the places are those where no one can make a folder.
@pytest.mark.parametrize("place", ["below a file", "read-only"])
@pytest.mark.parametrize("what", ["train", "evaluate", "predict", "report", "make"])
def test_a_folder_that_takes_no_file_is_an_error_of_storage(
    what: str, place: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    out = tmp_path / "file" / "out" if place == "below a file" else Path("/proc/saccade")
    if place == "read-only" and not Path("/proc/self").exists():
        pytest.skip("needs /proc, where even root can't make folders")
    before = sorted(trained.rglob("*"))
    assert code_of(*words_for(what, trained, out)) == 5
    said = capsys.readouterr().err
    assert str(out) in said and "defect" not in said and "Traceback" not in said
    assert sorted(trained.rglob("*")) == before


def test_a_folder_of_predictions_is_written_again_and_a_run_is_not(trained: Path, tmp_path: Path) -> None:
    assert [code_of(*words_for("predict", trained, tmp_path / "out")) for _ in range(2)] == [0, 0]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg", "images.json", "predictions.csv", "predictions.json"]
    assert code_of(*words_for("train", trained, trained / "run")) == 2


def shifted_clock(seconds: float) -> None:
    """From here on this process believes that it is `seconds` later."""
    before = time.time
    time.time = lambda: before() + seconds


def train_with_shifted_clock(folder: Path, seconds: float, **named: Any) -> None:
    shifted_clock(seconds)
    train(folder, **named)


@pytest.mark.parametrize("seconds", [3.0e9, -6.0e8], ids=["ahead", "behind"])
def test_a_wrong_clock_changes_neither_which_checkpoint_is_the_newest_nor_the_result(tmp_path: Path, seconds: float) -> None:
    whole, folder, run = tmp_path / "whole", tmp_path / "run", {"steps": 20}
    run_to_end(whole, run=run)
    assert end([in_process(train_with_shifted_clock, folder, seconds, run=run)]) == [0]
    shutil.rmtree(folder / "checkpoints" / "step_00000020")
    future = time.time() + 4.0e8
    for path in [folder / "metrics.jsonl", folder / "checkpoints" / "step_00000010", *(folder / "checkpoints" / "step_00000010").iterdir()]:
        os.utime(path, (future, future))
    assert end([in_process(train_with_shifted_clock, folder, -seconds, run=run, resume=True)]) == [0]
    assert [r["step"] for r in records(folder, "resume")] == [15]
    assert same(weights(folder), weights(whole))
    assert code_of("report", str(folder), "--out", str(tmp_path / "report.html")) == 0


def train_on_one_core(folder: Path, known: bool, **named: Any) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["OMP_NUM_THREADS"] = "1"
    if not known:
        os.cpu_count = lambda: None
    train(folder, **named)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system can't confine a process to one core")
@pytest.mark.parametrize("known", [True, False], ids=["one core", "unknown number of cores"])
def test_more_workers_than_cores_give_the_same_run(tmp_path: Path, known: bool) -> None:
    whole, folder, run = tmp_path / "whole", tmp_path / "run", {"steps": 10}
    run_to_end(whole, run=run)
    assert end([in_process(train_on_one_core, folder, known, workers=3, run=run)]) == [0]
    assert same(weights(folder), weights(whole))


class NoNetwork:
    """Every attempt to reach another machine, or to look up its name, fails and is written to the file `attempts`."""

    def __init__(self, attempts: Path) -> None:
        self.attempts = attempts

    def __call__(self) -> None:
        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            asks_for_name = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
            connects = event in ("socket.connect", "socket.sendto") and arguments[0].family != socket.AF_UNIX
            if asks_for_name or connects:
                with self.attempts.open("a") as file:
                    file.write(f"{event} {arguments[1:] if connects else arguments}\n")
                raise OSError("there is no network here")

        sys.addaudithook(audit)


def connect_somewhere() -> None:
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)
    except OSError as error:
        logging.info("refused: %s", error)


def test_the_check_itself_sees_an_attempt(tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    assert end([in_process(_probe, NoNetwork(attempts))]) == [0]
    assert "192.0.2.1" in attempts.read_text()


def _probe(prepare: Callable[[], object]) -> None:
    prepare()
    connect_somewhere()


def test_nothing_tries_the_network(tmp_path: Path) -> None:
    attempts, recipe, run = tmp_path / "attempts", tmp_path / "tiny.yaml", tmp_path / "run"
    recipe.write_text(DETECTOR)
    Image.new("RGB", (40, 30), (90, 30, 200)).save(tmp_path / "a.jpg")
    with VideoWriter(tmp_path / "film.mp4", Fraction(5)) as film:
        for number in range(3):
            film.write(np.full((32, 32, 3), 80 * number, dtype=np.uint8))
    for words in (
        ["--help"], ["list", "recipes"], ["recipe", "check", "ssd300_vgg16_voc"], ["weights", "list"],
        ["train", str(recipe), "--out", str(run), "--accelerator", "cpu"],
        ["train", str(run), "--resume", "--accelerator", "cpu"],
        ["predict", str(run), str(tmp_path / "a.jpg"), str(tmp_path / "film.mp4"), "--out", str(tmp_path / "out"), "--device", "cpu"],
        ["report", str(run)],
        ["explain", str(recipe)],
    ):
        log = tmp_path / "stderr"
        codes = end([in_process(command, *words, prepare=NoNetwork(attempts), stderr=log)])
        assert codes == [0], f"{words}: {log.read_text()}"
    assert not attempts.exists(), attempts.read_text()
