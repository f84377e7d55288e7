"""DACS and MIC from the command line: a network of the day, adapted to the town in fog."""
from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import records

from command_line import run
from saccade.recipes import load_recipe

SMALL = ["run.batch_size=2", "run.steps=2", "run.save_every=1", "run.log_every=1"]
SOURCE = ["data.train.size=64", "data.train.num_images=4", *(f"data.evaluate.{name}={{size: 64, num_images: 1}}" for name in ("day", "fog", "night"))]
TARGET = [f"data.{name}={{size: 64, num_images: 3}}" for name in ("source", "train", "evaluate.fog")]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixing") / "source"
    assert run("train", "deeplab_town", "--out", folder, "--accelerator", "cpu", *SMALL, *SOURCE) == 0
    return folder


@pytest.mark.parametrize("method, losses", [("dacs", {"class_mix_loss"}), ("mic", {"class_mix_loss", "masked_loss"})])
def test_a_method_that_mixes_adapts_a_network_of_the_day(source: Path, tmp_path: Path, method: str, losses: set[str]) -> None:
    assert run("adapt", f"{method}_town_fog", "--from", source, "--out", tmp_path / "run", "--accelerator", "cpu", *SMALL, *TARGET) == 0
    assert losses | {"seg_loss", "aux_seg_loss"} <= set(records(tmp_path / "run")[0])
    assert 0 <= records(tmp_path / "run", "evaluation")[-1]["fog/iou/mIoU"] <= 1
    assert (tmp_path / "run" / "teacher").is_dir()


def test_mic_is_dacs_and_one_term_more() -> None:
    for target in ("gta5_cityscapes", "synthia_cityscapes", "camvid_dusk", "town_night", "town_fog"):
        dacs, mic = (load_recipe(f"{method}_{target}") for method in ("dacs", "mic"))
        assert mic.section("learner")["terms"][:-1] == dacs.section("learner")["terms"]
        assert mic.section("learner")["terms"][-1]["type"] == "MaskedConsistency"
        assert (mic.section("data"), mic.section("model"), mic.section("run")) == (dacs.section("data"), dacs.section("model"), dacs.section("run"))
