"""COCO panoptic files: what is written is read again, ids are colours, segments are objects, void and crowds stay what they are."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from saccade.data.formats.coco import Coco
from saccade.data.formats.coco_panoptic import CocoPanoptic, read_segment_ids
from saccade.data.formats.results import panoptic_result, panoptic_results
from saccade.data.formats.writers import write_coco, write_coco_panoptic
from saccade.data.recognition import candidates, open_dataset, open_splits, recognise
from saccade.data.segments import segment_objects
from saccade.data.town.panoptic import TownPanoptic
from saccade.errors import DataError, InputError
from saccade.structures import Annotations, Panoptic, Sample, Segment, make_sample

CLASSES, THINGS = ("person", "car", "sky"), (True, True, False)


def samples(number: int = 4) -> list[Sample]:
    """Pictures of different sizes; number i has i segments (a column each, the second a crowd, the third sky with a large id) and void."""
    made = []
    for i in range(number):
        ids = torch.zeros(12 + i, 30, dtype=torch.int64)
        for k, number_ in enumerate((5, 300, 16_000_001)[:i]):
            ids[1 + k :, 8 * k : 8 * k + 8] = number_
        segments = tuple(Segment(n, k, THINGS[k], k == 1) for k, n in enumerate((5, 300, 16_000_001)[:i]))
        panoptic = Panoptic(ids, segments)
        known = segment_objects(panoptic)
        known.panoptic = panoptic
        image = torch.randint(0, 256, (3, 12 + i, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
        made.append(make_sample(image, known, id=10 + i))
    return made


def same(a: Tensor | None, b: Tensor | None) -> bool:
    assert a is not None and b is not None
    return torch.equal(a.as_subclass(Tensor), b.as_subclass(Tensor))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    written = write_coco_panoptic(samples(), tmp_path / "out", classes=CLASSES, things=THINGS, category_ids=[1, 3, 187])
    back = CocoPanoptic(root=tmp_path / "out", split="train")
    assert (written.images, written.objects, written.left_out) == (4, 6, 0) and not [p for p in back.problems if p.consequence != "kept"]
    assert (back.classes, back.things, back.category_ids) == (CLASSES, THINGS, (1, 3, 187))
    for got, sent in zip((back[i] for i in range(len(back))), samples(), strict=True):
        assert got.meta.id == sent.meta.id and same(got.image, sent.image)
        assert all(same(getattr(got, name), getattr(sent, name)) for name in ("boxes", "labels", "crowd", "areas", "masks"))
        assert got.panoptic is not None and sent.panoptic is not None
        assert same(got.panoptic.segment_map, sent.panoptic.segment_map) and got.panoptic.segments == sent.panoptic.segments


def test_boxes_are_half_open_around_the_pixels_and_an_image_may_have_no_segments(tmp_path: Path) -> None:
    write_coco_panoptic(samples(), tmp_path / "out", classes=CLASSES, things=THINGS)
    back = CocoPanoptic(root=tmp_path / "out", split="train")
    assert back.annotations(3).boxes.tolist() == [[0, 1, 8, 15], [8, 2, 16, 15], [16, 3, 24, 15]]  # type: ignore[union-attr]
    nothing = back[0]
    assert nothing.boxes.shape == (0, 4) and nothing.masks.shape == (0, 12, 30) and nothing.panoptic.segments == ()  # type: ignore[union-attr]
    entry = json.loads((tmp_path / "out/annotations/panoptic_train.json").read_text())["annotations"][3]["segments_info"][1]
    assert entry == {"id": 300, "category_id": 2, "area": 104, "bbox": [8, 2, 8, 13], "iscrowd": 1}


def test_masks_are_optional_and_the_map_is_not(tmp_path: Path) -> None:
    write_coco_panoptic(samples(), tmp_path / "out", classes=CLASSES, things=THINGS)
    known = CocoPanoptic(root=tmp_path / "out", split="train", masks=False).annotations(2)
    assert known.masks is None and known.panoptic is not None and len(known.boxes) == 2  # type: ignore[arg-type]


def test_chosen_classes_set_the_labels_and_the_rest_is_void(tmp_path: Path) -> None:
    write_coco_panoptic(samples(), tmp_path / "out", classes=CLASSES, things=THINGS, category_ids=[1, 3, 187])
    data = CocoPanoptic(root=tmp_path / "out", split="train", classes=["sky", "person"])
    known = data.annotations(3)
    assert (data.things, data.category_ids) == ((False, True), (187, 1)) and known.labels.tolist() == [1, 0]  # type: ignore[union-attr]
    assert known.panoptic.segment_map.unique().tolist() == [0, 5, 16_000_001]  # type: ignore[union-attr]


def test_colours_stand_for_ids(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[1, 2, 3], [0, 0, 0], [255, 255, 255]]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert read_segment_ids(tmp_path / "a.png").tolist() == [[1 + 2 * 256 + 3 * 65536, 0, 2**24 - 1]]


def test_pngs_are_found_where_coco_puts_them_or_where_one_says(tmp_path: Path) -> None:
    root = tmp_path / "out"
    write_coco_panoptic(samples(), root, classes=CLASSES, things=THINGS)
    (root / "panoptic_train").rename(root / "annotations" / "panoptic_train")
    assert len(CocoPanoptic(root=root, split="train")[3].boxes) == 3  # type: ignore[arg-type]
    (root / "annotations" / "panoptic_train").rename(tmp_path / "elsewhere")
    assert len(CocoPanoptic(root=root, split="train", maps="../elsewhere")[3].boxes) == 3  # type: ignore[arg-type]
    with pytest.raises(DataError, match="unpack the archive of pngs"):
        CocoPanoptic(root=root, split="train")


def test_the_format_is_recognised_beside_instances_and_opens_by_split(tmp_path: Path) -> None:
    root = tmp_path / "out"
    write_coco_panoptic({"train": samples(3), "val": samples(4)[3:]}, root, classes=CLASSES, things=THINGS)
    assert recognise(root)[0] == "coco_panoptic" and {n: len(d) for n, d in open_splits(root).items()} == {"train": 3, "val": 1}
    assert len(open_dataset(root, split="val")) == len(open_dataset(root / "annotations" / "panoptic_val.json")) == 1
    write_coco(samples(3), tmp_path / "plain", classes=CLASSES)
    (tmp_path / "plain/annotations/instances_train.json").rename(root / "annotations/instances_train.json")
    assert [name for name, _ in candidates(root)] == ["coco", "coco_panoptic", "coco_panoptic"]
    assert isinstance(open_dataset(root), Coco) and type(open_dataset(root, "coco_panoptic", split="val")) is CocoPanoptic


def test_samples_without_a_map_or_without_word_on_things_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="things"):
        write_coco_panoptic(samples(), tmp_path / "out", classes=CLASSES)
    plain = make_sample(torch.zeros(3, 4, 4, dtype=torch.uint8), Annotations(boxes=torch.zeros(0, 4)), id=3)
    with pytest.raises(InputError, match="sample 3 has no panoptic map"):
        write_coco_panoptic([plain], tmp_path / "out", classes=CLASSES, things=THINGS)
    large = Panoptic(torch.full((2, 2), 2**24), (Segment(2**24, 0, True),))
    with pytest.raises(InputError, match="16777216"):
        write_coco_panoptic([make_sample(torch.zeros(3, 2, 2, dtype=torch.uint8), Annotations(panoptic=large))], tmp_path / "out",
                            classes=CLASSES, things=THINGS)
    assert not (tmp_path / "out").exists()


def test_predictions_become_pngs_and_entries_with_names_of_their_own() -> None:
    ids = torch.tensor([[1, 1, 2, 70_000]])
    found = Panoptic(ids, (Segment(1, 2, False, score=0.875), Segment(2, 0, True, score=0.5), Segment(70_000, 0, True)))
    text, pngs = panoptic_results([panoptic_result(found, image, [1, 3, 187]) for image in (7, "a/b", 7)], CLASSES, [1, 3, 187])
    content = json.loads(text)
    assert [e["file_name"] for e in content["annotations"]] == list(pngs) == ["000000000007.png", "a_b.png", "000000000007_2.png"]
    first = {"id": 1, "category_id": 187, "area": 2, "bbox": [0, 0, 2, 1], "isthing": 0, "score": 0.875}
    assert content["annotations"][0]["segments_info"][0] == first
    assert [(c["id"], c["isthing"]) for c in content["categories"]] == [(1, 1), (3, 0), (187, 0)]


def test_the_towns_segments_are_things_and_stuff_with_boxes_and_masks() -> None:
    data = TownPanoptic(split="val", num_images=3, size=96)
    sample, masks = data[1], TownPanoptic(split="val", num_images=3, size=96, masks=False).annotations(1).masks
    assert masks is None and data.classes[0] == "person" and data.things == (True,) * 6 + (False,) * 6
    assert sample.panoptic is not None and sample.masks is not None
    for segment, mask, box, label in zip(sample.panoptic.segments, sample.masks, sample.boxes, sample.labels, strict=True):  # type: ignore[arg-type]
        assert segment.label == label and segment.is_thing == data.things[segment.label]
        assert same(mask, sample.panoptic.segment_map == segment.id)
        rows, columns = mask.nonzero().unbind(1)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
