"""SORT on the detections that its authors published, against the figures of its paper; the data lie beside the project or the test is skipped."""
from __future__ import annotations

from pathlib import Path

import pytest

from saccade.metrics.mot import challenge
from saccade.metrics.mot.evaluation import count
from saccade.report.detection_files import find_videos
from saccade.report.file_tracking import track_files
from saccade.tracking.naming import tracker_named

DATA = Path(__file__).parents[3] / "shared" / "data" / "mot_text" / "mot15"

# false positives, misses, switches, MOTA: the table of github.com/abewley/sort, which is that of the paper
PUBLISHED = {"TUD-Campus": (15, 113, 6, 62.7), "ETH-Sunnyday": (319, 418, 22, 59.1), "KITTI-17": (38, 225, 9, 60.2)}


@pytest.mark.skipif(not DATA.is_dir(), reason="the MOT15 sequences are not beside the project")
@pytest.mark.parametrize("name", PUBLISHED)
def test_sort_reaches_its_published_figures_to_the_last_box(name: str, tmp_path: Path) -> None:
    track_files(find_videos(DATA / name), tracker_named("sort"), tmp_path)
    figures = count(challenge.read_sequence(name, DATA / name / "gt" / "gt.txt", tmp_path / f"{name}.txt")).figures()
    false, missed, switches, mota = PUBLISHED[name]
    assert (figures["FP"], figures["FN"], figures["IDSW"]) == (false, missed, switches)
    assert 100 * figures["MOTA"] == pytest.approx(mota, abs=0.051)


@pytest.mark.skipif(not DATA.is_dir(), reason="the MOT15 sequences are not beside the project")
def test_byte_track_follows_longer_than_sort(tmp_path: Path) -> None:
    videos = find_videos(DATA / "PETS09-S2L1")
    sort, byte = (track_files(videos, tracker_named(name), tmp_path / name)[0] for name in ("sort", "bytetrack"))
    assert byte.tracks < 0.6 * sort.tracks and byte.boxes > sort.boxes
