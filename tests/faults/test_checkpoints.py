"""F10: checkpoints that are hostile, broken or of another model are refused with a clear message, and nothing in them is executed."""
from __future__ import annotations

import argparse
import os
import pickle
import sys
import tarfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from saccade.errors import InputError
from saccade.weights.load import load_into, read_tensors
from saccade.weights.pickles import load_pickle


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


class HostileBuiltin:
    """Evaluates an expression when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.mark)!r}, 'w')",)


@pytest.mark.parametrize("hostile", [Hostile, HostileBuiltin])
@pytest.mark.parametrize("layout", ["zip", "old", "pickle", "old pickle"])
def test_a_malicious_pickle_is_refused_by_name_and_not_run(tmp_path: Path, hostile: type, layout: str) -> None:
    path, mark = tmp_path / "model.pth", tmp_path / "mark"
    content = {"state_dict": {"weight": torch.ones(2)}, "extra": hostile(mark)}
    if "pickle" in layout:
        path.write_bytes(pickle.dumps(content["extra"], protocol=2 if layout.startswith("old") else 4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=layout == "zip")
    with pytest.raises(InputError, match=r"system|eval") as caught:
        read_tensors(path)
    assert str(path) in str(caught.value) and "weights_only" not in str(caught.value)
    assert not mark.exists()


def test_a_hostile_class_under_an_allowed_name_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, module = tmp_path / "mark", types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __setstate__(self, state: Any) -> None:
            mark.touch()

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    HistoryBuffer.__getstate__ = lambda self: {"values": np.arange(3.0)}  # type: ignore[attr-defined]
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    torch.save({"state_dict": {"weight": torch.ones(2)}, "message_hub": {"loss": HistoryBuffer()}}, tmp_path / "mm.pth")
    assert list(read_tensors(tmp_path / "mm.pth")) == ["weight"]
    assert not mark.exists()


def test_settings_and_numbers_of_published_files_are_read(tmp_path: Path) -> None:
    content = {
        "model": {"weight": torch.ones(2)},
        "args": argparse.Namespace(lr=1e-4, output_dir=Path("outputs")),
        "best": np.float64(0.5),
        "history": np.arange(4),
    }
    for new_format in (True, False):
        torch.save(content, tmp_path / "detr.pth", _use_new_zipfile_serialization=new_format)
        found = load_pickle(tmp_path / "detr.pth")
        assert found["best"] == 0.5 and found["history"].tolist() == [0, 1, 2, 3] and found["args"].state["lr"] == 1e-4
        assert list(read_tensors(tmp_path / "detr.pth")) == ["weight"]


@pytest.mark.parametrize("size", [0, 3, 100, 100_000])
def test_random_bytes_are_no_checkpoint(tmp_path: Path, size: int) -> None:
    path = tmp_path / "noise.pth"
    path.write_bytes(np.random.default_rng(size).bytes(size))
    with pytest.raises(InputError, match=r"noise\.pth"):
        read_tensors(path)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_cut_torch_files_are_damaged(tmp_path: Path, new_format: bool, share: float) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"weight": torch.randn(1000)}, path, _use_new_zipfile_serialization=new_format)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"cut\.pth"):
        read_tensors(path)


@pytest.mark.parametrize("kept", [4, 20, 200, -1])
def test_cut_safetensors_are_damaged(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.safetensors"
    save_file({"first": torch.randn(100), "second": torch.randn(100)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="damaged safetensors"):
        read_tensors(path)


def test_a_safetensors_header_that_promises_too_much_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "liar.safetensors"
    path.write_bytes((1 << 62).to_bytes(8, "little") + b'{"weight": 1}')
    with pytest.raises(InputError, match="damaged safetensors"):
        read_tensors(path)


def test_tar_files_of_old_torch_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(InputError, match="tar checkpoint"):
        read_tensors(tmp_path / "old.pth")


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"state_dict": {}}, 3.0])
def test_a_checkpoint_without_weights_says_what_it_holds(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "empty.pth")
    with pytest.raises(InputError, match="holds no weights"):
        read_tensors(tmp_path / "empty.pth")


def test_a_wrong_architecture_gets_the_whole_table_and_changes_nothing() -> None:
    target, other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2)), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(3, 3))
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_into(target, other.state_dict(), origin="saccade")
    message = str(caught.value)
    for row in ("2.weight", "0.weight: 4x3 in the file, 4x3x3x3 in the model", "1.bias: 3 in the file, 2 in the model"):
        assert row in message
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())
