"""F10, saccade's own checkpoints: a run folder from a stranger, or one that was tampered with, is refused with a message and runs nothing."""
from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_run import CLASSES, end, in_process, run_to_end, tiny_recipe, train

import saccade
from saccade.cli import main
from saccade.engine.checkpoints import CARD, MANIFEST, TRAINING, WEIGHTS
from saccade.engine.experiment import build_model
from saccade.engine.files import digest_of
from saccade.errors import InputError, SaccadeError
from saccade.recipes import build_section, recipe_from_values


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    run_to_end(folder, run={"steps": 5})
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def checkpoint_of(run: Path) -> Path:
    return run / "checkpoints" / "step_00000005"


def replace(run: Path, name: str, content: bytes) -> None:
    """Put another file into the checkpoint, with a manifest that agrees with it."""
    path, manifest = checkpoint_of(run) / name, checkpoint_of(run) / MANIFEST
    path.write_bytes(content)
    stated = json.loads(manifest.read_text())
    stated["files"][name] = {"size": len(content), "sha256": digest_of(path)}
    manifest.write_text(json.dumps(stated))


def pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


STATES: dict[str, Callable[[Path], bytes]] = {
    "malicious": lambda mark: pickled({"step": 5, "learner": Hostile(mark)}),
    "random bytes": lambda mark: os.urandom(5000),
    "empty": lambda mark: b"",
    "cut off": lambda mark: pickled({"weight": torch.ones(1000)})[:2000],
}


@pytest.mark.parametrize("what", STATES)
def test_a_foreign_training_state_is_refused_and_not_run(run: Path, tmp_path: Path, what: str) -> None:
    mark, messages = tmp_path / "mark", tmp_path / "stderr"
    replace(run, TRAINING, STATES[what](mark))
    assert end([in_process(train, run, resume=True, run={"steps": 10}, stderr=messages)]) == [2]
    assert TRAINING in messages.read_text()
    assert not mark.exists()
    assert tuple(saccade.load(run).classes) == CLASSES, "the weights are not touched by it"


@pytest.mark.parametrize("content", [b"", b"\x80\x04cos\nsystem\n", os.urandom(3000), (1 << 40).to_bytes(8, "little") + b"{}"])
def test_weights_that_are_no_safetensors_are_refused(run: Path, content: bytes) -> None:
    replace(run, WEIGHTS, content)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        saccade.load(run)


@pytest.mark.parametrize("kind", ["os:system", "builtins.eval", "subprocess.Popen", "saccade.recipes:load_recipe", "../../evil", 7, None])
def test_a_card_can_name_only_what_the_table_holds(run: Path, kind: object, capsys: pytest.CaptureFixture[str]) -> None:
    card = json.loads((checkpoint_of(run) / CARD).read_text())
    card["model"]["backbone"] = {"type": kind, "args": ["touch mark"]}
    replace(run, CARD, json.dumps(card).encode())
    Image.new("RGB", (8, 8)).save(run / "a.jpg")
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(run), str(run / "a.jpg"), "--out", str(run / "out")])
    assert ended.value.code == 2
    assert "model.json: model.backbone: there is no class" in capsys.readouterr().err and not (run / "out").exists()
    with pytest.raises(SaccadeError):
        saccade.load(run)
    assert not list(run.rglob("mark"))


def test_another_number_of_classes_needs_the_heads_named_and_says_what_is_drawn_anew(run: Path) -> None:
    values = tiny_recipe().values
    source = {"source": str(run), "into": ""}
    with pytest.raises(InputError, match=r"heads.*`reinitialise`"):
        build_model(recipe_from_values({**values, "weights": source}, "tiny", "test"), ("a", "b", "c", "d", "e"))
    recipe = recipe_from_values({**values, "weights": {**source, "reinitialise": ["heads"]}}, "tiny", "test")
    model = build_model(recipe, ("a", "b", "c", "d", "e"), load_weights=False)
    said = build_section(recipe, "weights").fill(model)
    before = load_file(checkpoint_of(run) / WEIGHTS)
    renewed = [key for key, value in model.state_dict().items() if value.shape != before[key].shape]
    assert renewed and all(key.startswith(model.head_keys()) for key in renewed)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items() if key not in renewed)
    assert all(key in said for key in renewed) and "drawn anew" in said


@pytest.mark.parametrize("change", ["missing", "extra", "half precision", "other shape"])
def test_weights_that_differ_are_reported_by_key_and_half_precision_is_taken(run: Path, tmp_path: Path, change: str) -> None:
    tensors = load_file(checkpoint_of(run) / WEIGHTS)
    name = next(key for key, value in tensors.items() if value.ndim == 4)
    if change == "missing":
        del tensors[name]
    elif change == "extra":
        tensors["extra.weight"] = torch.ones(3)
    elif change == "other shape":
        tensors[name] = tensors[name][:, :, :1].contiguous()
    else:
        tensors = {key: value.half() for key, value in tensors.items()}
    save_file(tensors, tmp_path / "changed.safetensors")
    recipe = recipe_from_values({**tiny_recipe().values, "weights": {"source": str(tmp_path / "changed.safetensors")}}, "tiny", "test")
    if change == "half precision":
        model = build_model(recipe, CLASSES)
        assert all(value.dtype == torch.float32 for value in model.parameters())
        torch.testing.assert_close(model.state_dict()[name], tensors[name].float())
        return
    with pytest.raises(InputError) as caught:
        build_model(recipe, CLASSES)
    assert ("extra.weight" if change == "extra" else name) in str(caught.value)
