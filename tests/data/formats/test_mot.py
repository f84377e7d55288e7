"""MOTChallenge folders: what a sequence is read as, and real sets where they are there."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data.contract import Dataset
from saccade.data.formats.mot import Mot
from saccade.data.inspection import inspect
from saccade.data.recognition import candidates, open_dataset, recognise
from saccade.data.tracking_results import score_results
from saccade.errors import DataError, InputError

SHARED = Path(__file__).resolve().parents[4] / "shared/data"


def write_sequence(folder: Path, frames: int = 6, truth: str | None = None, pictures: bool = True, info: bool = True) -> Path:
    (folder / "gt").mkdir(parents=True)
    if pictures:
        (folder / "img1").mkdir()
        for number in range(1, frames + 1):
            Image.new("RGB", (60, 40), (number, 0, 0)).save(folder / f"img1/{number:06d}.jpg")
    if info:
        text = f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate=25\nseqLength={frames}\nimWidth=60\nimHeight=40\nimExt=.jpg\n"
        (folder / "seqinfo.ini").write_text(text)
    lines = [f"{f},{i},{10 * i + f},5,8,20,1,1,{0.1 * i}\n" for i in (1, 2) for f in range(1, frames + 1)]
    lines += [f"{f},9,40,5,10,20,0,8,1\n{f},10,1,1,4,4,0,3,1\n" for f in range(1, frames + 1)]
    (folder / "gt/gt.txt").write_text("".join(lines) if truth is None else truth)
    return folder


def test_a_sequence_gives_considered_pedestrians_with_ids_in_frames_from_zero(tmp_path: Path) -> None:
    mot = Mot(root=write_sequence(tmp_path / "MOT17-02-FRCNN"))
    assert isinstance(mot, Dataset) and len(mot) == 6 and mot.classes == ("pedestrian",)
    sample = mot[2]
    assert sample.meta.video == "MOT17-02-FRCNN" and sample.meta.frame == 2 and mot.item_id(2) == "img1/000003.jpg"
    assert sample.boxes.tolist() == [[13, 5, 21, 25], [23, 5, 31, 25]] and sample.track_ids.tolist() == [1, 2] and sample.labels.tolist() == [0, 0]
    assert mot.videos[0].frames == tuple(range(6)) and mot.videos[0].frame_rate == 25 and mot.recorded_size(0) == (40, 60)
    assert mot.describe()["tracks"] == 2 and mot.describe()["benchmark"] == "MOT17" and not mot.problems


def test_visibility_classes_and_distractors_choose_among_the_rows(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "MOT17-02-FRCNN")
    assert Mot(root=folder, min_visibility=0.15).annotations(0).track_ids.tolist() == [2]
    both = Mot(root=folder, classes=["car", "pedestrian"]).annotations(0)
    assert both.labels.tolist() == [0, 1, 1] and both.track_ids.tolist() == [10, 1, 2]
    with_distractors = Mot(root=folder, distractors=True).annotations(0)
    assert with_distractors.difficult.tolist() == [False, False, True] and with_distractors.track_ids.tolist() == [1, 2, 9]
    with pytest.raises(InputError, match="no class 'dog'"):
        Mot(root=folder, classes=["dog"])


def test_halves_are_the_first_frames_and_the_rest_and_frames_start_at_zero_again(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "MOT17-02-FRCNN")
    first, rest = Mot(root=folder, half="train"), Mot(root=folder, half="val")
    assert (len(first), len(rest)) == (4, 2) and rest[0].meta.frame == 0 and rest.mot_frame(0) == 5
    assert rest.annotations(0).boxes.tolist()[0] == [15, 5, 23, 25]


def test_the_three_copies_of_a_video_count_once_unless_asked_for(tmp_path: Path) -> None:
    for detector in ("DPM", "FRCNN", "SDP"):
        write_sequence(tmp_path / f"train/MOT17-02-{detector}", 2)
    write_sequence(tmp_path / "train/MOT17-04-SDP", 2)
    names = {choice: [v.name for v in Mot(root=tmp_path, split="train", detector=choice).videos] for choice in ("one", "all", "DPM")}
    assert names["one"] == ["MOT17-02-FRCNN", "MOT17-04-SDP"] and len(names["all"]) == 4 and names["DPM"] == ["MOT17-02-DPM"]
    assert len(Mot(root=tmp_path, split="train", sequences=["MOT17-04"]).videos) == 1
    with pytest.raises(InputError, match="no sequence 'MOT17-13'"):
        Mot(root=tmp_path, split="train", sequences=["MOT17-13"])
    with pytest.raises(DataError, match=r"give `split` \(train\)"):
        Mot(root=tmp_path)
    assert [known.get("split") for _, known in candidates(tmp_path)] == ["train"]


def test_a_set_without_truth_is_unlabelled_and_has_its_detections(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "MOT17-01-SDP", 3)
    (folder / "gt/gt.txt").unlink()
    (folder / "det").mkdir()
    (folder / "det/det.txt").write_text("2,-1,1,2,10,20,0.3\n1,-1,5,5,10,10,0.9\n2,-1,3,4,10,20,0.8\n")
    mot = Mot(root=folder)
    assert mot.annotations(1).boxes is None and mot[1].boxes is None
    assert mot.detections(1).scores.tolist() == pytest.approx([0.8, 0.3]) and len(mot.detections(2)) == 0
    assert mot.detections(1).boxes[0].tolist() == [3, 4, 13, 24]


def test_seqinfo_may_be_missing_and_pictures_may_be_missing(tmp_path: Path) -> None:
    plain = Mot(root=write_sequence(tmp_path / "a", 4, info=False))
    assert len(plain) == 4 and plain.videos[0].frame_rate is None and plain.recorded_size(0) is None
    text_only = Mot(root=write_sequence(tmp_path / "b", 4, pictures=False))
    assert len(text_only) == 4 and text_only.annotations(3).track_ids.tolist() == [1, 2] and "no pictures" in text_only.problems[0].what
    with pytest.raises(DataError, match="does not exist"):
        text_only[0]


def test_broken_truth_is_listed_with_its_lines_and_left_out(tmp_path: Path) -> None:
    rows = ("1,1,10,5,8,20,1,1,1", "1,1,20,5,8,20,1,1,1", "", "not a row", "9,2,10,5,8,20,1,1,1", "2,3,10,5,0,20,1,1,1", "2,nan,10,5,8,20,1,1,1",
            "2,4,10,5,8,20,1,1")
    truth = "\n".join(rows)
    mot = Mot(root=write_sequence(tmp_path / "MOT17-02-FRCNN", 6, truth))
    found = {problem.where: problem.what for problem in mot.problems}
    assert set(found) == {"line 2", "line 4", "line 5", "line 6", "line 7"} and all(p.file.endswith("gt.txt") for p in mot.problems)
    assert "second time" in found["line 2"] and "beyond the 6" in found["line 5"]
    assert "no area" in found["line 6"] and "its id is nan" in found["line 7"]
    assert [mot.annotations(i).track_ids.tolist() for i in range(3)] == [[1], [4], []]


def test_gaps_in_the_pictures_keep_the_frame_numbers(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "MOT17-02-FRCNN")
    (folder / "img1/000003.jpg").unlink()
    mot = Mot(root=folder)
    assert len(mot) == 5 and [mot[i].meta.frame for i in range(5)] == [0, 1, 3, 4, 5] and "1 of its 6 frames" in mot.problems[0].what
    assert mot.annotations(2).boxes[0].tolist() == [14, 5, 22, 25]


def test_ids_that_start_at_zero_move_up_by_one(tmp_path: Path) -> None:
    mot = Mot(root=write_sequence(tmp_path / "MOT17-02-FRCNN", 2, "1,0,1,1,9,9,1,1,1\n1,1,20,1,9,9,1,1,1\n"))
    assert mot.annotations(0).track_ids.tolist() == [1, 2] and mot.problems[0].consequence == "kept"


def test_mot15_has_no_classes(tmp_path: Path) -> None:
    mot = Mot(root=write_sequence(tmp_path / "TUD", 2, "1,1,1,1,9,9,1,-4.1,7.3,0\n1,2,20,1,9,9,0,3.0,1.5,0\n"))
    assert mot.annotations(0).track_ids.tolist() == [1] and mot.describe()["benchmark"] == "MOT15"


def test_the_folder_is_recognised_and_inspected(tmp_path: Path) -> None:
    write_sequence(tmp_path / "MOT17-02-FRCNN")
    assert recognise(tmp_path)[0] == "mot"
    found = inspect(open_dataset(tmp_path))
    assert found.num_images == 6 and found.num_objects == 18 and found.num_difficult == 6


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real sets are not here")
def test_real_sequences_have_the_counts_of_their_readme() -> None:
    mot = Mot(root=SHARED / "mot")
    assert {v.name: len(v.frames) for v in mot.videos} == {"PETS09-S2L1": 300, "TUD-Stadtmitte": 179}
    counts = {v.name: sum(len(mot.annotations(i).labels) for i in v.frames) for v in mot.videos}
    assert counts == {"PETS09-S2L1": 1874 - 174, "TUD-Stadtmitte": 1156} and not mot.problems
    detections = {v.name: sum(len(mot.detections(i)) for i in v.frames) for v in mot.videos}
    assert detections == {"PETS09-S2L1": 1751, "TUD-Stadtmitte": 951}
    mini = Mot(root=SHARED / "mot/MOT17-mini", classes=["pedestrian", "static_person"], distractors=True)
    assert [len(v.frames) for v in mini.videos] == [4, 8] and mini[0].size == (540, 960)
    text = Mot(root=SHARED / "mot_text/mot15")
    rows = sum(len(text.annotations(i).labels) for i in range(len(text)))
    assert len(text.videos) == 6 and rows == 5009 + 1901 - 43 + 782 - 99 + 4650 - 174 + 359 + 1156


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real sets are not here")
def test_result_files_are_judged_by_the_benchmarks_rules(tmp_path: Path) -> None:
    for name in ("TUD-Campus", "TUD-Stadtmitte"):
        (tmp_path / name).symlink_to(SHARED / "mot_text/mot15" / name)
    scores = score_results(Mot(root=tmp_path), SHARED / "mot_text/results/tracker_a")
    assert [round(scores.figures()[f"mot/{name}"], 3) for name in ("IDF1", "MOTA", "HOTA")] == [0.624, 0.555, 0.400]
    assert scores.rows()["TUD-Campus"]["IDSW"] == 7


def test_results_of_a_half_are_judged_on_its_frames_alone(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "data/MOT17-02-FRCNN")
    lines = [f"{f},{i},{10 * i + f},5,8,20,0.9,-1,-1,-1\n" for f in (5, 6) for i in (1, 2)]
    (tmp_path / "results").mkdir()
    (tmp_path / "results/MOT17-02-FRCNN.txt").write_text("".join(lines))
    assert score_results(Mot(root=folder.parent, half="val"), tmp_path / "results").figures()["mot/HOTA"] == pytest.approx(1)
    assert score_results(Mot(root=folder.parent), tmp_path / "results").figures()["mot/FN"] == 8
    with pytest.raises(DataError, match="frame 5"):
        score_results(Mot(root=folder.parent, half="train"), tmp_path / "results")


def test_streamed_and_file_figures_agree_on_the_same_set(tmp_path: Path) -> None:
    from saccade.metrics.tracking import MotTracking
    from saccade.structures import Detections

    rng = np.random.default_rng(0)
    mot = Mot(root=write_sequence(tmp_path / "data/MOT17-02-FRCNN"), distractors=True)
    metric, lines = MotTracking(classes=mot.classes), []
    for index in range(len(mot)):
        sample = mot[index]
        keep = torch.from_numpy(rng.random(len(sample.boxes)) > 0.2)
        boxes, ids = sample.boxes.as_subclass(torch.Tensor)[keep], sample.track_ids[keep]
        metric.update([Detections(boxes, torch.ones(len(boxes)), torch.zeros(len(boxes), dtype=torch.int64), track_ids=ids)],
                      [sample.annotations()], [sample.meta])
        pairs = zip(ids.tolist(), boxes.tolist(), strict=True)
        lines += [f"{index + 1},{i},{x1},{y1},{x2 - x1},{y2 - y1},1,-1,-1,-1\n" for i, (x1, y1, x2, y2) in pairs]
    (tmp_path / "results").mkdir()
    (tmp_path / "results/MOT17-02-FRCNN.txt").write_text("".join(lines))
    figures = score_results(mot, tmp_path / "results").figures()
    assert {name: pytest.approx(value) for name, value in metric.compute().items()} == {name: figures[name] for name in metric.compute()}
