"""The panels of a label map: what each shows, in which size, and that a report puts those of several runs beside each other."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.report.page import render_page
from saccade.report.run_data import load_run
from saccade.report.segmentation_sheet import sheet_maps, write_panels
from saccade.structures import Annotations, SegmentationMap
from segmentation_runs import COLOURS, TRUTH, found, keep, write_segmentation_run


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_panels_show_the_image_the_labels_in_their_colours_and_where_the_network_is_unsure(tmp_path: Path) -> None:
    image = np.full((30, 40, 3), 90, dtype=np.uint8)
    panels = write_panels(tmp_path, "a", image, sheet_maps(found(5), Annotations(segmentation=TRUTH)), COLOURS)
    assert [panel["title"] for panel in panels] == ["image", "truth", "prediction", "entropy"]
    photo, truth, prediction, entropy = (pixels(tmp_path / panel["file"]) for panel in panels)
    assert np.abs(photo - 90).max() < 4
    assert tuple(truth[5, 5]) == COLOURS[1] and tuple(truth[15, 5]) == COLOURS[0] and tuple(truth[28, 5]) == (0, 0, 0)
    assert tuple(prediction[12, 5]) == COLOURS[1] and tuple(prediction[28, 5]) == COLOURS[1]
    assert entropy.shape == photo.shape and entropy.mean() < 20
    unsure = write_panels(tmp_path, "b", image, sheet_maps(found(5, sure=False), Annotations()), COLOURS)
    assert [panel["title"] for panel in unsure] == ["image", "prediction", "entropy"] and pixels(tmp_path / unsure[2]["file"]).min() > 130


def test_what_is_kept_of_large_maps_is_small_and_a_map_without_probabilities_has_no_entropy(tmp_path: Path) -> None:
    labels = torch.arange(1024)[:, None].div(512, rounding_mode="floor").expand(1024, 2048)
    maps = sheet_maps(SegmentationMap(labels.contiguous()), Annotations(segmentation=labels.to(torch.uint8)))
    assert maps.found.shape == (320, 640) and maps.found[:160].max() == 0 and maps.found[160:].min() == 1 and maps.entropy is None
    panels = write_panels(tmp_path, "a", np.zeros((1024, 2048, 3), dtype=np.uint8), maps, COLOURS)
    assert {pixels(tmp_path / panel["file"]).shape for panel in panels} == {(320, 640, 3)} and len(panels) == 3


def test_the_best_and_worst_go_by_the_image_s_own_iou_and_the_samples_are_the_same_every_time(tmp_path: Path) -> None:
    first = keep(tmp_path / "a", lambda i: i)
    again = keep(tmp_path / "b", lambda i: 11 - i)
    assert [entry["id"] for entry in first["best"]] == [f"street_{i:02d}.png" for i in (0, 1, 2)]
    assert [entry["id"] for entry in first["worst"]] == [f"street_{i:02d}.png" for i in (11, 10, 9)] and first["quality"] == "mIoU of the image"
    assert first["best"][0]["quality"] == 1 and first["best"][1]["quality"] == pytest.approx((14 / 15 + 10 / 11) / 2, abs=1e-4)
    names = [f"street_{i:02d}.png" for i in (1, 4, 7, 10)]
    assert [entry["id"] for entry in first["samples"]] == [entry["id"] for entry in again["samples"]] == names
    assert first["legend"] == [["road", "#804080"], ["sky", "#4682b4"]]
    listed = {panel["file"] for kind in ("best", "worst", "samples") for entry in first[kind] for panel in entry["panels"]}
    assert listed == {path.name for path in (tmp_path / "a").iterdir()} - {"gallery.json"}
    assert abs(pixels(tmp_path / "a" / first["best"][2]["panels"][0]["file"]).mean() - 40) < 4  # the picture of the data set, not the network's


def test_a_second_evaluation_leaves_no_panel_of_the_first(tmp_path: Path) -> None:
    keep(tmp_path, lambda i: i, count=5)
    index = keep(tmp_path, lambda i: i, count=1)
    listed = {panel["file"] for kind in ("best", "worst", "samples") for entry in index[kind] for panel in entry["panels"]}
    assert listed == {path.name for path in tmp_path.iterdir()} - {"gallery.json"}


def page_of(*folders: Path) -> str:
    return render_page([load_run(folder) for folder in folders])


def test_a_report_of_one_run_shows_its_panels_and_names_their_colours(tmp_path: Path) -> None:
    page = page_of(write_segmentation_run(tmp_path / "run", lambda i: i, 0.5))
    assert page.count("image/png;base64") == 2 * 6 and page.count("image/jpeg;base64") == 2 * 6  # three worst and three best
    assert "background:#804080" in page and "entropy, from 0 (sure) to 1" in page and "The same images by all runs" not in page


def test_a_report_of_two_runs_puts_the_same_images_beside_each_other(tmp_path: Path) -> None:
    before, after = write_segmentation_run(tmp_path / "before", lambda i: 10, 0.25), write_segmentation_run(tmp_path / "after", lambda i: 2, 0.75)
    page = page_of(before, after)
    comparison = page[page.index("The same images by all runs") : page.index("Worst predictions")]
    assert comparison.count("street_01.png</span>") == 1 and "street_10.png" in comparison and "--columns:3" in comparison
    qualities = [(5 / 15 + 10 / 20) / 2, (13 / 15 + 10 / 12) / 2]  # of the road's fifteen rows ten, and two, are taken for sky
    assert " → ".join(f"{quality:.2f}" for quality in qualities) in comparison
    titles = ("image", "truth", "before", "entropy, before", "after", "entropy, after")
    order = [comparison.index(f"<figcaption>{title}</figcaption>") for title in titles]
    assert order == sorted(order)
    assert "IoU by class" in page and "road: 0.25, 0.75; sky: none, none" in page


def test_without_labels_the_samples_are_shown_without_a_quality(tmp_path: Path) -> None:
    page = page_of(write_segmentation_run(tmp_path / "run", lambda i: i, 0.5, labelled=False))
    assert "<h4>Predictions</h4>" in page and "Worst" not in page and page.count("image/png;base64") == 4 and ">nan<" not in page


def test_a_colour_that_is_none_and_a_panel_that_leads_elsewhere_are_not_taken_over(tmp_path: Path) -> None:
    folder = write_segmentation_run(tmp_path / "run", lambda i: i, 0.5)
    index = folder / "evaluation/dusk/gallery/gallery.json"
    known = json.loads(index.read_text())
    known["legend"][0][1] = "red;position:fixed"
    (tmp_path / "secret.png").write_bytes(b"secret")
    known["best"][0]["panels"][1]["file"] = "../../../../secret.png"
    index.write_text(json.dumps(known))
    run = load_run(folder)
    assert run.results["dusk"].legend == (("sky", "#4682b4"),) and len(run.results["dusk"].best) == 2
    assert any("secret.png is missing" in note for note in run.notes)
