"""ProDA from the first stage to the last, whole and killed in the middle of stage 1: the same networks come out."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_run import end, in_process, kill, losses, records, same, stale_files, wait_until, weights

from saccade.adaptation.prototypes import read_prototypes
from saccade.engine.checkpoints import find_checkpoint, load_model, load_tensors, load_training, newest_valid
from saccade.engine.staged_folder import read_done
from saccade.recipes import check, load_recipe
from tiny_proda import proda, tiny_proda

STAGES = ["warm_up", "soft_labels", "prototypes", "stage1", "labels1", "stage2", "labels2", "stage3"]
TRAININGS = {"warm_up": 3, "stage1": 8, "stage2": 3, "stage3": 3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proda") / "run"
    assert end([in_process(proda, folder)], timeout=240) == [0]
    return folder


def test_eight_stages_leave_a_network_and_what_led_to_it(whole: Path) -> None:
    done = [read_done(whole / name) for name in STAGES]
    assert all(each is not None for each in done) and [each["stage"] for each in done if each] == list(range(1, 9))
    assert len(list((whole / "soft_labels").glob("*.safetensors"))) == 6
    for name in ("labels1", "labels2"):
        assert {kind: len(list((whole / name / kind).iterdir())) for kind in ("labels", "colours", "confidence")} == dict.fromkeys(
            ("labels", "colours", "confidence"), 6)
        assert (whole / name / "confidence.json").is_file()
    model = load_model(whole)
    assert same(load_tensors(find_checkpoint(whole)), weights(whole / "stage3"))
    assert read_prototypes(whole / "prototypes", model.classes).known.any()
    for name, steps in TRAININGS.items():
        figures = records(whole / name, "evaluation")
        assert [r["step"] for r in figures] == [steps] and 0 <= figures[-1]["night/iou/mIoU"] <= 1


def test_every_stage_learns_by_its_own_terms(whole: Path) -> None:
    first = {name: set(records(whole / name)[0]) for name in TRAININGS}
    assert all("seg_loss" in names for names in first.values())
    assert {"adversarial_loss", "discriminator_target_loss"} <= first["warm_up"]
    assert {"prototype_loss", "spread_loss", "structure_loss"} <= first["stage1"]
    assert all({"pseudo_label_loss", "distillation_loss"} <= first[name] for name in ("stage2", "stage3"))
    assert not same(weights(whole / "stage2"), weights(whole / "stage1"))


def test_a_run_killed_in_the_middle_of_stage_1_ends_with_the_weights_of_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = in_process(proda, folder, slow=True)
    wait_until(lambda: max(losses(folder / "stage1"), default=0) >= 5, process, timeout=200)
    kill(process)
    assert read_done(folder / "stage1") is None and not (folder / "stage2").exists()
    newest = newest_valid(folder / "stage1" / "checkpoints")
    assert newest is not None
    state = load_training(newest)["learner"]
    moved = state["terms"][2]["vectors"]
    assert not torch.equal(moved, read_prototypes(folder / "prototypes", load_model(whole).classes).vectors), "prototypes moved, and were saved"
    assert "other" in state, "the teacher is in the checkpoint"

    assert end([in_process(proda, folder, resume=True)], timeout=240) == [0]
    assert [r["step"] for r in records(folder / "stage1", "resume")] in ([4], [6])
    for name in TRAININGS:
        assert losses(folder / name) == losses(whole / name) and same(weights(folder / name), weights(whole / name)), name
    for name in ("soft_labels", "prototypes", "labels1", "labels2"):
        files = [file.relative_to(whole) for file in (whole / name).rglob("*") if file.suffix in (".safetensors", ".png")]
        assert files and all((whole / file).read_bytes() == (folder / file).read_bytes() for file in files), name
    assert not stale_files(folder)


@pytest.mark.parametrize("name", ["proda_town_night", "proda_town_fog", "proda_camvid_dusk", "proda_gta5_cityscapes", "proda_synthia_cityscapes"])
def test_recipes_of_all_domains_have_the_same_stages_and_no_mistakes(name: str) -> None:
    recipe = load_recipe(name)
    check(recipe)
    assert list(recipe.section("stages")) == STAGES


def test_published_settings_are_those_of_the_code() -> None:
    stages = load_recipe("proda_gta5_cityscapes").section("stages")
    one, two, three = (stages[name]["learner"] for name in ("stage1", "stage2", "stage3"))
    assert (one["optimizer"], one["schedule"]) == (
        {"type": "SGD", "lr": 1e-4, "momentum": 0.9, "weight_decay": 2e-4}, {"type": "Poly", "power": 0.9, "total_steps": 90000})
    assert one["teacher"]["momentum"] == 0.001 and "groups" not in one and one["mode"] == "train"
    assert (two["optimizer"]["lr"], two["groups"]) == (6e-4, {"head": {"lr": 10}}) == (three["optimizer"]["lr"], three["groups"])
    warm_up = stages["warm_up"]["learner"]
    assert warm_up["optimizer"]["lr"] == 2.5e-4 and warm_up["terms"][1]["weight"] == 0.01 and warm_up["terms"][1]["loss"] == "ls"
    assert stages["labels1"]["task"] == {"type": "WriteLabels", "kind": "hard", "flip": True, "threshold": 0.95}
    classes = {"proda_gta5_cityscapes": 19, "proda_synthia_cityscapes": 16}
    for name, number in classes.items():
        stages = load_recipe(name).section("stages")
        weight = next(term["weight"] for term in stages["stage1"]["learner"]["terms"] if term["type"] == "StructureConsistency")
        assert weight == pytest.approx(10 / number, rel=1e-2)
        assert stages["stage2"]["learner"]["terms"][2]["weight"] == pytest.approx(1 / number, rel=1e-2)
    assert tiny_proda().section("stages")["stage1"]["run"]["steps"] == 8
