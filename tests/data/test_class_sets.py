"""Class sets: the published tables of ids, and what becomes of ids that no table knows."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from saccade.data.class_sets import CLASS_SETS, ID_TABLES, ClassSet, Translation, class_set, id_table, own_table, ranges
from saccade.data.town.vocabulary import SEMANTIC_CLASSES
from saccade.errors import DataError, InputError

RAMP = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
# The published tables (train id by train id), as AdaptSegNet, ADVENT/DADA and ProDA use them.
CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
SYNTHIA_16 = (3, 4, 2, 21, 5, 7, 15, 9, 6, 1, 10, 17, 8, 19, 12, 11)
SYNTHIA_13 = (3, 4, 2, 15, 9, 6, 1, 10, 17, 8, 19, 12, 11)
CITYSCAPES_16 = (7, 8, 11, 12, 13, 17, 19, 20, 21, 23, 24, 25, 26, 28, 32, 33)
CITYSCAPES_13 = (7, 8, 11, 19, 20, 21, 23, 24, 25, 26, 28, 32, 33)


@pytest.mark.parametrize(
    ("name", "table", "ids"),
    [
        ("cityscapes19", "cityscapes", CITYSCAPES), ("synthia16", "synthia", SYNTHIA_16), ("synthia13", "synthia", SYNTHIA_13),
        ("synthia16", "cityscapes", CITYSCAPES_16), ("synthia13", "cityscapes", CITYSCAPES_13), ("camvid11", "camvid", tuple(range(11))),
    ],
)
def test_a_ramp_of_ids_becomes_the_published_labels(name: str, table: str, ids: tuple[int, ...]) -> None:
    known = ID_TABLES[table].meanings
    ramp = torch.tensor([[*known, 255]], dtype=torch.uint8)
    expected = [ids.index(number) if number in ids else 255 for number in known]
    assert len(CLASS_SETS[name].classes) == len(ids)
    assert Translation(ID_TABLES[table], CLASS_SETS[name].classes)(ramp, "ramp.png").tolist() == [[*expected, 255]]


def test_nineteen_classes_on_synthia_leave_out_none_of_its_own() -> None:
    labels = Translation(ID_TABLES["synthia"], CLASS_SETS["cityscapes19"].classes)(torch.tensor([[16, 18, 20]], dtype=torch.uint8), "x.png")
    assert labels.tolist() == [[9, 14, 16]]  # terrain, truck, train


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64])
def test_ids_outside_the_table_are_an_error_with_file_and_ids(kind: torch.dtype) -> None:
    stored = torch.full((4, 5), 7, dtype=kind)
    stored[1, 2:], stored[3, 0] = 77, 254
    told = r"^the label map a/b\.png has the ids 77 \(3 pixels\), 254 \(1 pixels\), outside the Cityscapes ids \(0-34, and 255 for ignore\)"
    with pytest.raises(DataError, match=told):
        Translation(ID_TABLES["cityscapes"], CLASS_SETS["cityscapes19"].classes)(stored, "a/b.png")


@pytest.mark.parametrize("number", [-1, 256, 263, 65535])
def test_numbers_that_no_byte_holds_are_an_error_too(number: int) -> None:
    with pytest.raises(DataError, match=rf"has the id {number} \(1 pixels\)"):
        Translation(ID_TABLES["cityscapes"], CLASS_SETS["cityscapes19"].classes)(torch.tensor([[7, number]]), "x.png")


def test_wide_numbers_inside_the_table_are_read() -> None:
    assert Translation(ID_TABLES["synthia"], CLASS_SETS["synthia16"].classes)(torch.tensor([[3, 22, 255]]), "x.png").tolist() == [[0, 255, 255]]


def test_maps_are_translated_whole_whatever_their_memory_looks_like() -> None:
    table = id_table("labels", [str(k) for k in range(254)])
    translate = Translation(table, [str(k) for k in range(254)])
    known = RAMP.clone()
    known[15, 14] = 255  # 254 is no label
    assert torch.equal(translate(known, "x.png"), known) and torch.equal(translate(known.T, "x.png"), known.T)


def test_subsets_are_classes_of_their_set() -> None:
    assert [len(CLASS_SETS[name].classes) for name in ("cityscapes19", "synthia16", "synthia13", "camvid11", "town")] == [19, 16, 13, 11, 12]
    assert {name: len(members) for name, members in CLASS_SETS["cityscapes19"].subsets.items()} == {"16": 16, "13": 13}
    assert {name: len(members) for name, members in CLASS_SETS["synthia16"].subsets.items()} == {"13": 13}
    for known in CLASS_SETS.values():
        assert known.colours is not None and len(set(known.colours)) == len(known.classes)
        assert all(set(members) <= set(known.classes) for members in known.subsets.values())
    assert CLASS_SETS["town"].classes == SEMANTIC_CLASSES


def test_a_set_is_found_by_name_or_made_of_names(tmp_path: Path) -> None:
    assert class_set("synthia16", tmp_path) is CLASS_SETS["synthia16"]
    (tmp_path / "names.txt").write_text("road\nsky\n")
    assert class_set("names.txt", tmp_path) == ClassSet(("road", "sky")) == class_set(["road", "sky"], tmp_path)
    with pytest.raises(InputError, match="cityscapes20"):
        class_set("cityscapes20", tmp_path)
    with pytest.raises(InputError, match=r"at most 254 classes.*there are 255"):
        ClassSet(tuple(map(str, range(255))))
    with pytest.raises(InputError, match="each of another name"):
        ClassSet(("road", "road"))


def test_tables_and_classes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"no SYNTHIA id means zebra; the names that it knows are sky, building"):
        Translation(ID_TABLES["synthia"], ("road", "zebra"))
    with pytest.raises(InputError, match=r"no table of ids is called 'cityscape'; known are labels .*cityscapes"):
        id_table("cityscape", ("road",))
    for ids, ignored in (((1,), ()), ((1, 1), ()), ((1, 255), ()), ((1, 2), (2,)), ((1, -1), ())):
        with pytest.raises(InputError, match="2 classes need as many different ids from 0 to 254"):
            own_table(ids, ("road", "sky"), ignored)
    labels = Translation(own_table((4, 9), ("road", "sky"), (0,)), ("road", "sky"))(torch.tensor([[4, 9, 0, 255]], dtype=torch.uint8), "x.png")
    assert labels.tolist() == [[0, 1, 255, 255]]


def test_ranges_are_short() -> None:
    assert ranges([5, 0, 1, 2, 9, 8]) == "0-2, 5, 8-9" and ranges([]) == "none"
