"""Loading accounts for every tensor and refuses what does not fit, leaving the module alone."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from saccade.engine.checkpoints import ModelCard, point, save_checkpoint
from saccade.errors import InputError
from saccade.layers.pixels import PixelNorm
from saccade.models.contract import Model
from saccade.weights.load import load_into, read_tensors


class Small(Model):
    """A backbone with batch norm and a head of `classes` rows."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__([str(k) for k in range(classes)], PixelNorm())
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, classes)

    def head_keys(self) -> tuple[str, ...]:
        return ("head.",)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_whole_file_fills_the_module() -> None:
    source, target = Small(), Small()
    report = load_into(target, state_of(source))
    assert same(state_of(source), state_of(target))
    assert len(report.matched) == len(state_of(source)) and not report.missing and not report.unexpected
    assert report.summary() == "9 tensors loaded (saccade names)"


def test_a_missing_key_is_refused_unless_named() -> None:
    tensors, target = state_of(Small()), Small()
    del tensors["head.bias"]
    before = state_of(target)
    with pytest.raises(InputError, match=r"missing in the file \(1\):\n  head.bias"):
        load_into(target, tensors, origin="saccade")
    assert same(before, state_of(target))
    report = load_into(target, tensors, origin="saccade", missing=["head.bias"])
    assert report.missing == ("head.bias",) and "1 not in the file: head.bias" in report.summary()
    assert torch.equal(target.head.weight, tensors["head.weight"]) and torch.equal(target.head.bias, before["head.bias"])


def test_a_left_over_key_is_refused_unless_named_and_shows_the_nearest() -> None:
    tensors, target = state_of(Small()), Small()
    tensors["heat.bias"] = tensors.pop("head.bias")
    with pytest.raises(InputError, match=r"not in the model \(1\):\n  heat.bias  \(near: head.bias\)"):
        load_into(target, tensors, origin="saccade", missing=["head"])
    assert load_into(target, tensors, origin="saccade", missing=["head", "heat"]).unexpected == ("heat.bias",)


def test_other_classes_are_refused_with_a_hint_and_drawn_anew_when_named() -> None:
    tensors, target = state_of(Small(5)), Small(3)
    before = state_of(target)
    with pytest.raises(InputError, match="5x4 in the file, 3x4 in the model") as caught:
        load_into(target, tensors)
    assert "heads" in str(caught.value) and same(before, state_of(target))
    report = load_into(target, tensors, reinitialise=["heads"])
    assert report.reinitialised == ("head.weight", "head.bias") and "2 drawn anew: head.weight, head.bias" in report.summary()
    assert torch.equal(target.head.weight, before["head.weight"]) and torch.equal(target.backbone[0].weight, tensors["backbone.0.weight"])


def test_only_named_keys_are_drawn_anew() -> None:
    tensors, target = state_of(Small(5)), Small(3)
    tensors["backbone.0.weight"] = torch.zeros(8, 3, 3, 3)
    with pytest.raises(InputError, match=r"backbone.0.weight: 8x3x3x3 in the file, 4x3x3x3"):
        load_into(target, tensors, reinitialise=["heads"])


def test_naming_no_key_to_draw_anew_is_an_error() -> None:
    with pytest.raises(InputError, match="no key of Small starts with 'haed'"):
        load_into(Small(), state_of(Small()), reinitialise=["haed"])


def test_half_precision_is_converted_and_said() -> None:
    tensors = {key: value.half() if value.is_floating_point() else value for key, value in state_of(Small()).items()}
    target = Small()
    report = load_into(target, tensors)
    assert target.head.weight.dtype == torch.float32 and "8 converted to the model's type" in report.summary()
    assert torch.equal(target.head.weight, tensors["head.weight"].float())


def test_batch_norm_counters_may_be_absent() -> None:
    tensors = {key: value for key, value in state_of(Small()).items() if not key.endswith("num_batches_tracked")}
    assert load_into(Small(), tensors, origin="saccade").missing == ()


def test_an_unknown_origin_is_refused() -> None:
    with pytest.raises(InputError, match="no key map for 'luffic_ssd'; did you mean 'lufficc_ssd'"):
        load_into(Small(), {}, origin="luffic_ssd")


@pytest.mark.parametrize("member", ["state_dict", "model", "params", None])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("new_format", [True, False])
def test_torch_checkpoints_are_read_whatever_member_holds_the_weights(tmp_path: Path, member: str | None, prefix: str, new_format: bool) -> None:
    tensors = state_of(Small())
    state = {prefix + key: value for key, value in tensors.items()}
    content = state if member is None else {member: state, "iteration": 3, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}}
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=new_format)
    assert same(read_tensors(tmp_path / "file.pth"), tensors)


def test_safetensors_are_recognised_by_content(tmp_path: Path) -> None:
    tensors = state_of(Small())
    save_file(tensors, tmp_path / "weights.bin")
    assert same(read_tensors(str(tmp_path / "weights.bin")), tensors)


def test_checkpoint_and_run_folders_are_read(tmp_path: Path) -> None:
    tensors, folder = state_of(Small()), tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    card = ModelCard(model={"type": "Small"}, classes=["a"], evaluation_transforms=[], provenance={})
    checkpoint = save_checkpoint(folder, 10, tensors, card, {"step": 10})
    point(folder, "last", checkpoint)
    for source in (checkpoint, folder / "last", tmp_path / "run"):
        assert same(read_tensors(source), tensors)
    with pytest.raises(InputError, match="no complete checkpoint"):
        read_tensors(tmp_path)


def test_a_source_that_does_not_exist_is_an_error_with_near_names() -> None:
    with pytest.raises(InputError, match="lufficc/ssd300_vgg16_voc"):
        read_tensors("lufficc/ssd300_vgg_voc")


def test_batch_norm_counters_stored_with_one_dimension_are_taken() -> None:
    norm = nn.BatchNorm2d(2)
    tensors = {**norm.state_dict(), "num_batches_tracked": torch.tensor([7])}
    load_into(norm, tensors, origin="saccade")
    assert norm.num_batches_tracked.shape == ()
    assert int(norm.num_batches_tracked) == 7


def test_a_refusal_leaves_out_what_was_named_as_missing() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1))
    with pytest.raises(InputError) as error:
        load_into(network, nn.Linear(1, 1).state_dict(prefix="0."), origin="saccade", missing=["1."])
    assert "2.weight" in str(error.value)
    assert "1.weight" not in str(error.value)
