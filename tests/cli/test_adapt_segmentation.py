"""Two players from the command line: a source run of a segmentation network, a target without labels, a source beside it."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from command_line import run
from saccade.engine.checkpoints import find_checkpoint, load_tensors
from saccade.recipes import load_recipe

TOWN = "{type: TownSegmentation, size: 64, num_images: 6"
SOURCE = f"""\
# A segmentation network of seconds.
model:
  type: DeepLabV2
  backbone: {{type: TimmBackbone, name: resnet10t, out_indices: [3, 4], output_stride: 8, norm_affine: false}}
  head: aspp2
  rates: [1, 2]
  auxiliary: true
data:
  train: {TOWN}}}
  evaluation_transforms: [{{type: Resize, size: [64, 64]}}]
learner: {{type: Supervised, optimizer: {{type: AdamW, lr: 1.0e-3}}}}
metrics: [{{type: SegmentationIoU}}]
run: {{steps: 2, batch_size: 2}}
"""
TWO_PLAYERS = f"""\
# Two levels of adversaries, of seconds.
data:
  train: {TOWN}, domain: night, seed: 1, labelled: false}}
  source: {TOWN}}}
  evaluate: {{night: {TOWN}, split: val, domain: night}}}}
learner:
  type: Adapting
  mode: train
  terms:
    - {{type: Supervision}}
    - type: Adversarial
      maps: self_information
      discriminator: {{type: Discriminator, channels: 8}}
      optimizer: {{type: Adam, lr: 1.0e-4, betas: [0.9, 0.99]}}
      schedule: {{type: Poly, power: 0.9, total_steps: 100}}
    - {{type: Adversarial, output: aux_logits, weight: 2.0e-4, maps: self_information, optimizer: {{type: Adam, lr: 1.0e-4}}}}
    - {{type: ClassPrior, prior: {{type: ClassShares, dataset: "${{data.source}}", images: 3}}}}
  optimizer: {{type: SGD, lr: 2.5e-4, momentum: 0.9, weight_decay: 5.0e-4}}
  groups: {{head: {{lr: 10}}}}
  schedule: {{type: Poly, power: 0.9, total_steps: 100}}
metrics: [{{type: SegmentationIoU}}]
run: {{steps: 4, batch_size: 2, save_every: 2, best: night/iou/mIoU, log_every: 1}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source run, a method, and a run of it."""
    folder = tmp_path_factory.mktemp("adapt_segmentation")
    for name, text in (("source", SOURCE), ("players", TWO_PLAYERS)):
        (folder / f"{name}.yaml").write_text(text)
    assert run("train", folder / "source.yaml", "--out", folder / "source", "--accelerator", "cpu") == 0
    assert adapt(folder, folder / "run") == 0
    return folder


def adapt(place: Path, out: Path, *words: object) -> int:
    """The exit code of adapting the source run."""
    return run("adapt", place / "players.yaml", "--from", place / "source", "--out", out, "--accelerator", "cpu", *words)


def test_both_players_are_announced_and_logged(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt(place, tmp_path / "run", "run.steps=1") == 0
    said = capsys.readouterr().err
    assert "beside 6 labelled ones of town_segmentation_day_train" in said
    assert "  discriminator: " in said and "  aux_discriminator: " in said and "learning rate 0.0025" in said
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"seg_loss", "adversarial_loss", "aux_adversarial_loss", "class_prior_loss", "discriminator_source_loss", "discriminator_lr"} <= set(first)


def test_the_adapted_network_is_scored_and_shown_without_its_opponents(place: Path) -> None:
    before, after = load_tensors(find_checkpoint(place / "source")), load_tensors(find_checkpoint(place / "run"))
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    assert run("evaluate", place / "run", "--device", "cpu") == 0
    assert run("report", place / "run") == 0


def test_a_stopped_game_resumes_to_the_same_weights(place: Path, tmp_path: Path) -> None:
    assert adapt(place, tmp_path / "run") == 0
    (tmp_path / "run" / "checkpoints" / "step_00000004").rename(tmp_path / "kept")
    assert run("adapt", tmp_path / "run", "--resume", "--accelerator", "cpu") == 0
    first, second = load_tensors(tmp_path / "kept"), load_tensors(find_checkpoint(tmp_path / "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_method_with_a_model_of_its_own_can_begin_without_a_source_run(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"# From the beginning.\nbase: [players.yaml]\n{SOURCE[SOURCE.index('model:'):SOURCE.index('data:')]}")
    (tmp_path / "players.yaml").write_text(TWO_PLAYERS)
    assert run("train", tmp_path / "mine.yaml", "--out", tmp_path / "run", "--accelerator", "cpu", "run.steps=2") == 0
    assert load_tensors(find_checkpoint(tmp_path / "run")).keys() == load_tensors(find_checkpoint(place / "run")).keys()


def test_explain_shows_both_players(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", place / "run") == 0
    said = capsys.readouterr().out
    for part in ("aux_adversarial_loss", "class_prior_loss", "opponent discriminator", "aux_discriminator", "Supervision", "seg_loss"):
        assert part in said, part


def test_a_method_that_needs_labelled_images_says_so(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt(place, tmp_path / "run", "data.source=null", "learner.terms=[{type: Supervision}]", "run.steps=1") == 2
    assert "data.source" in " ".join(capsys.readouterr().err.split())


def test_weights_come_from_the_source_alone(place: Path, tmp_path: Path) -> None:
    assert adapt(place, tmp_path / "run", "run.steps=1", "model.backbone.pretrained=true") == 0
    backbone = load_recipe(tmp_path / "run").section("model")["backbone"]  # type: ignore[index]
    assert backbone["pretrained"] is False and backbone["name"] == "resnet10t"


def test_two_runs_are_evaluated_as_an_ensemble(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    member = """{type: DeepLabV2, head: aspp2, rates: [1, 2], auxiliary: true,
                 backbone: {type: TimmBackbone, name: resnet10t, out_indices: [3, 4], output_stride: 8, norm_affine: false}}"""
    both = tmp_path / "both.yaml"
    both.write_text(
        f"# Two runs.\nbase: [players.yaml]\nmodel: {{type: SegmentationEnsemble, members: [{member}, '${{model.members.0}}']}}\n"
        f"weights: [{{source: {place / 'run'}, into: members.0}}, {{source: {place / 'run'}, into: members.1}}]\n"
        "data: {evaluation_transforms: [{type: Resize, size: [64, 64]}]}\n"
    )
    (tmp_path / "players.yaml").write_text(TWO_PLAYERS)
    assert run("evaluate", both, "--weights", "recipe", "--device", "cpu", "--out", tmp_path / "ensemble") == 0
    assert run("evaluate", place / "run", "--device", "cpu", "--out", tmp_path / "alone") == 0
    together, alone = (json.loads((tmp_path / name / "evaluation/night/figures.json").read_text()) for name in ("ensemble", "alone"))
    assert together == pytest.approx(alone, nan_ok=True)  # of two equal members, each of them
    capsys.readouterr()
    both.write_text(both.read_text().replace(f", {{source: {place / 'run'}, into: members.1}}", ""))
    assert run("evaluate", both, "--weights", "recipe", "--device", "cpu", "--out", tmp_path / "half") == 2
    assert "fills members.0, but not members.1" in " ".join(capsys.readouterr().err.split())
