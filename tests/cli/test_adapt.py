"""`saccade adapt` from the command line: a source run, a target without labels, an ordinary run folder."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from command_line import run
from saccade.engine.checkpoints import find_checkpoint, load_tensors, read_card

TOWN = "{type: Town, size: 64, num_videos: 2, frames_per_video: 3, masks: false, segmentation: false, panoptic: false"
SOURCE = f"""\
# A detector of seconds.
model: {{type: SSD, backbone: {{type: TimmSSD, name: resnet10t, extra_channels: [64]}}, image_size: 64, scale_range: [0.15, 0.9], aspect_ratios: [2]}}
data:
  train: {TOWN}}}
  evaluation_transforms: [{{type: Resize, size: [64, 64]}}]
learner: {{type: Supervised, optimizer: {{type: AdamW, lr: 1.0e-3}}}}
metrics: [{{type: VocDetection}}]
run: {{steps: 4, batch_size: 4}}
"""
TENT = f"""\
# TENT of seconds.
data:
  train: {TOWN}, split: val, domain: fog}}
  evaluate: {{fog: {TOWN}, split: val, domain: fog}}}}
learner: {{type: Adapting, trainable: norms, terms: [{{type: BatchNormStatistics}}, {{type: Entropy}}], optimizer: {{type: Adam, lr: 1.0e-4}}}}
metrics: [{{type: VocDetection}}]
run: {{steps: 4, batch_size: 2, save_every: 2, best: fog/voc/mAP, log_every: 1}}
"""
TEACHER = """\
# A mean teacher of seconds.
base: [tent.yaml]
learner:
  trainable: all
  terms: [{type: PseudoLabelDetection}]
  teacher: {type: MovingAverage, momentum: 0.01}
  objects: {type: ConfidentDetections, threshold: 0.05}
  evaluates: teacher
  views: {student: {type: View, transforms: [{type: PhotometricDistort}]}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source run and two methods."""
    folder = tmp_path_factory.mktemp("adapt")
    for name, text in (("source", SOURCE), ("tent", TENT), ("teacher", TEACHER)):
        (folder / f"{name}.yaml").write_text(text)
    assert run("train", folder / "source.yaml", "--out", folder / "source", "--accelerator", "cpu") == 0
    return folder


def adapt(place: Path, method: str, out: Path, *words: object) -> int:
    """The exit code of adapting the source run by a method."""
    return run("adapt", place / f"{method}.yaml", "--from", place / "source", "--out", out, "--accelerator", "cpu", *words)


def test_a_run_folder_with_the_adapted_network_comes_out(place: Path, tmp_path: Path) -> None:
    assert adapt(place, "tent", tmp_path / "run") == 0
    checkpoint = find_checkpoint(tmp_path / "run")
    card = read_card(checkpoint)
    assert card.classes == read_card(find_checkpoint(place / "source")).classes and card.evaluation_transforms[0]["type"] == "Resize"
    before, after = load_tensors(find_checkpoint(place / "source")), load_tensors(checkpoint)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("heads" in name for name in changed)
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["train"] * 4 + ["evaluation"]
    assert run("evaluate", tmp_path / "run", "--device", "cpu") == 0
    assert run("report", tmp_path / "run") == 0


def test_the_other_network_is_kept_beside(place: Path, tmp_path: Path) -> None:
    assert adapt(place, "teacher", tmp_path / "run", "run.best=null") == 0
    assert read_card(find_checkpoint(tmp_path / "run" / "student")).provenance["network"] == "student"
    student, teacher = (load_tensors(find_checkpoint(p)) for p in (tmp_path / "run" / "student", tmp_path / "run"))
    assert student.keys() == teacher.keys() and any(not torch.equal(student[k], teacher[k]) for k in student)


def test_a_stopped_adaptation_resumes_to_the_same_weights(place: Path, tmp_path: Path) -> None:
    assert adapt(place, "teacher", tmp_path / "whole", "run.best=null") == 0
    assert adapt(place, "teacher", tmp_path / "parts", "run.best=null", "run.steps=2") == 0
    recipe = tmp_path / "parts" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 2", "steps: 4"))
    assert run("adapt", tmp_path / "parts", "--resume", "--accelerator", "cpu") == 2  # other steps are another run
    import shutil

    for entry in ((tmp_path / "whole" / "checkpoints").glob("step_00000004"), (tmp_path / "whole").glob("student")):
        for folder in entry:
            shutil.move(folder, tmp_path / f"kept_{folder.name}")
    assert run("adapt", tmp_path / "whole", "--resume", "--accelerator", "cpu") == 0
    for kept, again in (("kept_step_00000004", "checkpoints/step_00000004"), ("kept_student/step_00000004", "student/step_00000004")):
        first, second = load_tensors(tmp_path / kept), load_tensors(tmp_path / "whole" / again)
        assert all(torch.equal(first[name], second[name]) for name in first), kept


def test_online_figures_are_of_frames_not_yet_learnt_from(place: Path, tmp_path: Path) -> None:
    assert adapt(place, "tent", tmp_path / "run", "--online", "online.steps=0") == 0
    assert run("evaluate", place / "source", "--recipe", place / "tent.yaml", "--device", "cpu", "--out", tmp_path / "source") == 0
    prequential, plain = (
        json.loads((tmp_path / p / "figures.json").read_text()) for p in ("run/evaluation/town_fog_val", "source/evaluation/fog")
    )
    assert prequential == pytest.approx(plain)  # without a step the stream is scored by the source model
    frames = [json.loads(line) for line in (tmp_path / "run" / "frames.jsonl").read_text().splitlines()]
    assert [(f["video"], f["frame"]) for f in frames] == [(v, t) for v in ("val_0000", "val_0001") for t in range(3)]
    assert all(f["predicting"] > 0 and f["memory"] > 0 for f in frames)
    json.loads((tmp_path / "run" / "evaluation" / "town_fog_val" / "predictions.json").read_text())

    assert adapt(place, "tent", tmp_path / "learnt", "--online", "online.reset=video") == 0
    assert "loss" in json.loads((tmp_path / "learnt" / "frames.jsonl").read_text().splitlines()[0])
    assert not (tmp_path / "learnt" / "checkpoints" / "last").exists()


def test_a_target_with_other_classes_is_matched_by_name(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "data"
    (images / "images").mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (80, 60), (90, 90, 90)).save(images / "images" / f"{name}.jpg")
    categories = [{"id": 1, "name": "Person"}, {"id": 2, "name": "zebra"}]
    boxes = [{"id": i, "image_id": 1, "category_id": i, "bbox": [5, 5, 20, 30], "area": 600, "iscrowd": 0} for i in (1, 2)]
    pictures = [{"id": i, "file_name": f"{n}.jpg", "width": 80, "height": 60} for i, n in ((1, "a"), (2, "b"))]
    (images / "instances_val.json").write_text(json.dumps({"images": pictures, "annotations": boxes, "categories": categories}))
    assert adapt(place, "tent", tmp_path / "run", "--to", images, "run.best=null") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "matched by name: objects and pixels of zebra are left out; it has no" in said
    figures = json.loads((tmp_path / "run" / "evaluation" / "data" / "figures.json").read_text())
    assert "voc/mAP" in figures


def test_what_can_not_be_done_ends_with_code_2(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: object) -> str:
        assert run("adapt", *words, "--out", tmp_path / "run", "--accelerator", "cpu") == 2
        return " ".join(capsys.readouterr().err.split())

    source = ("--from", place / "source")
    assert "say with --from" in refused(place / "tent.yaml")
    assert "no such checkpoint" in refused(place / "tent.yaml", "--from", tmp_path / "nothing")
    assert "does not adapt: its learner is Supervised" in refused(place / "source.yaml", *source)
    assert "no such data set" in refused(place / "tent.yaml", *source, "--to", tmp_path / "nothing")
    assert "DetectionConsistency reads rpn_logits" in refused(
        place / "teacher.yaml", *source, "learner.terms=[{type: DetectionConsistency, teacher_view: raw, student_view: raw}]"
    )
    weights = find_checkpoint(place / "source") / "model.safetensors"
    assert "--model" in refused(place / "tent.yaml", "--from", weights)


def test_train_and_explain_say_what_an_adapting_recipe_is_for(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", place / "tent.yaml", "--out", tmp_path / "run") == 2
    assert "saccade adapt" in capsys.readouterr().err
    assert run("explain", place / "tent.yaml") == 2
    assert "--from" in capsys.readouterr().err
    assert adapt(place, "teacher", tmp_path / "adapted", "run.best=null", "run.steps=1") == 0
    capsys.readouterr()
    assert run("explain", tmp_path / "adapted") == 0
    said = capsys.readouterr().out
    for part in ("pseudo_cls_loss", "MovingAverage", "ConfidentDetections", "PseudoLabelDetection", "view student"):
        assert part in said, part


def test_a_file_of_weights_needs_only_the_recipe_of_its_model(place: Path, tmp_path: Path) -> None:
    weights = find_checkpoint(place / "source") / "model.safetensors"
    words = ("--from", weights, "--model", place / "source.yaml", "--out", tmp_path / "run", "--accelerator", "cpu")
    assert run("adapt", place / "tent.yaml", *words) == 0


def test_the_term_of_the_documentation_is_thirty_lines_and_works(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "adaptation.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 30
    (tmp_path / "my_terms").mkdir()
    (tmp_path / "my_terms" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    words = ("--plugin", "my_terms", "learner.terms=[{type: MaximumSquare, weight: 2.0}]", "run.best=null")
    assert adapt(place, "tent", tmp_path / "run", *words) == 0
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert -1 <= first["square_loss"] < 0


@pytest.mark.parametrize("layout", ["pictures", "folders", "video"])
def test_frames_without_any_annotation_are_enough(place: Path, tmp_path: Path, layout: str) -> None:
    frames = [Image.effect_noise((96, 72), 60).convert("RGB") for _ in range(4)]
    target = tmp_path / "frames"
    if layout == "video":
        target = tmp_path / "street.mp4"
        write_video(target, frames)
    for number, frame in enumerate(frames if layout != "video" else []):
        folder = target if layout == "pictures" else target / f"sequence{number // 2}"
        folder.mkdir(parents=True, exist_ok=True)
        frame.save(folder / f"{number:06d}.jpg")
    assert adapt(place, "tent", tmp_path / "offline", "--to", target) == 0
    assert not (tmp_path / "offline" / "evaluation").exists() and find_checkpoint(tmp_path / "offline")
    assert adapt(place, "tent", tmp_path / "online", "--to", target, "--online") == 0
    seen = [json.loads(line) for line in (tmp_path / "online" / "frames.jsonl").read_text().splitlines()]
    assert len(seen) == 4 and [f["frame"] for f in seen] == ([0, 1, 0, 1] if layout == "folders" else [0, 1, 2, 3])
    assert list((tmp_path / "online").rglob("predictions.json"))


def write_video(path: Path, frames: list[Image.Image]) -> None:
    """A small video file."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
