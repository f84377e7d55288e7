"""The report holds what the run holds, and nothing reaches outside it."""
from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from saccade.errors import InputError
from saccade.report.page import Opening, render_page, write_page
from saccade.report.run_data import load_run
from saccade.report.sections import MethodResult, methods_table

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and visible text; fails on tags that close what is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.scripts = 0
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def render(*folders: Path) -> tuple[str, Page]:
    text = render_page([load_run(folder) for folder in folders])
    return text, Page(text)


def test_the_page_holds_figures_curves_classes_pictures_recipe_and_environment(run_folder: Path) -> None:
    _, page = render(run_folder)
    for expected in ("0.830", "0.680", "coco/AP50", "night", "grad_norm", "bicycle", "Confusion matrix", "precision over recall", "frame_2",
                     "learner.optimizer.lr", "command line", "zoo/ssd_town.yaml:3", "2.15.0", "600 of 600", "[320, 320]"):
        assert expected in page.words, expected
    assert sum(tag == "svg" for tag, key, _ in page.attributes if key == "class") >= 8
    assert sum(tag == "img" for tag, key, _ in page.attributes if key == "src") == 12


def test_the_page_asks_the_network_for_nothing(run_folder: Path) -> None:
    text, page = render(run_folder)
    links = [value for _, key, value in page.attributes if key in ("src", "href", "action", "data", "poster", "srcset")]
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in links)
    assert not re.search(r"https?://|@import|url\(", text)
    assert {tag for tag, _, _ in page.attributes} & {"link", "iframe", "object", "base"} == set()


def test_hostile_names_are_text(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    name = '<script>alert("x")</script>'
    folder = make_run(tmp_path / "run", classes=(name, 'b" onload="alert(1)', "c", "d"), data=("<img onerror=alert(1)>",))
    _, page = render(folder)
    assert page.scripts == 1 and name in page.words
    assert not any(key.startswith("on") for _, key, _ in page.attributes)


def test_several_runs_stand_side_by_side_with_what_differs(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    text, page = render(make_run(tmp_path / "one"), make_run(tmp_path / "two", shift=0.05))
    assert "What differs between the recipes" in page.words and "0.06" in page.words
    rows = re.findall(r"<tr><td>voc/mAP</td><td>(.*?)</td>(.*?)</tr>", text)
    assert [name for name, _ in rows] == ["one", "two"]
    assert "top" not in rows[0][1] and rows[1][1].count("top") == 3


def test_no_run_is_the_best_by_a_figure_without_labels(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    folders = [make_run(tmp_path / name, data=("day",)) for name in ("one", "two")]
    for folder, entropy in zip(folders, (0.25, 0.5), strict=True):
        (folder / "evaluation/day/figures.json").write_text(json.dumps({"iou/mIoU": entropy, "unlabelled/entropy": entropy}))
    text, _ = render(*folders)
    rows = {(figure, run): top for figure, run, top in re.findall(r"<tr><td>([a-zA-Z/]+)</td><td>(\w+)</td><td class=\"n( top)?\">", text)}
    assert rows["iou/mIoU", "two"] == " top" and rows["unlabelled/entropy", "two"] == rows["unlabelled/entropy", "one"] == ""


def test_runs_of_the_same_name_are_told_apart_by_their_folders(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    folders = [make_run(tmp_path / side / "run", data=("day",)) for side in ("a", "b")]
    _, page = render(*folders)
    assert str(folders[0]) in page.words and str(folders[1]) in page.words


def test_a_killed_run_is_shown_as_far_as_it_got(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    folder = make_run(tmp_path / "run", steps=150)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "step": 152, "lo')
    (folder / "evaluation" / "day" / "details.json").write_text('{"coco": ')
    (folder / "evaluation" / "day" / "gallery" / "best_0.jpg").unlink()
    _, page = render(folder)
    assert "step 150 of 600" in page.words and "cut off" in page.words
    assert "details.json can't be read" in page.words and "best_0.jpg is missing" in page.words


def test_a_run_without_anything_but_a_recipe_is_shown(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: {type: SSD}\n")
    _, page = render(tmp_path)
    assert "Nothing has been evaluated yet" in page.words and "No step has been recorded" in page.words


def test_figures_without_files_come_from_the_last_evaluation(tmp_path: Path) -> None:
    records = [{"kind": "evaluation", "step": s, "val/voc/mAP": v} for s, v in ((10, 0.25), (20, 0.75))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(r) for r in records))
    run = load_run(tmp_path)
    assert run.results["val"].figures == {"voc/mAP": 0.75} and run.evaluation_curve("val/voc/mAP") == [(10, 0.25), (20, 0.75)]


def test_undefined_and_infinite_values_are_shown_as_such(tmp_path: Path) -> None:
    losses = ['{"kind": "train", "step": 1, "loss": NaN}', '{"kind": "train", "step": 2, "loss": 1.5}']
    lines = [*losses, '{"kind": "evaluation", "step": 2, "val/coco/AP": -1}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    _, page = render(tmp_path)
    assert not any("nan" in value for _, key, value in page.attributes if key in ("points", "cx", "cy", "x", "y"))
    assert ": 1.5 at 2" in page.words


def test_what_a_metric_notes_and_a_choice_by_labels_are_said(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    folder = make_run(tmp_path / "run", data=("dusk",))
    (folder / "recipe.yaml").write_text("learner: {type: Adapting}\nrun: {best: dusk/iou/mIoU}\n")
    (folder / "evaluation/dusk/details.json").write_text(json.dumps({"iou": {"note": "none of the 3 images has labels"}}))
    _, page = render(folder)
    assert "chosen by dusk/iou/mIoU, that is with labels of dusk" in page.words and "dusk: none of the 3 images has labels" in page.words


def test_warnings_and_skipped_images_are_listed(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    folder = make_run(tmp_path / "run", data=("day",))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"kind": "skipped", "step": 7, "id": "broken_4.jpg", "reason": "cut short"}) + "\n")
    (folder / "log.txt").write_text("12:00 INFO fine\n12:01 WARNING the disk is nearly full\n")
    _, page = render(folder)
    assert "the disk is nearly full" in page.words and "INFO fine" not in page.words
    assert "id: broken_4.jpg; reason: cut short" in page.words


def test_a_gallery_entry_cannot_point_outside_its_folder(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    folder = make_run(tmp_path / "run", data=("day",))
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (folder / "evaluation/day/gallery/gallery.json").write_text(json.dumps({"best": [{"file": "../../../../secret.jpg", "quality": 1}]}))
    assert load_run(folder).results["day"].best == ()


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_what_is_no_run_is_refused_by_name(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "empty":
        path.mkdir()
    elif what == "file":
        path.write_text("x")
    with pytest.raises(InputError, match=what):
        load_run(path)


def test_a_page_can_begin_with_a_table_of_methods_and_a_video_that_it_holds(run_folder: Path, make_run: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_bytes(b"film")
    (tmp_path / "video.jpg").write_bytes(b"still")
    table = methods_table([MethodResult("source", "day", {"mot/HOTA": 0.52}), MethodResult("DARTH <offline>", "fog", {"mot/HOTA": 0.434}, True)])
    opening = Opening("Day to fog", "What was done & seen.", table, tmp_path / "video.mp4", tmp_path / "video.jpg", "Three panels.")
    out = write_page([run_folder, make_run(tmp_path / "other")], tmp_path / "page.html", opening)
    page = Page(out.read_text())
    assert ("video", "src", "data:video/mp4;base64,ZmlsbQ==") in page.attributes
    assert ("video", "poster", "data:image/jpeg;base64,c3RpbGw=") in page.attributes
    for words in ("Day to fog", "What was done & seen.", "DARTH <offline> fog 43.4 – – – –", "Three panels."):
        assert words in page.words
    assert "<video" not in render(run_folder)[0] and "side-by-side" not in render(run_folder)[0]


def test_an_online_run_is_not_called_unfinished(make_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_run(tmp_path / "online", steps=40, planned=60)
    assert "is still going or was stopped" in render(folder)[0]
    (folder / "frames.jsonl").write_text("")
    assert "is still going or was stopped" not in render(folder)[0]
