"""Predictions for pictures, folders and videos: all of them, in their own pixels, and nothing overwritten."""
from __future__ import annotations

import csv
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from saccade.data.decoding import read_label_map
from saccade.data.formats.coco_panoptic import CocoPanoptic
from saccade.data.formats.label_files import confidence_of
from saccade.data.media import VideoReader, VideoWriter, find_media
from saccade.errors import NumericError
from saccade.models.contract import Model
from saccade.report.exporting import PredictionFiles, Source
from saccade.report.media_prediction import OutputNames, predict_media
from saccade.report.palette import PALETTE
from saccade.report.prediction import predict_images
from saccade.structures import Detections, Panoptic, Segment, SegmentationMap


def spot(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[box[1] : box[3], box[0] : box[2]] = 255
    return picture


def save(path: Path, picture: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def results(folder: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads((folder / "predictions.json").read_text())
    return rows


def test_boxes_come_in_original_pixels_whatever_the_batch(detector: Model, tmp_path: Path) -> None:
    boxes = [(10, 20, 50, 40), (64, 0, 128, 128), (0, 0, 8, 64)]
    pictures = [torch.from_numpy(spot(h, w, b)).permute(2, 0, 1) for (h, w), b in zip([(100, 200), (128, 256), (64, 64)], boxes, strict=True)]
    for batch_size in (1, 2, 8):
        found = list(predict_images(detector, pictures, batch_size=batch_size))
        for prediction, box in zip(found, boxes, strict=True):
            assert isinstance(prediction, Detections)
            assert prediction.boxes[0].tolist() == pytest.approx(box, abs=4)


def test_image_files_may_be_given_instead_of_pixels(detector: Model, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", spot(64, 64, (8, 8, 40, 24)))
    (prediction,) = predict_images(detector, [path])
    assert isinstance(prediction, Detections) and prediction.labels.tolist() == [0]


def test_a_folder_becomes_pictures_and_coco_results(detector: Model, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", spot(96, 128, (16, 32, 64, 48)))
    save(tmp_path / "in" / "sub" / "a.png", spot(96, 128, (16, 16, 32, 80)))
    save(tmp_path / "in" / "sub" / "dark.png", spot(96, 128, (0, 0, 0, 0)))
    out = tmp_path / "out"
    summary = predict_media(detector, find_media([tmp_path / "in"]), out)
    assert summary.images == 3 and not summary.failed
    rows = results(out)
    assert [(r["image_id"], r["file_name"], r["category_id"], r["score"]) for r in rows] == [(1, "a.png", 1, 0.9), (2, "sub/a.png", 2, 0.9)]
    assert rows[0]["bbox"] == pytest.approx([16, 32, 48, 16], abs=3)
    listed = json.loads((out / "images.json").read_text())
    assert [i["picture"] for i in listed["images"]] == ["a.jpg", "sub-a.jpg", "dark.jpg"]
    assert [i["height"] for i in listed["images"]] == [96, 96, 96] and [c["name"] for c in listed["categories"]] == ["wide", "high"]
    assert sorted(p.name for p in out.iterdir()) == ["a.jpg", "dark.jpg", "images.json", "predictions.json", "sub-a.jpg"]


def test_the_results_load_as_coco_results(detector: Model, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", spot(96, 128, (16, 32, 64, 48)))
    predict_media(detector, find_media([tmp_path / "in"]), tmp_path / "out")
    truth = COCO(str(tmp_path / "out" / "images.json"))
    assert len(truth.loadRes(str(tmp_path / "out" / "predictions.json")).anns) == 1


def test_broken_images_are_named_and_passed_over(detector: Model, tmp_path: Path) -> None:
    save(tmp_path / "good.png", spot(64, 64, (8, 8, 40, 24)))
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    save(tmp_path / "cut.jpg", spot(64, 64, (8, 8, 40, 24)))
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:300])
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    seen: list[str] = []
    summary = predict_media(detector, find_media([tmp_path]), tmp_path / "out", on_item=lambda medium: seen.append(medium.name))
    assert summary.images == 1 and {name for name, _ in summary.failed} == {"empty.jpg", "text.jpg", "cut.jpg", "clip.mp4"}
    assert len(results(tmp_path / "out")) == 1 and "good.png" in seen


def test_a_video_comes_out_with_its_frames_and_rate_and_rows_for_each_frame(detector: Model, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", Fraction(12)) as writer:
        for i in range(11):
            writer.write(spot(96, 128, (8 * i, 30, 8 * i + 40, 60)))
    summary = predict_media(detector, find_media([tmp_path / "clip.mp4"]), tmp_path / "out", batch_size=4)
    drawn = VideoReader(tmp_path / "out" / "clip.mp4")
    assert summary.frames == 11 and len(list(drawn)) == 11 and drawn.frame_rate == 12
    rows = results(tmp_path / "out")
    assert [r["frame"] for r in rows] == list(range(11)) and rows[5]["bbox"] == pytest.approx([40, 30, 40, 30], abs=4)


def test_inputs_are_never_overwritten(detector: Model, tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", spot(64, 64, (8, 8, 40, 24)))
    before = path.read_bytes()
    predict_media(detector, find_media([path]), tmp_path)
    assert path.read_bytes() == before and (tmp_path / "a-2.jpg").exists()


def test_hostile_names_become_harmless_files_inside_the_folder(tmp_path: Path) -> None:
    names = OutputNames(tmp_path, [])
    given = ["../../evil.jpg", "-rf.jpg", ".hidden.png", "new\nline.jpg", "a" * 300 + ".jpg", "日本.png", "..jpg", "x/y:z*.png"]
    made = [names.new(name, ".jpg") for name in given]
    assert all(path.parent == tmp_path and path.name.isprintable() and len(path.name.encode()) < 200 for path in made)
    assert not any(path.name.startswith(("-", ".")) for path in made) and len(set(made)) == len(made)
    assert made[5].name == "日本.jpg"


def test_names_that_differ_only_in_case_are_told_apart(tmp_path: Path) -> None:
    names = OutputNames(tmp_path, [])
    assert [names.new(name, ".jpg").name for name in ("a.png", "A.png", "a.bmp")] == ["a.jpg", "A-2.jpg", "a-3.jpg"]


def test_a_classifier_gives_its_five_best_as_json_and_csv(classifier: Model, tmp_path: Path) -> None:
    save(tmp_path / "in" / "white, really.png", np.full((32, 32, 3), 250, dtype=np.uint8))
    predict_media(classifier, find_media([tmp_path / "in"]), tmp_path / "out")
    (row,) = results(tmp_path / "out")
    assert row["class"] == "bright" and [t["class"] for t in row["top"]] == ["bright", "grey", "dark"]  # type: ignore[attr-defined]
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["file_name"] == "white, really.png" and line["class_1"] == "bright" and float(line["score_1"]) > 0.9 and line["class_5"] == ""


def test_csv_has_a_line_for_each_detection(detector: Model, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", spot(64, 64, (8, 8, 40, 24)))
    predict_media(detector, find_media([tmp_path / "in"]), tmp_path / "out", file_format="csv", pictures=False)
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["class"] == "wide" and [float(line[k]) for k in ("x1", "y1", "x2", "y2")] == pytest.approx([8, 8, 40, 24], abs=2)
    assert not list((tmp_path / "out").glob("*.jpg"))


def test_scores_below_the_threshold_are_left_out(detector: Model, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", spot(64, 64, (8, 8, 40, 24)))
    predict_media(detector, find_media([tmp_path / "in"]), tmp_path / "out", score_threshold=0.95)
    assert results(tmp_path / "out") == []


def test_predictions_that_are_not_finite_stop_with_the_file_named(detector: Model, tmp_path: Path) -> None:
    class Broken(type(detector)):  # type: ignore[misc]
        def _one(self, bright: torch.Tensor, meta: object) -> Detections:
            return Detections(torch.full((1, 4), float("nan")), torch.tensor([0.9]), torch.tensor([0]))

    save(tmp_path / "in" / "a.png", spot(64, 64, (8, 8, 40, 24)))
    with pytest.raises(NumericError, match=r"a\.png"):
        predict_media(Broken(), find_media([tmp_path / "in"]), tmp_path / "out")


def test_masks_are_written_as_run_lengths_and_maps_as_png(tmp_path: Path) -> None:
    mask = torch.zeros(1, 20, 30, dtype=torch.bool)
    mask[0, 3:9, 4:20] = True
    labels = torch.zeros(20, 30, dtype=torch.int64)
    labels[5:] = 1
    ids = labels * 70_000 + 1
    with PredictionFiles(tmp_path, ("a", "b")) as files:
        files.add(Detections(torch.tensor([[4.0, 3, 20, 9]]), torch.ones(1), torch.ones(1, dtype=torch.int64), mask), Source(1, "a", 20, 30))
        files.add(SegmentationMap(labels, torch.full((20, 30), 0.75)), Source(2, "b", 20, 30))
        files.add(Panoptic(ids, (Segment(1, 0, False), Segment(70_001, 1, True, score=0.5))), Source(3, "c", 20, 30))
    masked, mapped, panoptic = results(tmp_path)
    assert (coco_mask.decode(masked["segmentation"]) == mask[0].numpy()).all()
    assert (np.asarray(Image.open(tmp_path / str(mapped["segmentation_map"]))) == labels.numpy()).all()
    colours = np.asarray(Image.open(tmp_path / str(mapped["colour_map"])))
    assert tuple(colours[0, 0]) == PALETTE[0] and tuple(colours[9, 0]) == PALETTE[1]
    confidence = confidence_of(read_label_map(tmp_path / str(mapped["confidence_map"])))
    assert confidence.shape == (20, 30) and float(confidence[3, 3]) == pytest.approx(0.75, abs=0.01)
    coded = np.asarray(Image.open(tmp_path / str(panoptic["panoptic_map"]))).astype(int)
    assert (coded @ [1, 256, 65536] == ids.numpy()).all()
    assert [s["area"] for s in panoptic["segments_info"]] == [150, 450]  # type: ignore[attr-defined]


def test_panoptic_predictions_are_read_again_as_coco_panoptic_data(tmp_path: Path) -> None:
    ids = torch.ones(20, 30, dtype=torch.int64)
    ids[5:, 3:] = 70_001
    save(tmp_path / "in" / "c.png", np.zeros((20, 30, 3), dtype=np.uint8))
    with PredictionFiles(tmp_path / "out", ("sky", "car", "road")) as files:
        files.add(Panoptic(ids, (Segment(1, 0, False), Segment(70_001, 1, True, score=0.5))), Source(3, "c.png", 20, 30))
        files.add(Panoptic(torch.zeros(20, 30, dtype=torch.int64), ()), Source(4, "nothing.png", 20, 30))
    assert len(json.loads((tmp_path / "out" / "images.json").read_text())["images"]) == 2
    back = CocoPanoptic(root=tmp_path / "out", annotations="panoptic.json", maps="maps", images="../in")
    known = back[0]
    assert back.classes == ("sky", "car", "road") and back.things == (False, True, False) and not back.problems and len(back) == 2
    assert known.panoptic is not None and torch.equal(known.panoptic.segment_map.as_subclass(torch.Tensor), ids)
    assert [(s.id, s.label, s.is_thing) for s in known.panoptic.segments] == [(1, 0, False), (70_001, 1, True)]
    assert back.annotations(1).num_objects == 0
    assert not list((tmp_path / "out").glob("*partial*")) and not list((tmp_path / "out").glob(".*"))


def test_results_are_complete_json_even_when_something_fails_in_the_middle(detector: Model, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", spot(64, 64, (8, 8, 40, 24)))
    save(tmp_path / "in" / "b.png", spot(64, 64, (8, 8, 40, 24)))

    def stop(medium: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_media(detector, find_media([tmp_path / "in"]), tmp_path / "out", batch_size=1, on_item=stop)
    assert len(results(tmp_path / "out")) == 1
