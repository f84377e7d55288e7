"""Label maps of an evaluation as files: what they hold, that the house reads them again, and that nothing is half written or overwritten."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data.class_sets import CLASS_SETS
from saccade.data.formats.label_files import read_labels
from saccade.errors import DataError, StorageError
from saccade.report.label_maps import LabelMapFiles
from saccade.report.palette import PALETTE, class_colours
from saccade.structures import Batch, Detections, Meta, Prediction, SegmentationMap

COLOURS = [(128, 64, 128), (0, 0, 142)]
LABELS = torch.tensor([[0, 1, 1], [0, 0, 255]])


def batch(*metas: Meta) -> Batch:
    return Batch(torch.zeros(len(metas), 3, 2, 3, dtype=torch.uint8), [], list(metas))


def test_labels_colours_and_confidence_of_each_image_are_written_by_its_id(tmp_path: Path) -> None:
    files = LabelMapFiles(tmp_path, COLOURS)
    scores = torch.tensor([[1.0, 0.5, 0.95], [0.0, 0.7, 0.2]])
    files(batch(Meta("set", "city/a.png"), Meta("set", 7)), [SegmentationMap(LABELS, scores), SegmentationMap(LABELS)])
    assert files.count == 2
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png")) == [
        "colours/7.png", "colours/city/a.png.png", "confidence/city/a.png.png", "labels/7.png", "labels/city/a.png.png",
    ]
    assert np.asarray(Image.open(tmp_path / "labels/city/a.png.png")).tolist() == LABELS.tolist()
    shown = np.asarray(Image.open(tmp_path / "colours/city/a.png.png").convert("RGB"))
    assert tuple(shown[0, 0]) == COLOURS[0] and tuple(shown[0, 1]) == COLOURS[1] and tuple(shown[1, 2]) == (0, 0, 0)
    stored = read_labels(tmp_path, "city/a.png")
    assert stored.confidence is not None
    torch.testing.assert_close(stored.confidence, scores, atol=0.012, rtol=0)
    assert read_labels(tmp_path, 7).confidence is None


def test_maps_are_there_as_soon_as_their_batch_was_seen_and_no_partial_file_stays(tmp_path: Path) -> None:
    files = LabelMapFiles(tmp_path, COLOURS)
    for number in range(3):
        files(batch(Meta("set", number)), [SegmentationMap(LABELS)])
        assert len(list((tmp_path / "labels").iterdir())) == number + 1
    (tmp_path / "labels" / "0.png").write_bytes(b"of an earlier evaluation")
    LabelMapFiles(tmp_path, COLOURS)(batch(Meta("set", 0)), [SegmentationMap(LABELS)])
    assert np.asarray(Image.open(tmp_path / "labels/0.png")).tolist() == LABELS.tolist()


def test_images_of_two_data_sets_with_one_id_do_not_overwrite_each_other(tmp_path: Path) -> None:
    files = LabelMapFiles(tmp_path, COLOURS)
    files(batch(Meta("day", "a.png"), Meta("night", "a.png")), [SegmentationMap(LABELS), SegmentationMap(1 - LABELS.clamp(max=1))])
    assert np.asarray(Image.open(tmp_path / "labels/a.png.png"))[0].tolist() == [0, 1, 1]
    assert np.asarray(Image.open(tmp_path / "labels/night/a.png.png"))[0].tolist() == [1, 0, 0]


def test_other_predictions_are_passed_over_and_leave_no_folder(tmp_path: Path) -> None:
    files = LabelMapFiles(tmp_path / "predictions", COLOURS)
    found: list[Prediction] = [Detections.empty()]
    files(batch(Meta("set", 0)), found)
    assert files.count == 0 and not (tmp_path / "predictions").exists()


def test_ids_that_lead_out_of_the_folder_and_folders_that_cannot_be_made_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't name a file"):
        LabelMapFiles(tmp_path, COLOURS)(batch(Meta("set", "../a.png")), [SegmentationMap(LABELS)])
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match="taken"):
        LabelMapFiles(tmp_path / "taken", COLOURS)(batch(Meta("set", 1)), [SegmentationMap(LABELS)])


def test_colours_are_the_data_set_s_else_those_of_the_known_class_set_else_the_palette_s() -> None:
    known = CLASS_SETS["cityscapes19"]
    assert class_colours(known.classes) == known.colours and class_colours(known.classes)[0] == (128, 64, 128)
    assert class_colours(("road", "car"), COLOURS) == tuple(COLOURS)
    assert class_colours(("road", "car")) == PALETTE[:2] and len(class_colours([str(k) for k in range(60)])) == 60
