"""`saccade weights convert`, `show --diff` and `export` on a real model: there and back again, and through onnxruntime."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from saccade.cli import main
from saccade.recipes import build
from saccade.weights.load import read_tensors

SPEC = {"type": "ImageClassifier", "backbone": {"type": "TimmBackbone", "name": "resnet18"}}
RECIPE = """\
model: {type: ImageClassifier, classes: [a, b, c], backbone: {type: TimmBackbone, name: resnet18, pretrained: true}}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and weights of its model in mmclassification's layout, written by the command itself."""
    folder = tmp_path_factory.mktemp("convert")
    (folder / "small.yaml").write_text(RECIPE)
    torch.manual_seed(0)
    torch.save({"state_dict": build(SPEC, classes=["a", "b", "c"]).state_dict()}, folder / "own.pth")
    run(["weights", "convert", str(folder / "own.pth"), "--to", "mmcls", "--recipe", str(folder / "small.yaml"), "--out", str(folder / "mmcls.pth")])
    return folder


def run(words: list[str], code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == code


def test_a_layout_and_back_is_the_same_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = torch.load(files / "mmcls.pth", weights_only=True)["state_dict"]
    assert "backbone.layer1.0.conv1.weight" in foreign and "head.fc.weight" in foreign
    source, recipe, out = (str(files / name) for name in ("mmcls.pth", "small.yaml", "back.safetensors"))
    run(["weights", "convert", source, "--to", "safetensors", "--recipe", recipe, "--out", out])
    assert "(mmcls names)" in capsys.readouterr().out
    own, back = read_tensors(files / "own.pth"), load_file(out)
    assert own.keys() == back.keys() and all(torch.equal(own[key], back[key]) for key in own)


def test_a_foreign_file_is_compared_with_a_recipe_under_its_names(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["weights", "show", str(files / "mmcls.pth"), "--diff", str(files / "small.yaml")])
    shown = capsys.readouterr().out
    assert "names translated from mmcls" in shown and "equal" in shown and "only" not in shown
    run(["weights", "show", str(files / "mmcls.pth"), "--diff", str(files / "small.yaml"), "--filter", "head"])
    assert "2 equal" in capsys.readouterr().out


def test_the_command_exports_and_prints_the_deviation(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    words = ["weights", "export", str(files / "mmcls.pth"), "--recipe", str(files / "small.yaml"), "--out", str(files / "model.onnx")]
    run([*words, "--size", "64x96"])
    shown = capsys.readouterr().out
    assert "logits: largest deviation" in shown and "images (N, 3, 64, 96) uint8" in shown and (files / "model.onnx").stat().st_size > 10_000_000
    run(words, code=2)
    assert "--size HEIGHTxWIDTH" in capsys.readouterr().err


def test_wrong_requests_are_refused_before_anything_is_written(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = str(files / "own.pth"), str(files / "x.safetensors")
    run(["weights", "convert", source, "--to", "caffe", "--out", out], code=2)
    run(["weights", "convert", source, "--to", "mmcls", "--out", out], code=2)
    run(["weights", "convert", source, "--to", "safetensors", "--out", str(files / "x.bin")], code=2)
    run(["weights", "export", source, "--out", str(files / "x.onnx")], code=2)
    shown = capsys.readouterr().err
    for reason in ("expected safetensors or one of", "needs --recipe", "ends in .safetensors", "name its recipe"):
        assert reason in shown
    assert not list(files.glob("x.*"))
