"""COCO's matching and precision-recall tables from arrays, through faster-coco-eval's compiled evaluator.

The protocol is pycocotools' COCOeval (Lin et al., Microsoft COCO, 2014), with its order of ties and its -1 for "nothing to find". The evaluator
sees only what lies in each (image, category) pair and the order of a category's images, so the pairs that hold anything are numbered within their
category before it runs: an empty pair costs it as much as a full one, and most of COCO's pairs are empty. All box overlaps are computed at once.
Leaves out keypoints, LVIS and boundary measures.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from saccade.metrics.detection_state import RunLengths

MAX_DETECTIONS = (1, 10, 100)  # of one category in one image
RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass
class Objects:
    """Objects of all images, found or true: image and category index, area, score (0 for truth), crowd flag, each (n,); boxes (n, 4) float64 as
    x, y, w, h; run lengths where masks are compared."""

    image: np.ndarray
    category: np.ndarray
    area: np.ndarray
    score: np.ndarray
    crowd: np.ndarray
    boxes: np.ndarray
    masks: RunLengths | None = None

    def __len__(self) -> int:
        return len(self.image)

    def take(self, order: np.ndarray) -> Objects:
        """The rows `order`, in that order."""
        masks = None if self.masks is None else [self.masks[i] for i in order.tolist()]
        return Objects(self.image[order], self.category[order], self.area[order], self.score[order], self.crowd[order], self.boxes[order], masks)


@dataclass(frozen=True)
class Tables:
    """`precision` and `scores` (T, R, K, A, M), `recall` (T, K, A, M); -1 where nothing is to be found.

    T: IoU thresholds .5 to .95; R: the 101 recall points; K: categories; A: all, small, medium, large; M: 1, 10, 100 detections an image.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray


def evaluate(found: Objects, truth: Objects, num_categories: int, kind: Literal["bbox", "segm"]) -> Tables:
    """Matches `found` with `truth` and accumulates; rows must come in the order of their images."""
    import faster_coco_eval.faster_eval_api_cpp as compiled
    from faster_coco_eval.core.cocoeval import Params

    pairs, found_pair, true_pair = _number_pairs(found, truth)
    order = np.lexsort((-found.score, found_pair))  # stable: equal scores stay in the order of their images, as in pycocotools
    found, found_pair = found.take(order), found_pair[order]
    keep = np.flatnonzero(_rank_in_group(found_pair) < MAX_DETECTIONS[-1])
    found, found_pair = found.take(keep), found_pair[keep]
    order = np.argsort(true_pair, kind="stable")
    truth, true_pair = truth.take(order), true_pair[order]

    category_of, slot_of = pairs
    slots = int(slot_of.max()) + 1 if len(slot_of) else 0
    overlaps: list[list[list[list[float]]]] = [[[]] * num_categories for _ in range(slots)]  # one shared empty list, replaced where a pair has both
    _fill_overlaps(overlaps, found, found_pair, truth, true_pair, pairs, kind)
    params = Params(iouType=kind)
    params.imgIds, params.catIds = list(range(1, slots + 1)), list(range(1, num_categories + 1))
    result = compiled.COCOevalEvaluateAccumulate(
        params,
        overlaps,
        _as_dataset(compiled, truth, slot_of[true_pair], category_of[true_pair]),
        _as_dataset(compiled, found, slot_of[found_pair], category_of[found_pair]),
        params.imgIds,
        params.catIds,
        True,
    )
    return Tables(np.asarray(result["precision"]), np.asarray(result["recall"]), np.asarray(result["scores"]))


def _number_pairs(found: Objects, truth: Objects) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """The (image, category) pairs that hold anything: their category and their place among the category's pairs, and the pair of each row."""
    images = int(max(found.image.max(initial=0), truth.image.max(initial=0))) + 1
    codes = np.concatenate([found.category * images + found.image, truth.category * images + truth.image])
    pairs, index = np.unique(codes, return_inverse=True)
    category = pairs // images
    slot = np.arange(len(pairs)) - np.searchsorted(category, category)
    return (category, slot), index[: len(found)], index[len(found) :]


def _rank_in_group(sorted_groups: np.ndarray) -> np.ndarray:
    return np.arange(len(sorted_groups)) - np.searchsorted(sorted_groups, sorted_groups)


def _as_dataset(compiled: Any, objects: Objects, slot: np.ndarray, category: np.ndarray) -> Any:
    """The evaluator's own container; ids start at 1 because it takes 0 for "unmatched"."""
    dataset = compiled.Dataset()
    append = dataset.append_ref
    columns = ((slot + 1).tolist(), (category + 1).tolist(), objects.score.tolist(), objects.area.tolist(), objects.crowd.tolist())
    for number, (image, label, score, area, crowd) in enumerate(zip(*columns, strict=True), start=1):
        append(image, label, {"id": number, "score": score, "area": area, "iscrowd": crowd, "ignore": crowd})
    return dataset


def _fill_overlaps(
    overlaps: list[list[list[list[float]]]],
    found: Objects,
    found_pair: np.ndarray,
    truth: Objects,
    true_pair: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    kind: Literal["bbox", "segm"],
) -> None:
    """Writes the (detections, truths) overlaps of every pair that has both; the rows are sorted by pair."""
    both = np.intersect1d(found_pair, true_pair)
    found_start, found_stop = np.searchsorted(found_pair, both), np.searchsorted(found_pair, both, side="right")
    true_start, true_stop = np.searchsorted(true_pair, both), np.searchsorted(true_pair, both, side="right")
    category, slot = pairs[0][both], pairs[1][both]
    if kind == "segm":
        from faster_coco_eval.core.mask import iou

        assert found.masks is not None and truth.masks is not None
        crowd = truth.crowd.astype(int).tolist()
        for s, c, a, b, e, f in zip(*(v.tolist() for v in (slot, category, found_start, found_stop, true_start, true_stop)), strict=True):
            overlaps[s][c] = np.asarray(iou(found.masks[a:b], truth.masks[e:f], crowd[e:f])).tolist()
        return
    num_found, num_true = found_stop - found_start, true_stop - true_start
    sizes = num_found * num_true
    starts = np.concatenate([[0], np.cumsum(sizes)])
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
    width = np.repeat(num_true, sizes)
    values = box_overlaps(
        found.boxes[np.repeat(found_start, sizes) + within // np.maximum(width, 1)],
        truth.boxes[np.repeat(true_start, sizes) + within % np.maximum(width, 1)],
        truth.crowd[np.repeat(true_start, sizes) + within % np.maximum(width, 1)],
    )
    shapes = zip(slot.tolist(), category.tolist(), starts[:-1].tolist(), starts[1:].tolist(), num_true.tolist(), strict=True)
    for s, c, a, b, columns in shapes:
        overlaps[s][c] = values[a:b].reshape(-1, columns).tolist()


def box_overlaps(found: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Intersection over union row by row of boxes (n, 4) as x, y, w, h; over the found box's own area where the truth is a crowd."""
    size = np.minimum(found[:, :2] + found[:, 2:], truth[:, :2] + truth[:, 2:]) - np.maximum(found[:, :2], truth[:, :2])
    inside = np.where((size > 0).all(1), size[:, 0] * size[:, 1], 0.0)
    area = found[:, 2] * found[:, 3]
    union = np.where(crowd, area, area + truth[:, 2] * truth[:, 3] - inside)
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
