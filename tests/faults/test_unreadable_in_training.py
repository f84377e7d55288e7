"""F7, the run's side: broken pictures among the training data stop a run or are replaced, are listed, and never leave a process behind."""
from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import SlowSteps, end, in_process, in_ranks, losses, records, same, train, wait_until, weights

from saccade.data.formats.folders import ImageFolder
from saccade.data.loading import Loader
from saccade.engine.experiment import Experiment
from saccade.errors import DataError
from saccade.recipes import build, recipe_from_values
from saccade.report.page import write_page

BROKEN = {"bad/cut.jpg", "bad/cut.png", "bad/empty.jpg", "bad/missing.jpg", "bad/text.jpg"}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eleven readable pictures of every legal coding in two classes, and one of every kind of broken file."""
    folder = tmp_path / "pictures"
    (folder / "good").mkdir(parents=True)
    (folder / "bad").mkdir()
    photo = Image.fromarray(np.full((24, 40, 3), (200, 90, 40), dtype=np.uint8))
    good, exif = folder / "good", Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    photo.save(good / "plain.jpg")
    photo.save(good / "turned.jpg", exif=exif)
    photo.convert("CMYK").save(good / "print.jpg")
    photo.convert("P", palette=Image.Palette.ADAPTIVE).save(good / "palette.png")
    photo.convert("RGBA").save(good / "alpha.png")
    photo.convert("L").save(good / "grey.png")
    cv2.imwrite(str(good / "deep.png"), np.asarray(photo)[..., ::-1].astype(np.uint16) * 257)
    for name in ("a.bmp", "a.tiff", "a.webp", "named_wrongly.jpg"):
        photo.save(good / name, "PNG" if name.startswith("named") else None)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    for name in ("cut.jpg", "cut.png"):
        noise.save(folder / "bad" / name)
        content = (folder / "bad" / name).read_bytes()
        (folder / "bad" / name).write_bytes(content[: len(content) // 2])
    (folder / "bad" / "empty.jpg").write_bytes(b"")
    (folder / "bad" / "text.jpg").write_text("<html>404 Not Found</html>")
    (folder / "bad" / "missing.jpg").symlink_to(tmp_path / "nowhere.jpg")
    return folder


def values(folder: Path, **data: Any) -> dict[str, Any]:
    dataset = {"type": "ImageFolder", "root": str(folder)}
    resize = [{"type": "Resize", "size": [32, 32]}]
    return {
        "model": {"type": "ImageClassifier", "backbone": {"type": "LeNet5"}},
        "data": {"train": dataset, "evaluate": {"val": dataset}, "train_transforms": resize, "evaluation_transforms": resize, **data},
        "learner": {"type": "Supervised", "optimizer": {"type": "SGD", "lr": 0.01}},
        "metrics": [{"type": "ClassificationAccuracy"}],
        "run": {"steps": 8, "batch_size": 4, "save_every": 4, "log_every": 1},
    }


def run(folder: Path, recipe: dict[str, Any], resume: bool = False) -> None:
    """The run of a recipe; whatever its end, no data worker outlives it, even while the error is still at hand."""
    torch.set_num_threads(1)
    try:
        Experiment.from_recipe(recipe_from_values(recipe, "tiny", "test")).train(folder, resume=resume, accelerator="cpu")
    finally:
        assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_every_legal_coding_trains_and_every_broken_file_is_replaced(pictures: Path, workers: int) -> None:
    transforms = [build({"type": "Resize", "size": [32, 32]})]
    loader = Loader(dataset=ImageFolder(root=pictures), transforms=transforms, batch_size=4, workers=workers, unreadable=0.5)
    seen = set()
    for _, batch in zip(range(8), loader, strict=False):
        assert batch.images.shape == (4, 3, 32, 32) and batch.images.dtype == torch.uint8
        for image, meta in zip(batch.images, batch.metas, strict=True):
            seen.add(Path(str(meta.path)).name)
            assert meta.original_size == ((40, 24) if "turned" in str(meta.path) else (24, 40))
            if "grey" not in str(meta.path):
                assert image.float().mean((1, 2)).tolist() == pytest.approx([200, 90, 40], abs=12), meta.path
    loader.close()
    assert seen == {path.name for path in (pictures / "good").iterdir()}
    assert set(loader.skipped) == BROKEN
    assert all(name in reason for name, reason in loader.skipped.items())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_lists_what_it_skipped_and_so_does_its_report(pictures: Path, tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "run"
    assert end([in_process(run, folder, values(pictures, workers=workers, unreadable=0.5))]) == [0]
    listed = [json.loads((folder / place / "skipped.json").read_text()) for place in (".", "evaluation/val")]
    assert [set(each) for each in listed] == [BROKEN, BROKEN]
    page = write_page([folder], tmp_path / "report.html").read_text()
    assert all(name in page for name in BROKEN) and "training" in page


def test_a_resumed_run_lists_what_was_skipped_before_and_has_the_same_weights(pictures: Path, tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    recipe = values(pictures, unreadable=0.5)
    run(whole, recipe)
    run(folder, recipe)
    (folder / "skipped.json").unlink()
    (folder / "checkpoints" / "step_00000008" / "manifest.json").unlink()
    run(folder, recipe, resume=True)
    assert json.loads((folder / "skipped.json").read_text()) == json.loads((whole / "skipped.json").read_text())
    assert same(weights(folder), weights(whole))


def test_two_processes_list_what_either_skipped(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert end(in_ranks(run, folder, values(pictures, unreadable=0.5), stderr=tmp_path / "stderr")) == [0, 0]
    assert set(json.loads((folder / "skipped.json").read_text())) == BROKEN
    assert set(json.loads((folder / "evaluation" / "val" / "skipped.json").read_text())) == BROKEN


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("policy, said", [("raise", "/bad/"), (0.1, "more than the allowed fraction 0.1")])
def test_a_run_that_may_not_skip_ends_with_the_code_for_data_and_no_worker(
    pictures: Path, tmp_path: Path, policy: str | float, said: str, workers: int
) -> None:
    messages = tmp_path / "stderr"
    assert end([in_process(run, tmp_path / "run", values(pictures, unreadable=policy, workers=workers), stderr=messages)], timeout=60) == [3]
    assert said in messages.read_text().replace(str(pictures), "")
    assert (tmp_path / "run" / "skipped.json").exists() == (policy != "raise")


def test_an_evaluation_ends_its_workers_whether_it_succeeds_or_not(pictures: Path, tmp_path: Path) -> None:
    from saccade.engine.experiment import evaluate_on

    recipe = values(pictures, workers=2, unreadable=0.5)
    experiment = Experiment.from_recipe(recipe_from_values(recipe, "tiny", "test"))
    dataset = experiment.data.evaluate["val"]
    evaluate_on(experiment.model, dataset, experiment.data, experiment.metrics, tmp_path / "a", batch_size=4)
    assert not multiprocessing.active_children()
    assert set(json.loads((tmp_path / "a" / "skipped.json").read_text())) == BROKEN

    def fail(*_: object) -> None:
        raise DataError("planted")

    with pytest.raises(DataError, match="planted"):
        evaluate_on(experiment.model, dataset, experiment.data, experiment.metrics, tmp_path / "b", batch_size=4, observers=[fail])
    assert not multiprocessing.active_children()


def worker_of(process: int) -> int | None:
    """A child of that process."""
    children = Path(f"/proc/{process}/task/{process}/children")
    found = children.read_text().split() if children.exists() else []
    return int(found[0]) if found else None


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker in /proc")
def test_a_killed_data_worker_ends_the_run_with_a_message_and_not_a_hang(tmp_path: Path) -> None:
    folder, messages = tmp_path / "run", tmp_path / "stderr"
    process = in_process(train, folder, workers=1, callbacks=[SlowSteps(0.02)], run={"steps": 100_000}, stderr=messages)
    wait_until(lambda: max(losses(folder), default=0) >= 3, process)
    assert process.pid is not None
    worker = worker_of(process.pid)
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    assert end([process], timeout=30) == [3]
    assert "was ended from outside" in messages.read_text()
    assert records(folder)
