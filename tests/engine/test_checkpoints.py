"""Checkpoints are complete or not there, hold plain data only, and are enough to build their model."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import saccade
from saccade.engine import checkpoints
from saccade.engine.checkpoints import (
    ModelCard,
    all_checkpoints,
    find_checkpoint,
    find_damage,
    load_model,
    load_training,
    newest_valid,
    point,
    pointed,
    purge,
    save_checkpoint,
)
from saccade.engine.launch import random_state, set_random_state
from saccade.errors import InputError, StorageError
from saccade.learning.layout import channels_last
from saccade.recipes import build

SPEC: dict[str, Any] = {"type": "ImageClassifier", "backbone": {"type": "LeNet5"}}
CLASSES = ("a", "b", "c")


def save(folder: Path, step: int) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(step)
    model = build(SPEC, classes=CLASSES)
    card = ModelCard(SPEC, CLASSES, [{"type": "Resize", "size": [32, 32]}], {"recipe": "test"})
    return save_checkpoint(folder, step, model.state_dict(), card, {"step": step, "random": random_state(torch.device("cpu"))}), model


@pytest.mark.parametrize("place", ["checkpoint", "run"])
def test_a_checkpoint_is_all_that_is_needed_to_predict_alike(tmp_path: Path, place: str) -> None:
    path, model = save(tmp_path / "checkpoints", 7)
    loaded = saccade.load(str(path if place == "checkpoint" else tmp_path))
    assert loaded.classes == CLASSES and not loaded.training
    assert loaded.evaluation_transforms == [{"type": "Resize", "size": [32, 32]}]  # type: ignore[comparison-overlap]
    batch = loaded.example_batch((32, 32))
    channels_last(model).eval()
    assert torch.equal(loaded(batch)["logits"], model(batch)["logits"])


def test_the_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    import random

    import numpy as np

    state = load_training(save(tmp_path, 1)[0])["random"]
    set_random_state(state, torch.device("cpu"))
    first = (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random())
    torch.rand(5), np.random.rand(5), random.random()
    set_random_state(state, torch.device("cpu"))
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == first


def test_the_best_comes_before_the_last(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    early, late = save(folder, 1)[0], save(folder, 2)[0]
    assert find_checkpoint(tmp_path) == late
    point(folder, "best", early)
    assert find_checkpoint(tmp_path) == early and pointed(folder, "last") == late
    assert (folder / "best").read_text() == "step_00000001\n"


def test_the_newest_and_the_best_survive_the_purge(tmp_path: Path) -> None:
    paths = [save(tmp_path, step)[0] for step in (1, 2, 3, 4)]
    purge(tmp_path, 2, paths[0])
    assert all_checkpoints(tmp_path) == [paths[0], paths[2], paths[3]]


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "no manifest", "broken manifest"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    whole, broken = save(tmp_path, 1)[0], save(tmp_path, 2)[0]
    weights, manifest = broken / checkpoints.WEIGHTS, broken / checkpoints.MANIFEST
    content = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(content[:-10])
    elif damage == "changed":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "missing":
        weights.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text("{")
    assert newest_valid(tmp_path) == whole
    assert "step_00000002 is damaged" in caplog.text
    assert find_damage(whole) is None


def test_loading_a_damaged_checkpoint_by_name_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)[0]
    content = (path / checkpoints.WEIGHTS).read_bytes()
    (path / checkpoints.WEIGHTS).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StorageError, match="damaged"):
        load_model(path)


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=str(path)):
            load_model(path)


def test_a_card_of_another_format_or_with_an_unknown_class_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)[0]
    card = json.loads((path / "model.json").read_text())
    for change, message in (({"format": 99}, "format 99"), ({"model": {"type": "os.system"}}, "no class")):
        (path / "model.json").write_text(json.dumps({**card, **change}))
        _seal(path)
        with pytest.raises(InputError, match=message):
            load_model(path)


def test_weights_of_another_model_are_refused_with_their_keys(tmp_path: Path) -> None:
    path = save(tmp_path, 1)[0]
    card = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps({**card, "classes": ["a", "b"]}))
    _seal(path)
    with pytest.raises(InputError, match=r"head\.fc"):
        load_model(path)


def _seal(path: Path) -> None:
    """Make the manifest agree with the files."""
    files = {n: {"size": (path / n).stat().st_size, "sha256": files_digest(path / n)} for n in ("model.safetensors", "model.json", "training.pt")}
    (path / "manifest.json").write_text(json.dumps({"format": 1, "files": files}))


def files_digest(path: Path) -> str:
    from saccade.engine.files import digest_of

    return digest_of(path)


def test_saving_needs_no_more_than_plain_data_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = save(tmp_path, 3)[0]
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "model.json", "model.safetensors", "training.pt"]
    torch.load(path / "training.pt", weights_only=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "step_00000003"]


def test_weights_that_share_memory_are_saved_whole(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    path = save_checkpoint(tmp_path, 1, {"a": base[:3], "b": base[3:], "c": base}, ModelCard({}, (), [], {}), {})
    loaded = checkpoints.load_tensors(path)
    assert loaded["b"].tolist() == [3.0, 4.0, 5.0] and loaded["c"].tolist() == base.tolist()


def test_a_spec_that_fetches_weights_does_not_do_so_when_a_checkpoint_is_opened() -> None:
    spec = {"type": "X", "backbone": {"type": "TimmBackbone", "name": "resnet18", "pretrained": True}}
    assert checkpoints.without_downloads(spec)["backbone"] == {"type": "TimmBackbone", "name": "resnet18", "pretrained": False}
