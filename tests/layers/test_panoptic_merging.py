"""What becomes of queries: pixels go to the strongest, stuff of a class is one segment, small segments vanish, padding is cut off."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from saccade.layers.panoptic_merging import masks_from_queries, nearest_places, panoptic_from_queries
from saccade.structures import Panoptic

THINGS = (True, True, False, False)  # labels 0, 1 and 2, 3


def confident(*labels: int) -> Tensor:
    """(1, Q, 5) logits of queries that are sure of their label; 4 is no object."""
    logits = torch.zeros(1, len(labels), 5)
    logits[0, torch.arange(len(labels)), list(labels)] = 9.0
    return logits


def regions(*boxes: tuple[int, int, int, int]) -> Tensor:
    """(1, Q, 8, 8) mask logits: 5 + q / 10 inside the box (x1, y1, x2, y2) of query q, -5 - q / 10 outside."""
    masks = torch.stack([torch.full((8, 8), -5 - q / 10) for q in range(len(boxes))])
    for q, (mask, (x1, y1, x2, y2)) in enumerate(zip(masks, boxes, strict=True)):
        mask[y1:y2, x1:x2] = 5 + q / 10
    return masks[None]


def merged(logits: Tensor, masks: Tensor, **settings: object) -> Panoptic:
    """The map of one 8 x 8 image whose masks have its own size."""
    known = {"sizes": [(8, 8)], "original_sizes": [(8, 8)], "canvas": (8, 8), "things": THINGS, **settings}
    return panoptic_from_queries(logits, masks, **known)[0]  # type: ignore[arg-type]


def test_stuff_of_one_class_becomes_one_segment_and_things_stay_apart() -> None:
    found = merged(confident(2, 0, 2, 0), regions((0, 0, 8, 3), (0, 3, 4, 6), (0, 6, 8, 8), (4, 3, 8, 6)))
    assert [(s.id, s.label, s.is_thing) for s in found.segments] == [(1, 2, False), (2, 0, True), (3, 0, True)]
    assert found.areas().tolist() == [40, 12, 12] and (found.segment_map[6:] == 1).all()


def test_the_published_code_deletes_the_second_stuff_query_instead() -> None:
    logits, masks = confident(2, 0, 2), regions((0, 0, 8, 3), (0, 3, 8, 6), (0, 6, 8, 8))
    right, published = merged(logits, masks), merged(logits, masks, reference_quirks=True)
    assert right.areas().tolist() == [40, 24]
    assert (published.segment_map[6:] == 1).all() and published.areas().tolist() == [40, 24]  # -5 beats -5.1: by luck the same
    masks[0, 1, 6:] = -4.9
    assert (merged(logits, masks).segment_map[6:] == 1).all()
    assert (merged(logits, masks, reference_quirks=True).segment_map[6:] == 2).all()


def test_segments_of_four_pixels_vanish_and_five_stay() -> None:
    logits = confident(2, 0, 1)
    four = merged(logits, regions((0, 0, 8, 8), (0, 0, 2, 2), (2, 0, 7, 1)))
    assert [s.label for s in four.segments] == [2, 1] and four.areas().tolist() == [59, 5]
    # The pixels of a small segment go to what lies under it; two that are small at once both vanish, though one would have gained them.
    under = merged(logits, regions((0, 1, 8, 8), (0, 0, 8, 1), (0, 0, 3, 1)))
    assert [s.label for s in under.segments] == [2, 0] and under.areas().tolist() == [56, 8]
    both = merged(logits, regions((0, 1, 8, 8), (0, 0, 8, 1), (0, 0, 4, 1)))
    assert [s.label for s in both.segments] == [2] and both.areas().tolist() == [64]


def test_a_merged_stuff_segment_is_small_only_as_a_whole() -> None:
    found = merged(confident(3, 2, 2), regions((0, 0, 8, 8), (0, 0, 3, 1), (5, 0, 8, 1)))
    assert [s.label for s in found.segments] == [3, 2] and found.areas().tolist() == [58, 6]


@pytest.mark.parametrize("quirks", [False, True])
def test_without_a_confident_query_the_map_is_void(quirks: bool) -> None:
    found = merged(confident(4, 4), regions((0, 0, 8, 8), (0, 0, 4, 4)), reference_quirks=quirks, original_sizes=[(5, 9)])
    assert found.segments == () and found.segment_map.shape == (5, 9) and not found.segment_map.any()


@pytest.mark.parametrize("quirks", [False, True])
def test_when_every_segment_is_small_nothing_is_left(quirks: bool) -> None:
    logits, masks = confident(0, 1), torch.zeros(1, 2, 2, 1)
    masks[0, 1, 1] = 1
    found = panoptic_from_queries(
        logits, masks, sizes=[(2, 1)], original_sizes=[(2, 1)], canvas=(2, 1), things=THINGS, reference_quirks=quirks,
    )[0]
    assert found.segments == () and not found.segment_map.any()


def test_a_label_has_its_own_logit_and_other_logits_are_no_label() -> None:
    logits = torch.zeros(1, 2, 8)
    logits[0, 0, 6] = logits[0, 1, 3] = 20.0
    found = merged(logits, regions((0, 0, 8, 4), (0, 4, 8, 8)), logit_of_label=torch.tensor([1, 2, 4, 6]))
    assert [s.label for s in found.segments] == [3] and found.areas().tolist() == [64]


def test_padding_is_cut_off_and_the_published_code_squeezes_it_in() -> None:
    logits, masks = confident(0, 1), regions((0, 0, 4, 8), (4, 0, 8, 8))
    settings = {"sizes": [(8, 5)], "original_sizes": [(8, 5)]}
    found, published = merged(logits, masks, **settings), merged(logits, masks, **settings, reference_quirks=True)
    assert found.areas().tolist() == [32, 8] and published.areas().tolist() == [24, 16]
    (instances,) = masks_from_queries(masks, sizes=[(8, 5)], original_sizes=[(16, 10)], canvas=(8, 8))
    assert instances.shape == (2, 16, 10) and instances.sum((1, 2)).tolist() == [128, 32]


def test_a_picture_has_the_masks_that_it_has_without_padding() -> None:
    torch.manual_seed(0)
    logits, own = torch.randn(1, 9, 5) * 6, torch.randn(1, 9, 9, 6) * 4
    wide = torch.randn(1, 9, 12, 15) * 4
    wide[..., :9, :6] = own
    settings = {"sizes": [(33, 22)], "original_sizes": [(47, 20)], "things": THINGS}
    alone = merged(logits, own, canvas=(33, 22), **settings)
    assert torch.equal(merged(logits, wide, canvas=(48, 58), **settings).segment_map, alone.segment_map) and len(alone.segments) > 1
    masks = [masks_from_queries(m, canvas=c, sizes=[(33, 22)], original_sizes=[(47, 20)])[0] for m, c in ((own, (33, 22)), (wide, (48, 58)))]
    assert torch.equal(*masks)


def test_images_of_a_batch_have_sizes_of_their_own_and_do_not_change_each_other() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(3, 20, 5) * 6, torch.randn(3, 20, 10, 12) * 4
    sizes, originals = [(40, 48), (33, 20), (17, 48)], [(50, 60), (99, 60), (17, 48)]
    together = panoptic_from_queries(logits, masks, sizes=sizes, original_sizes=originals, canvas=(40, 48), things=THINGS)
    for i, found in enumerate(together):
        alone = panoptic_from_queries(logits[[i]], masks[[i]], sizes=[sizes[i]], original_sizes=[originals[i]], canvas=(40, 48), things=THINGS)[0]
        assert torch.equal(found.segment_map, alone.segment_map) and found.segments == alone.segments and len(found.segments) > 1
        assert found.segment_map.shape == originals[i] and found.areas().min() > 4
    masks_alone = masks_from_queries([m[:3] for m in masks], sizes=sizes, original_sizes=originals, canvas=(40, 48))
    in_parts = masks_from_queries(masks, sizes=sizes, original_sizes=originals, canvas=(40, 48), queries_at_once=7)
    assert all(torch.equal(few, many[:3]) and many.shape == (20, *size) for few, many, size in zip(masks_alone, in_parts, originals, strict=True))


def test_the_score_of_merged_stuff_is_its_best_querys() -> None:
    logits = confident(2, 2)
    logits[0, 1, 2] = 12.0
    (segment,) = merged(logits, regions((0, 0, 8, 4), (0, 4, 8, 8))).segments
    assert segment.score == pytest.approx(float(logits[0, 1].softmax(0)[2]))


def test_places_are_those_that_pillow_takes() -> None:
    rng = np.random.default_rng(0)
    for length, wanted in [(3, 2), (2, 3), (800, 480), (480, 800), (7, 7), (1, 5), (5, 1), *rng.integers(1, 1400, (200, 2)).tolist()]:
        row = Image.fromarray(np.arange(length, dtype=np.int32)[None])
        assert np.array_equal(nearest_places(length, wanted).numpy(), np.asarray(row.resize((wanted, 1), Image.Resampling.NEAREST))[0])
