"""Tracking files as people have them (F11): every one gives the reference tool's figures or an error that names file, line and frame."""
from __future__ import annotations

from pathlib import Path

import pytest

from command_line import run
from saccade.data.formats.mot import Mot
from saccade.data.tracking_results import score_results
from saccade.errors import DataError
from saccade.metrics.mot.challenge import read_sequence
from saccade.metrics.mot.evaluation import count
from saccade.metrics.mot.files import read_table

TRUTH = [f"{frame},{track},{100 * track + frame},50,40,80,1,1,1" for track in (1, 2, 3) for frame in range(1, 11)]
FOUND = [f"{frame},{track},{100 * track + frame + 2},52,40,80,0.9,-1,-1,-1" for track in (1, 2, 3) for frame in range(1, 11)]


def score(tmp_path: Path, found: list[str] | str, truth: list[str] = TRUTH, num_frames: int = 10) -> dict[str, float]:
    (tmp_path / "gt.txt").write_text("\n".join(truth) + "\n")
    (tmp_path / "result.txt").write_text(found if isinstance(found, str) else "\n".join(found) + "\n")
    sequence = read_sequence("MOT17-02", tmp_path / "gt.txt", tmp_path / "result.txt", num_frames=num_frames)
    return count(sequence).figures(of_one_video=True)


def trackeval_figures(tmp_path: Path, num_frames: int = 10) -> dict[str, float]:
    """TrackEval's own reading and figures of the same two files."""
    trackeval = pytest.importorskip("trackeval")
    for part, name in (("gt/MOT17-train/MOT17-02/gt", "gt.txt"), ("trackers/MOT17-train/t/data", "MOT17-02.txt")):
        (tmp_path / part).mkdir(parents=True, exist_ok=True)
        (tmp_path / part / name).write_text((tmp_path / ("gt.txt" if part.startswith("gt") else "result.txt")).read_text())
    dataset = trackeval.datasets.MotChallenge2DBox({
        "GT_FOLDER": str(tmp_path / "gt"), "TRACKERS_FOLDER": str(tmp_path / "trackers"), "SEQ_INFO": {"MOT17-02": num_frames}, "PRINT_CONFIG": False,
    })
    data = dataset.get_preprocessed_seq_data(dataset.get_raw_seq_data("t", "MOT17-02"), "pedestrian")
    quiet = {"PRINT_CONFIG": False}
    found: dict[str, float] = {}
    for metric in (trackeval.metrics.HOTA(), trackeval.metrics.CLEAR(quiet), trackeval.metrics.Identity(quiet)):
        values = metric.eval_sequence(data)
        found |= {name.removeprefix("CLR_"): float(value.mean() if hasattr(value, "mean") else value) for name, value in values.items()}
    return found


def assert_as_trackeval(tmp_path: Path, figures: dict[str, float], num_frames: int = 10) -> None:
    reference = trackeval_figures(tmp_path, num_frames)
    for name in ("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDF1", "IDSW", "FP", "FN", "MT", "PT", "ML", "Frag", "IDTP", "MLR"):
        assert figures[name] == pytest.approx(reference[name], abs=1e-9), name


def test_unsorted_files_mean_the_same_as_sorted_ones(tmp_path: Path) -> None:
    figures = score(tmp_path, FOUND[::-1], TRUTH[7:] + TRUTH[:7])
    assert_as_trackeval(tmp_path, figures)
    assert figures == score(tmp_path, FOUND)


def test_gaps_in_frames_count_as_misses(tmp_path: Path) -> None:
    figures = score(tmp_path, [row for row in FOUND if not row.startswith(("4,", "5,"))])
    assert figures["FN"] == 6 and figures["IDSW"] == 0
    assert_as_trackeval(tmp_path, figures)


def test_frames_without_truth_or_without_results_are_counted(tmp_path: Path) -> None:
    figures = score(tmp_path, FOUND, [row for row in TRUTH if not row.startswith(("1,", "2,"))])
    assert figures["FP"] == 6
    assert_as_trackeval(tmp_path, figures)


@pytest.mark.parametrize("found, truth", [("", TRUTH), (FOUND, []), ("", [])])
def test_empty_files_have_defined_figures(tmp_path: Path, found: list[str] | str, truth: list[str]) -> None:
    figures = score(tmp_path, found, truth)
    assert figures["HOTA"] == 0 and figures["FN"] == len(truth) and figures["FP"] == len(found)
    if found and truth:
        assert_as_trackeval(tmp_path, figures)


def test_one_frame_and_two_thousand_frames(tmp_path: Path) -> None:
    one = score(tmp_path, ["1,1,101,50,40,80,1,-1,-1,-1"], ["1,1,101,50,40,80,1,1,1"], num_frames=1)
    assert one["HOTA"] == pytest.approx(1)
    assert_as_trackeval(tmp_path, one, 1)
    rows = [f"{frame},{1 + frame // 1000},{100 + frame % 50},50,40,80,1,1,1" for frame in range(1, 2001)]
    many = score(tmp_path, rows, [row.replace(",2,", ",1,", 1) for row in rows], num_frames=2000)
    assert many["IDSW"] == 1
    assert_as_trackeval(tmp_path, many, 2000)


@pytest.mark.parametrize("replaced", ["1 1 101 50 40 80 0.9 -1 -1 -1", "1;1;101;50;40;80;0.9;-1;-1;-1"])
def test_other_separators_are_understood(tmp_path: Path, replaced: str) -> None:
    separator = ";" if ";" in replaced else " "
    assert score(tmp_path, [row.replace(",", separator) for row in FOUND]) == score(tmp_path, FOUND)


def test_blank_lines_trailing_commas_byte_order_marks_and_windows_ends_do_no_harm(tmp_path: Path) -> None:
    text = "\ufeff" + "\r\n".join([FOUND[0] + ",", "", *FOUND[1:], "", ""])
    assert score(tmp_path, text) == score(tmp_path, FOUND)


def test_a_truth_without_visibility_or_class_is_all_pedestrians(tmp_path: Path) -> None:
    for columns in (8, 7, 6):
        assert score(tmp_path, FOUND, [",".join(row.split(",")[:columns]) for row in TRUTH]) == score(tmp_path, FOUND)


@pytest.mark.parametrize("row, message", [
    ("3,2,205,52,40,80,0.9,-1,-1,-1", r"lines \d+ and 31: the result has the id 2 twice in frame 3"),
    ("3,9,205,52,40,80,nan,-1,-1,-1", r"line 31: its score is nan"),
    ("3,9,205,nan,40,80,0.9,-1,-1,-1", r"line 31: its box is 205 nan 40 80"),
    ("3,9,205,52,inf,80,0.9,-1,-1,-1", r"line 31: its box is"),
    ("3,x,205,52,40,80,0.9,-1,-1,-1", r"line 31: .* something else than numbers"),
    ("3.5,9,205,52,40,80,0.9,-1,-1,-1", r"line 31: its frame is 3.5"),
    ("0,9,205,52,40,80,0.9,-1,-1,-1", r"line 31: its frame is 0"),
    ("11,9,205,52,40,80,0.9,-1,-1,-1", r"line 31: frame 11 lies beyond the 10 frames"),
    ("3,1e300,205,52,40,80,0.9,-1,-1,-1", r"line 31: its id is 1e\+300"),
    ("3,9,205,52,40", r"line 31: it has 5 columns"),
    ("3,9,205,52,40,80,0.9,3,-1,-1", r"line 31: it has the class 3, but only pedestrians"),
])
def test_a_wrong_line_is_named_with_its_number(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        score(tmp_path, [*FOUND, row])
    assert "result.txt" in str(caught.value)


def test_ids_that_repeat_in_the_truth_are_an_error_as_in_the_reference(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gt\.txt, lines \d+ and 31: the truth has the id 1 twice in frame 4"):
        score(tmp_path, FOUND, [*TRUTH, "4,1,300,50,40,80,1,1,1"])


def test_detections_are_told_from_tracks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="these are detections, not tracks"):
        score(tmp_path, [",".join([row.split(",")[0], "-1", *row.split(",")[2:]]) for row in FOUND])


def test_negative_ids_boxes_without_area_and_boxes_outside_count_as_they_are(tmp_path: Path) -> None:
    rows = [*FOUND, "1,50,10,10,0,80,1,-1,-1,-1", "2,50,-500,10,-5,80,1,-1,-1,-1", "3,50,9000,9000,5,80,1,-1,-1,-1"]
    figures = score(tmp_path, rows)
    assert figures["FP"] == 3
    assert_as_trackeval(tmp_path, figures)
    negative = score(tmp_path, [",".join([f, str(-int(t) - 5), *rest]) for f, t, *rest in (row.split(",") for row in FOUND)])
    assert negative == score(tmp_path, FOUND)


def test_distractors_excuse_as_in_the_reference(tmp_path: Path) -> None:
    truth = [*TRUTH, *(f"{frame},20,{600 + frame},50,40,80,0,8,1" for frame in range(1, 11)),
             *(f"{frame},21,{800 + frame},50,40,80,0,3,1" for frame in range(1, 11))]
    found = [*FOUND, *(f"{frame},{track},{x + frame},50,40,80,0.9,-1,-1,-1" for track, x in ((7, 600), (8, 800)) for frame in range(1, 11))]
    figures = score(tmp_path, found, truth)
    assert figures["FP"] == 10, "what falls to a distractor is forgiven, what falls to a car is not"
    assert_as_trackeval(tmp_path, figures)


def test_missing_unreadable_and_misplaced_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"nothing\.txt"):
        read_table(tmp_path / "nothing.txt")
    (tmp_path / "binary.txt").write_bytes(bytes(range(128, 256)))
    with pytest.raises(DataError, match=r"binary\.txt"):
        read_table(tmp_path / "binary.txt")
    for name in ("MOT17-02-FRCNN", "MOT17-04-FRCNN"):
        (tmp_path / f"set/{name}/gt").mkdir(parents=True)
        (tmp_path / f"set/{name}/gt/gt.txt").write_text("\n".join(TRUTH))
        (tmp_path / f"set/{name}/seqinfo.ini").write_text("[Sequence]\nseqLength=10\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/MOT17-02-DPM.txt").write_text("\n".join(FOUND))
    with pytest.raises(DataError, match="no results for 1 of the 2 videos of mot: MOT17-04-FRCNN"):
        score_results(Mot(root=tmp_path / "set"), tmp_path / "results")
    assert run("evaluate", "--results", str(tmp_path / "results"), "--data", str(tmp_path / "set")) == 3
    assert "MOT17-04-FRCNN" in capsys.readouterr().err
    (tmp_path / "results/MOT17-04.txt").write_text("")
    rows = score_results(Mot(root=tmp_path / "set"), tmp_path / "results").rows()
    assert rows["MOT17-02-FRCNN"]["HOTA"] > 0.8 and rows["MOT17-04-FRCNN"]["FN"] == 30
