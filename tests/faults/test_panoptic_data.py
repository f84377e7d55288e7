"""F8 for panoptic data: a png that contradicts its json is refused with file and segment, and one look lists every contradiction."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.data.formats.coco_panoptic import CocoPanoptic
from saccade.data.formats.writers import write_coco_panoptic
from saccade.data.inspection import inspect
from saccade.data.town.panoptic import TownPanoptic
from saccade.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_coco_panoptic(TownPanoptic(num_images=3, size=64, masks=False), tmp_path / "town")
    return tmp_path / "town"


def edit(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = root / "annotations" / "panoptic_train.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def segments(content: dict[str, Any], image: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = content["annotations"][image]["segments_info"]
    return found


def test_an_id_that_only_the_png_has_names_file_and_segment(root: Path) -> None:
    edit(root, lambda c: segments(c).pop(0))
    with pytest.raises(DataError, match=r"train/train_0001_0000\.png contradicts .*panoptic_train\.json: segment 7: it has \d+ pixels in the"):
        CocoPanoptic(root=root, split="train")[1]


def test_an_id_that_only_the_json_has_names_file_and_segment(root: Path) -> None:
    edit(root, lambda c: segments(c).append({"id": 77_777, "category_id": 1, "area": 5, "iscrowd": 0}))
    with pytest.raises(DataError, match=r"train_0001_0000\.png contradicts .*segment 77777: it is in the json and has no pixel in the png"):
        CocoPanoptic(root=root, split="train")[1]


def test_another_area_names_both_and_a_missing_area_is_fine(root: Path) -> None:
    edit(root, lambda c: (segments(c)[0].update(area=3), segments(c, 2)[0].pop("area")))
    data = CocoPanoptic(root=root, split="train")
    with pytest.raises(DataError, match=r"train_0001_0000\.png contradicts .*segment 7: its area is 3 in the json and \d+ pixels in the png"):
        data[1]
    assert len(data[2].boxes) > 0  # type: ignore[arg-type]


def test_a_png_of_another_size_and_one_of_another_size_than_the_picture_are_refused(root: Path) -> None:
    png = root / "panoptic_train" / "train_0001_0000.png"
    Image.open(png).resize((32, 64), Image.Resampling.NEAREST).save(png)
    with pytest.raises(DataError, match="the png is 32 x 64, the json says 64 x 64"):
        CocoPanoptic(root=root, split="train")[1]
    picture = root / "train" / "train_0002_0000.png"
    Image.open(picture).resize((50, 64)).save(picture)
    with pytest.raises(DataError, match=r"train/train_0002_0000\.png is 50 x 64 .* its panoptic map .* is 64 x 64"):
        CocoPanoptic(root=root, split="train", masks=False)[2]


def test_a_missing_or_broken_png_is_named(root: Path) -> None:
    (root / "panoptic_train" / "train_0000_0000.png").unlink()
    (root / "panoptic_train" / "train_0001_0000.png").write_bytes(b"no picture")
    data = CocoPanoptic(root=root, split="train")
    with pytest.raises(DataError, match=r"panoptic_train/train_0000_0000\.png does not exist"):
        data[0]
    with pytest.raises(DataError, match=r"panoptic_train/train_0001_0000\.png is no picture"):
        data[1]


def test_an_unknown_category_makes_a_segment_void_and_is_listed_with_file_and_segment(root: Path) -> None:
    edit(root, lambda c: segments(c)[0].update(category_id=99))
    data = CocoPanoptic(root=root, split="train")
    (problem,) = data.problems
    assert problem.where == "train_0001_0000.png, segment 7" and "its category 99 is not listed" in problem.what
    known = data[1].panoptic
    assert known is not None and 7 not in [s.id for s in known.segments] and not (known.segment_map == 7).any() and (known.segment_map == 0).any()


def test_one_look_lists_every_contradiction(root: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        segments(content, 0)[0]["id"] = 88_888
        segments(content, 1)[1]["area"] = 1
        content["annotations"][2]["segments_info"].append({"id": 0, "category_id": 1})
        content["annotations"].append({"image_id": 999, "file_name": "x.png", "segments_info": []})
        content["images"].append({"id": 55, "file_name": "lonely.png", "height": 4, "width": 4})

    edit(root, spoil)
    found = inspect(CocoPanoptic(root=root, split="train"))
    texts = [f"{p.file} {p.where}: {p.what} [{p.consequence}]" for p in found.problems]
    for expected in (
        "train_0000_0000.png segment 88888: it is in the json and has no pixel", "train_0000_0000.png segment 7: it has",
        "train_0001_0000.png segment 8: its area is 1 in the json", "train_0002_0000.png, segment 0: its id is not a whole number",
        "annotation of image 999: the file does not list this image [left out]", "image lonely.png: it has no entry in annotations [left out]",
    ):
        assert any(expected in text for text in texts), expected
    assert found.num_images == 3


def test_a_category_without_isthing_is_listed_and_a_detection_file_is_refused(root: Path) -> None:
    edit(root, lambda c: c["categories"][6].pop("isthing"))
    data = CocoPanoptic(root=root, split="train")
    assert data.things[6] and "category 7 (road)" in data.problems[0].where
    edit(root, lambda c: [a.pop("segments_info") for a in c["annotations"]])
    with pytest.raises(DataError, match="no segments_info; detection files are read as `Coco`"):
        CocoPanoptic(root=root, split="train")


def test_a_black_png_without_segments_is_legal(root: Path) -> None:
    png = root / "panoptic_train" / "train_0001_0000.png"
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(png)
    edit(root, lambda c: segments(c).clear())
    sample = CocoPanoptic(root=root, split="train")[1]
    assert sample.num_objects == 0 and sample.panoptic is not None and sample.panoptic.segments == ()
    assert "it has no objects" in [p.what for p in inspect(CocoPanoptic(root=root, split="train")).problems]
