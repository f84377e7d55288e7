"""Folders of images and label maps: pairs by name and by lists, what the ids mean, and errors that name the files."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from label_maps import SIZE, write_image, write_map, write_pairs
from saccade.data.formats.segmentation import SegmentationFolders
from saccade.data.inspection import inspect
from saccade.errors import DataError, InputError


def test_pairs_have_one_name(tmp_path: Path) -> None:
    write_pairs(tmp_path, ("b", "deep/er/a", "c"))
    write_image(tmp_path / "images" / "d.jpg")
    write_map(tmp_path / "labels" / "d.png", (1,))
    data = SegmentationFolders(root=tmp_path, classes=["road", "sky"])
    assert [data.item_id(i) for i in range(len(data))] == ["b.png", "c.png", "d.jpg", "deep/er/a.png"] and data.problems == []
    sample = data[0]
    assert sample.segmentation is not None and sample.segmentation.dtype == torch.uint8 and tuple(sample.segmentation.shape) == SIZE
    assert sample.segmentation[0].tolist() == [0, 1] * 8 and sample.meta.id == "b.png" and sample.image[0, 0, 0] == 0
    label = data[2].segmentation
    assert label is not None and label.unique().tolist() == [1]
    assert data.label_path(3) == tmp_path / "labels" / "deep/er/a.png"


def test_suffixes_are_no_part_of_the_name(tmp_path: Path) -> None:
    for name in ("aachen/x_000_leftImg8bit", "ulm/y_001_leftImg8bit", "ulm/y_001_other"):
        write_image(tmp_path / "left" / f"{name}.png")
    for name in ("aachen/x_000_gtFine_labelIds", "ulm/y_001_gtFine_labelIds"):
        write_map(tmp_path / "gt" / f"{name}.png", (7, 0, 255))
        write_map(tmp_path / "gt" / f"{name.replace('labelIds', 'instanceIds')}.png", (77,))
    suffixes = {"image_suffix": "_leftImg8bit", "label_suffix": "_gtFine_labelIds"}
    data = SegmentationFolders(root=tmp_path, images="left", labels="gt", classes="cityscapes19", ids="cityscapes", **suffixes)
    assert [data.item_id(i) for i in range(len(data))] == ["aachen/x_000_leftImg8bit.png", "ulm/y_001_leftImg8bit.png"] and data.problems == []
    found = data.annotations(1).segmentation
    assert found is not None and found.unique().tolist() == [0, 255]
    assert len(data.classes) == 19 and data.colours is not None and data.colours[0] == (128, 64, 128) and set(data.subsets) == {"13", "16"}


def test_images_without_a_label_map_and_the_other_way_round_are_left_out_and_listed(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    write_image(tmp_path / "images" / "lonely.png")
    write_map(tmp_path / "labels" / "old.png", (0,))
    data = SegmentationFolders(root=tmp_path, classes=["road", "sky"])
    assert len(data) == 3 and data.describe()["left out"] == 2
    assert [(Path(p.file).name, p.consequence) for p in data.problems] == [("lonely.png", "left out"), ("old.png", "left out")]


def test_without_labels_nothing_is_known_but_the_classes(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    data = SegmentationFolders(root=tmp_path, labels=None)
    assert data.classes == () and data[0].segmentation is None and data.annotations(0).segmentation is None and data.label_path(0) is None
    assert data.describe()["labels"] == "none"
    named = SegmentationFolders(root=tmp_path, labels=None, classes="synthia16")
    assert len(named.classes) == 16 and named[0].segmentation is None


def test_splits_are_folders_below_both(tmp_path: Path) -> None:
    for split, values in (("train", (0, 1)), ("val", (1,))):
        write_image(tmp_path / "images" / split / "a.png")
        write_map(tmp_path / "labels" / split / "a.png", values)
    data = SegmentationFolders(root=tmp_path, split="val", classes=["road", "sky"])
    assert [data.item_id(i) for i in range(len(data))] == ["a.png"]
    assert data.annotations(0).segmentation.unique().tolist() == [1]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("c.png\n\na.png\n", ["c.png", "a.png"]),
        ("c\na\n", ["c.png", "a.png"]),
        ("b.png a.png\nmy photo.png\n", ["b.png", "my photo.png"]),
        ("./a.png\n", ["a.png"]),
    ],
)
def test_a_list_picks_images_in_its_order(tmp_path: Path, lines: str, expected: list[str]) -> None:
    write_pairs(tmp_path, ("a", "b", "c", "my photo"))
    (tmp_path / "list.txt").write_text(lines)
    data = SegmentationFolders(root=tmp_path, classes=["road", "sky"], list_file="list.txt")
    assert [data.item_id(i) for i in range(len(data))] == expected
    assert data.label_path(0) == tmp_path / "labels" / ("a.png" if expected[0] == "b.png" else expected[0])


def test_two_lists_are_read_in_parallel(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "train.txt").write_text("c.png\na.png\n")
    (tmp_path / "label.txt").write_text("a.png\nb.png\n")
    data = SegmentationFolders(root=tmp_path, classes=["road", "sky"], list_file="train.txt", label_list="label.txt")
    assert [(data.item_id(i), data.label_path(i)) for i in range(2)] == [("c.png", tmp_path / "labels/a.png"), ("a.png", tmp_path / "labels/b.png")]
    (tmp_path / "label.txt").write_text("a.png\n")
    with pytest.raises(DataError, match=r"train\.txt names 2 images and .*label\.txt 1 label maps"):
        SegmentationFolders(root=tmp_path, classes=["road", "sky"], list_file="train.txt", label_list="label.txt")
    with pytest.raises(InputError, match="label_list goes with list_file"):
        SegmentationFolders(root=tmp_path, classes=["road", "sky"], label_list="label.txt")


def test_all_missing_files_of_a_list_are_told_at_once(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "labels" / "b.png").unlink()
    (tmp_path / "list.txt").write_text("a.png\nb.png\nx.png y.png\n" + "".join(f"lost{k}.png\n" for k in range(12)))
    with pytest.raises(DataError) as caught:
        SegmentationFolders(root=tmp_path, classes=["road", "sky"], list_file="list.txt")
    text, first = str(caught.value), f"{tmp_path / 'labels/b.png'}, {tmp_path / 'images/x.png'}"
    assert text.startswith(f"27 of the files that {tmp_path / 'list.txt'} names do not exist: {first}, ")
    assert f"{tmp_path / 'labels/y.png'}" in text and "lost3" in text and "lost9" not in text and " and 17 more. " in text
    left = SegmentationFolders(root=tmp_path, classes=["road", "sky"], list_file="list.txt", missing="leave_out")
    assert [left.item_id(i) for i in range(len(left))] == ["a.png"] and len(left.problems) == 27
    assert left.problems[-1].where == "line 15" and "labels/lost11.png does not exist" in left.problems[-1].what
    (tmp_path / "list.txt").write_text("x.png\n")
    with pytest.raises(DataError, match=r"list\.txt names no image that exists"):
        SegmentationFolders(root=tmp_path, classes=["road", "sky"], list_file="list.txt", missing="leave_out")
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(DataError, match=r"list\.txt names no image; it is empty"):
        SegmentationFolders(root=tmp_path, classes=["road", "sky"], list_file="list.txt")


def test_folders_without_what_they_should_hold_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder of the images .*images does not exist"):
        SegmentationFolders(root=tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="images holds no pictures; check the path"):
        SegmentationFolders(root=tmp_path, labels=None)
    write_image(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match=r"the folder of the label maps .*labels does not exist"):
        SegmentationFolders(root=tmp_path)
    write_map(tmp_path / "labels" / "a_mask.png", (0,))
    with pytest.raises(DataError, match=r"none of the 1 images .* the first are a\.png and a_mask\.png\. Give image_suffix"):
        SegmentationFolders(root=tmp_path)
    assert len(SegmentationFolders(root=tmp_path, label_suffix="_mask")) == 1


def test_an_id_outside_the_classes_is_an_error_on_use_and_a_problem_in_an_inspection(tmp_path: Path) -> None:
    write_pairs(tmp_path, values=(0, 1, 255))
    write_map(tmp_path / "labels" / "b.png", (0, 77))  # of 192 pixels
    data = SegmentationFolders(root=tmp_path, classes=["road", "sky"])
    with pytest.raises(DataError, match=r"labels/b\.png has the id 77 \(96 pixels\), outside the label ids \(0-1, and 255"):
        data[1]
    found = inspect(data)
    assert [(Path(p.file).name, p.consequence) for p in found.problems] == [("b.png", "can't be used")]
    assert "labels/b.png has the id 77 (96 pixels)" in found.problems[0].what
    assert found.num_images == 3


def test_own_ids_and_further_ones_to_ignore(tmp_path: Path) -> None:
    write_pairs(tmp_path, values=(4, 9, 0, 255))
    data = SegmentationFolders(root=tmp_path, classes=["road", "sky"], ids=[9, 4], ignore_ids=[0])
    assert data.annotations(0).segmentation[0, :4].tolist() == [1, 0, 255, 255]  # type: ignore[union-attr]
    write_pairs(tmp_path, values=(0, 1, 11))
    data = SegmentationFolders(root=tmp_path, classes=["road", "sky"], ignore_ids=[11])
    assert data.annotations(0).segmentation[0, :3].tolist() == [0, 1, 255]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="ignore_ids has 1, which is the label id of sky"):
        SegmentationFolders(root=tmp_path, classes=["road", "sky"], ignore_ids=[1])


def test_class_names_come_from_a_file_or_are_the_numbers_that_occur(tmp_path: Path) -> None:
    write_pairs(tmp_path, values=(0, 3, 255))
    assert SegmentationFolders(root=tmp_path).classes == ("0", "1", "2", "3")
    (tmp_path / "labels" / "b.png").write_bytes(b"broken")
    assert SegmentationFolders(root=tmp_path, ignore_ids=[3]).classes == ("0",)
    (tmp_path / "classes.txt").write_text("road\nsky\ncar\ndog\n")
    assert SegmentationFolders(root=tmp_path).classes == ("road", "sky", "car", "dog")
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(InputError, match="give `classes`"):
        SegmentationFolders(root=tmp_path, ids="cityscapes")


def test_a_label_map_of_another_size_is_an_error_with_both_sizes(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    write_map(tmp_path / "labels" / "b.png", (0, 1), (24, 32))
    write_map(tmp_path / "labels" / "c.png", (0, 1), (16, 12))
    data = SegmentationFolders(root=tmp_path, classes=["road", "sky"])
    with pytest.raises(DataError, match=r"labels/b\.png is 32 x 24 \(width x height\) and its image .*images/b\.png 16 x 12"):
        data[1]
    assert [Path(p.file).name for p in inspect(data).problems] == ["b.png", "c.png"]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "images" / "a.png").write_bytes((tmp_path / "images" / "a.png").read_bytes()[:40])
    (tmp_path / "labels" / "b.png").write_bytes(b"no picture")
    data = SegmentationFolders(root=tmp_path, classes=["road", "sky"])
    with pytest.raises(DataError, match=r"images/a\.png"):
        data[0]
    with pytest.raises(DataError, match=r"labels/b\.png is no picture"):
        data[1]
    problems = inspect(data, verify_images=True).problems
    assert sorted(Path(p.file).name for p in problems if p.consequence == "can't be used") == ["a.png", "b.png"]


def test_an_inspection_counts_pixels_and_images_of_each_class(tmp_path: Path) -> None:
    write_pairs(tmp_path, values=(0, 1, 1, 255))
    write_map(tmp_path / "labels" / "c.png", (0,))
    found = inspect(SegmentationFolders(root=tmp_path, classes=["road", "sky", "car"]))
    pixels = SIZE[0] * SIZE[1]
    assert found.pixel_counts == {0: 2 * pixels // 4 + pixels, 1: pixels, 255: pixels // 2}
    assert found.class_counts == {0: 3, 1: 2}
    assert [p.what for p in found.problems] == ["1 of 3 never occur: car"]
