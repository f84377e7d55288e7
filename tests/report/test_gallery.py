"""The gallery keeps the best and the worst, and shows them in original pixels."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from saccade.report.gallery import Gallery
from saccade.structures import Annotations, Batch, Classification, Detections, Meta, Sample, collate, make_sample


class Pictures:
    """Ten grey pictures of 100 x 80 pixels with one object each, in memory."""

    name, classes, videos = "pictures", ("thing",), ()

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Sample:
        if index == self.broken:
            from saccade.errors import DataError

            raise DataError("cut short")
        image = torch.full((3, 80, 100), 20 * index, dtype=torch.uint8)
        return make_sample(image, self.annotations(index), dataset=self.name, id=self.item_id(index))

    def annotations(self, index: int) -> Annotations:
        return Annotations(boxes=torch.tensor([[10.0, 10, 50, 50]]), labels=torch.tensor([0]), label=0)

    def item_id(self, index: int) -> str:
        return f"picture {index}"

    def describe(self) -> dict[str, Any]:
        return {"images": 10}


def batch_of(data: Pictures, indices: list[int]) -> Batch:
    """As a loader makes it: small pictures for the network, the truth in original pixels."""
    small = [make_sample(torch.zeros(3, 32, 32, dtype=torch.uint8), dataset=data.name, id=data.item_id(i)) for i in indices]
    return collate(small, originals=[data.annotations(i) for i in indices])


def found(shift: float) -> Detections:
    return Detections(torch.tensor([[10.0 + shift, 10, 50 + shift, 50]]), torch.tensor([0.9]), torch.tensor([0]))


def run(gallery: Gallery, data: Pictures, good: set[int]) -> dict[str, Any]:
    for start in (0, 5):
        indices = list(range(start, start + 5))
        gallery(batch_of(data, indices), [found(0 if i in good else 60) for i in indices])
    gallery.close()
    index: dict[str, Any] = json.loads((gallery.folder / "gallery.json").read_text())
    return index


def test_the_best_and_worst_are_kept_and_drawn_in_original_pixels(tmp_path: Path) -> None:
    data = Pictures()
    index = run(Gallery(folder=tmp_path / "gallery", dataset=data, classes=data.classes, count=3), data, good={2, 5, 7})
    assert {entry["id"] for entry in index["best"]} == {"picture 2", "picture 5", "picture 7"}
    assert [entry["quality"] for entry in index["best"]] == [1, 1, 1] and [entry["quality"] for entry in index["worst"]] == [0, 0, 0]
    picture = np.asarray(Image.open(tmp_path / "gallery" / index["best"][1]["file"]))
    assert picture.shape[1] == 2 * 500 + 6  # 100 x 80 is enlarged five times, truth and prediction side by side
    assert abs(int(np.median(picture[100:, :500])) - 100) < 4  # picture 5 is 100 bright


def test_a_second_evaluation_replaces_the_first_ones_pictures(tmp_path: Path) -> None:
    data = Pictures()
    run(Gallery(folder=tmp_path, dataset=data, classes=data.classes, count=5), data, good={1})
    index = run(Gallery(folder=tmp_path, dataset=data, classes=data.classes, count=2), data, good={1})
    assert {p.name for p in tmp_path.glob("*.jpg")} == {entry["file"] for kind in ("best", "worst") for entry in index[kind]}


def test_an_image_that_can_not_be_read_again_is_left_out(tmp_path: Path) -> None:
    data = Pictures(broken=5)
    index = run(Gallery(folder=tmp_path, dataset=data, classes=data.classes, count=2), data, good={2, 5})
    assert [entry["id"] for entry in index["best"]] == ["picture 2"]


def test_classifications_are_ranked_by_the_probability_of_the_true_class(tmp_path: Path) -> None:
    data = Pictures()
    gallery = Gallery(folder=tmp_path, dataset=data, classes=("thing", "other"), count=1)
    scores = [Classification(torch.tensor([s, 1 - s])) for s in (0.5, 0.1, 0.9, 0.4, 0.6)]
    gallery(batch_of(data, list(range(5))), scores)
    gallery.close()
    index = json.loads((tmp_path / "gallery.json").read_text())
    assert index["best"][0]["id"] == "picture 2" and index["worst"][0]["id"] == "picture 1" and "probability" in index["quality"]


def test_images_without_truth_are_passed_over(tmp_path: Path) -> None:
    data = Pictures()
    gallery = Gallery(folder=tmp_path, dataset=data, classes=data.classes)
    gallery(Batch(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), [], [Meta(id="x")], originals=[Annotations()]), [found(0)])
    gallery.close()
    assert json.loads((tmp_path / "gallery.json").read_text())["best"] == []


def test_an_image_that_is_only_a_file_is_read_from_there(tmp_path: Path) -> None:
    Image.new("RGB", (100, 80), (90, 90, 90)).save(tmp_path / "photo.png")
    data = Pictures()
    gallery = Gallery(folder=tmp_path / "gallery", dataset=data, classes=data.classes)
    meta = Meta(id=77, path=str(tmp_path / "photo.png"))
    gallery(Batch(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), [], [meta], originals=[data.annotations(0)]), [found(0)])
    gallery.close()
    (entry,) = json.loads((tmp_path / "gallery" / "gallery.json").read_text())["best"]
    assert entry["caption"] == "photo.png"
