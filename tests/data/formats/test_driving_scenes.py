"""Cityscapes, GTA5, SYNTHIA and CamVid in their own layouts, on small files made here, and the real CamVid where it is."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from label_maps import SIZE, write_cityscapes, write_image, write_map
from saccade.data.formats.driving_scenes import CamVid, Cityscapes, Gta5, Synthia
from saccade.data.inspection import inspect
from saccade.errors import DataError

CAMVID = Path("/work/shared/data/camvid")


def first_row(data: Any, index: int = 0) -> list[int]:
    found = data[index].segmentation
    assert found is not None and found.dtype == torch.uint8
    return [int(label) for label in found[0]]


def test_cityscapes(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    data = Cityscapes(root=tmp_path)
    assert [data.item_id(i) for i in range(len(data))] == ["aachen/aachen_000000_000019_leftImg8bit.png", "ulm/ulm_000001_000019_leftImg8bit.png"]
    assert first_row(data) == [0, 13, 16, 255] * 4 and data.classes[13] == "car" and data.name == "cityscapes_train" and data.problems == []
    assert len(Cityscapes(root=tmp_path, split="val")) == 1
    assert first_row(Cityscapes(root=tmp_path, classes="synthia16")) == [0, 12, 255, 255] * 4  # no train among the sixteen
    (tmp_path / "list.txt").write_text("ulm/ulm_000001_000019_leftImg8bit.png\n")
    listed = Cityscapes(root=tmp_path, list_file="list.txt")
    assert len(listed) == 1 and listed.label_path(0) == tmp_path / "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png"


def test_a_target_domain_needs_no_labels_on_disk(tmp_path: Path) -> None:
    import shutil

    write_cityscapes(tmp_path)
    shutil.rmtree(tmp_path / "gtFine")
    data = Cityscapes(root=tmp_path, labelled=False)
    assert len(data) == 2 and data[0].segmentation is None and len(data.classes) == 19
    with pytest.raises(DataError, match="gtFine/train does not exist"):
        Cityscapes(root=tmp_path)


def test_an_id_that_no_definition_knows_is_an_error(tmp_path: Path) -> None:
    data = Cityscapes(root=write_cityscapes(tmp_path, (7, 34, 77)))
    with pytest.raises(DataError, match=r"aachen_000000_000019_gtFine_labelIds\.png has the id 77 \(60 pixels\), outside the Cityscapes ids \(0-34"):
        data[0]
    assert len([p for p in inspect(data).problems if p.consequence == "can't be used"]) == 2


def test_gta5_brings_label_maps_to_the_size_of_their_images(tmp_path: Path) -> None:
    for name, size in (("00001", SIZE), ("00002", (SIZE[0] * 2, SIZE[1] * 2))):
        write_image(tmp_path / "images" / f"{name}.png")
        values = np.repeat(np.resize([7, 33], SIZE[1]), size[1] // SIZE[1])
        palette = Image.fromarray(np.broadcast_to(values.astype(np.uint8), size).copy(), "P")
        palette.putpalette([(c * 7) % 256 for c in range(768)])
        (tmp_path / "labels").mkdir(exist_ok=True)
        palette.save(tmp_path / "labels" / f"{name}.png")
    data = Gta5(root=tmp_path)
    assert len(data) == 2 and first_row(data, 0) == [0, 18] * 8 and first_row(data, 1) == [0, 18] * 8
    assert data[1].segmentation.shape == data.annotations(1).segmentation.shape == SIZE  # type: ignore[union-attr]
    (tmp_path / "train.txt").write_text("00002.png\n")
    listed = Gta5(root=tmp_path, list_file="train.txt")
    assert len(listed) == 1 and listed.label_path(0) == tmp_path / "labels" / "00002.png"


def test_synthia_reads_sixteen_bits_and_parsed_labels(tmp_path: Path) -> None:
    for number, values in enumerate(((3, 21, 22), (16, 17, 0))):
        write_image(tmp_path / "RGB" / f"{number:07d}.png")
        ids = np.broadcast_to(np.resize(values, SIZE[1]), SIZE).astype(np.uint16)
        (tmp_path / "GT" / "LABELS").mkdir(parents=True, exist_ok=True)
        instances = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE) * 300
        cv2.imwrite(str(tmp_path / "GT" / "LABELS" / f"{number:07d}.png"), np.stack([ids * 0, instances, ids], -1))  # blue, green, red
        write_map(tmp_path / "parsed_LABELS" / f"{number:07d}.png", values)
    for labels in ("GT/LABELS", "parsed_LABELS"):
        data = Synthia(root=tmp_path, labels=labels)
        assert first_row(data, 0)[:3] == [0, 3, 255] and first_row(data, 1)[:3] == [255, 11, 255] and len(data.classes) == 16
        nineteen = Synthia(root=tmp_path, labels=labels, classes="cityscapes19")
        assert first_row(nineteen, 1)[:3] == [9, 12, 255]
        assert first_row(Synthia(root=tmp_path, labels=labels, classes="synthia13"), 0)[:3] == [0, 255, 255]  # no wall
    assert Synthia(root=tmp_path, labelled=False)[0].segmentation is None


def test_camvid_has_eleven_classes_and_named_splits(tmp_path: Path) -> None:
    for name in ("0001TP_006690", "0006R0_f00930"):
        write_image(tmp_path / "images" / f"{name}.jpg")
        write_map(tmp_path / "labels" / f"{name}.png", tuple(range(12)))
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "dusk_val.txt").write_text("0001TP_006690\n")
    assert len(CamVid(root=tmp_path)) == 2
    data = CamVid(root=tmp_path, split="dusk_val")
    assert len(data) == 1 and first_row(data)[:12] == [*range(11), 255] and data.classes[3] == "road" and data.name == "camvid_dusk_val"
    with pytest.raises(DataError, match=r"splits/dusk_test\.txt can't be read"):
        CamVid(root=tmp_path, split="dusk_test")


@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not here")
def test_the_real_camvid_has_the_shares_of_its_readme() -> None:
    splits = {"day_train": 476, "day_val": 101, "dusk_train": 62, "dusk_val": 62}
    assert {name: len(CamVid(root=CAMVID, split=name)) for name in splits} == splits
    found = inspect(CamVid(root=CAMVID, split="dusk_val"))
    other = inspect(CamVid(root=CAMVID, split="dusk_train"))
    assert found.problems == [] == other.problems and found.image_sizes == {(360, 480): 62}
    pixels = found.pixel_counts + other.pixel_counts
    shares = [round(100 * pixels[label] / (124 * 360 * 480), 2) for label in (*range(11), 255)]
    assert shares == [20.10, 21.78, 0.81, 17.32, 4.66, 16.07, 0.82, 0.60, 9.86, 0.88, 0.51, 6.60]
