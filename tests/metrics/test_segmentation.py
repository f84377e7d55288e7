"""IoU of label maps against counts done by hand, scikit-learn and torchmetrics; absent classes, ignored pixels, subsets, merging, what is refused."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import jaccard_score
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from saccade.errors import DataError, InputError
from saccade.metrics.contract import Metric
from saccade.metrics.image_quality import image_quality
from saccade.metrics.segmentation import SegmentationIoU, confusion_matrix
from saccade.structures import Annotations, Classification, Meta, SegmentationMap

CLASSES = ("road", "car", "sky", "train")
TRUTH = torch.tensor([[0, 0, 1], [0, 1, 255], [2, 2, 255]])
FOUND = torch.tensor([[0, 1, 1], [0, 1, 3], [2, 0, 2]])


def scored(*pairs: tuple[Tensor | None, Tensor], classes: tuple[str, ...] = CLASSES, start: int = 0) -> SegmentationIoU:
    metric = SegmentationIoU(classes=classes)
    for number, (truth, found) in enumerate(pairs, start):
        metric.update([SegmentationMap(found)], [Annotations(segmentation=truth)], [Meta("set", number)])
    return metric


def random_maps(num_classes: int, seed: int, size: tuple[int, int] = (37, 53)) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, num_classes, size)
    found = np.where(random.random(size) < 0.6, truth, random.integers(0, num_classes, size))
    truth[random.random(size) < 0.2] = 255
    return torch.from_numpy(truth.astype(np.uint8)), torch.from_numpy(found)


def by_definition(truth: Tensor, found: Tensor, num_classes: int) -> np.ndarray:
    matrix = np.zeros((num_classes, num_classes + 1), dtype=np.int64)
    for t, f in zip(truth.flatten().tolist(), found.flatten().tolist(), strict=True):
        if t != 255:
            matrix[t, min(f, num_classes)] += 1
    return matrix


def test_figures_of_three_by_three_pixels_counted_by_hand() -> None:
    metric = scored((TRUTH, FOUND))
    assert metric.confusion().tolist() == [[2, 1, 0, 0, 0], [0, 2, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    figures = metric.compute()
    # road: 2 of 3 true and 1 taken from the sky; car: 2 and 1 more; sky: 1 of 2; train: in neither, as the pixel predicted so does not count.
    assert [figures[f"iou/class/{name}"] for name in CLASSES[:3]] == pytest.approx([2 / 4, 2 / 3, 1 / 2])
    assert math.isnan(figures["iou/class/train"])
    assert figures["iou/mIoU"] == pytest.approx((2 / 4 + 2 / 3 + 1 / 2) / 3)
    assert figures["iou/accuracy"] == pytest.approx(5 / 7) and figures["iou/mean_accuracy"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert figures["iou/fwIoU"] == pytest.approx((3 * 2 / 4 + 2 * 2 / 3 + 2 * 1 / 2) / 7)


def test_a_class_that_is_predicted_but_never_true_has_an_iou_of_zero_and_counts() -> None:
    figures = scored((torch.tensor([[0, 0]]), torch.tensor([[0, 3]]))).compute()
    assert figures["iou/class/train"] == 0 and figures["iou/mIoU"] == pytest.approx((1 / 2 + 0) / 2)
    assert figures["iou/mean_accuracy"] == 1 / 2  # no pixel is a train, so it has no accuracy


@pytest.mark.parametrize("num_classes", [1, 2, 19, 64, 171, 180, 181, 255])
@pytest.mark.parametrize("kinds", [(torch.uint8, torch.int64), (torch.int64, torch.uint8), (torch.int32, torch.int16)])
def test_counts_are_those_of_pixel_by_pixel_counting(num_classes: int, kinds: tuple[torch.dtype, torch.dtype]) -> None:
    truth, found = random_maps(num_classes, num_classes)
    assert np.array_equal(confusion_matrix(truth.to(kinds[0]), found.to(kinds[1]), num_classes), by_definition(truth, found, num_classes))


def test_maps_may_lie_in_memory_as_they_like() -> None:
    truth, found = random_maps(19, 3)
    expected = by_definition(truth, found, 19)
    assert np.array_equal(confusion_matrix(truth.T, found.T, 19), expected)
    assert np.array_equal(confusion_matrix(truth.T.contiguous().T, found, 19), expected)
    assert np.array_equal(confusion_matrix(truth[::2, ::3], found[::2, ::3], 19), by_definition(truth[::2, ::3], found[::2, ::3], 19))
    assert confusion_matrix(truth[:0], found[:0], 19).sum() == 0


def test_counts_and_iou_equal_those_of_scikit_learn_and_torchmetrics() -> None:
    pairs = [random_maps(19, seed) for seed in range(5)]
    metric = scored(*pairs, classes=tuple(str(k) for k in range(19)))
    truth, found = (torch.cat([pair[side].flatten().long() for pair in pairs]) for side in (0, 1))
    valid = truth != 255
    assert np.array_equal(metric.confusion()[:, :-1], sklearn_confusion(truth[valid], found[valid], labels=range(19)))
    figures = metric.compute()
    by_class = [figures[f"iou/class/{k}"] for k in range(19)]
    np.testing.assert_allclose(by_class, jaccard_score(truth[valid], found[valid], labels=range(19), average=None), rtol=1e-12)
    theirs = MulticlassJaccardIndex(19, ignore_index=255)(found, truth)
    assert figures["iou/mIoU"] == pytest.approx(float(theirs), rel=1e-6)


def test_a_subset_is_the_mean_over_its_classes_of_the_whole_matrix() -> None:
    metric = SegmentationIoU(classes=CLASSES, subsets={"moving": ["car", "train"], "2": ("road", "sky")})
    metric.update([SegmentationMap(FOUND)], [Annotations(segmentation=TRUTH)], [Meta("set", 0)])
    figures = metric.compute()
    assert figures["iou/mIoU_2"] == pytest.approx((2 / 4 + 1 / 2) / 2)  # the road taken for a car is still an error of the road
    assert figures["iou/mIoU_moving"] == pytest.approx(2 / 3)  # the train does not occur


def test_merging_halves_equals_one_pass_and_counts_each_image_once() -> None:
    pairs = [random_maps(4, seed) for seed in range(6)]
    whole, left, right = scored(*pairs), scored(*pairs[:4]), scored(*pairs[3:], start=3)  # image 3 is in both, as padding of a distributed run
    left.update([SegmentationMap(pairs[0][1])], [Annotations(segmentation=pairs[0][0])], [Meta("set", 0)])
    left.merge(right)
    assert np.array_equal(left.confusion(), whole.confusion()) and left.compute() == whole.compute()
    left.reset()
    assert left.confusion().sum() == 0


def test_images_without_labels_are_passed_over() -> None:
    with_gaps, without = scored((None, FOUND), (TRUTH, FOUND)), scored((TRUTH, FOUND))
    assert np.array_equal(with_gaps.confusion(), without.confusion())
    assert with_gaps.details()["iou"]["images"] == {"labelled": 1, "unlabelled": 1} and "note" not in with_gaps.details()["iou"]


def test_where_nothing_has_labels_the_figures_are_undefined_and_the_details_say_so() -> None:
    metric = scored((None, FOUND), (None, FOUND))
    assert all(math.isnan(value) for value in metric.compute().values()) and len(metric.compute()) == 4 + len(CLASSES)
    assert metric.details()["iou"]["note"] == "none of the 2 images has labels, so there is nothing to score"
    ignored = scored((torch.full((3, 3), 255), FOUND))
    assert math.isnan(ignored.compute()["iou/mIoU"]) and "nothing to score" in ignored.details()["iou"]["note"]


def test_the_names_of_the_figures_are_known_before_any_image() -> None:
    metric = SegmentationIoU(classes=CLASSES, subsets={"two": CLASSES[:2]})
    assert isinstance(metric, Metric)
    names = list(metric.compute())
    metric.update([SegmentationMap(FOUND)], [Annotations(segmentation=TRUTH)], [Meta("set", 0)])
    assert list(metric.compute()) == names and names[:2] == ["iou/mIoU", "iou/mIoU_two"]


def test_details_are_plain_lists_without_nan() -> None:
    details = scored((TRUTH, FOUND)).details()["iou"]
    assert details["per_class"]["IoU"] == [pytest.approx(0.5), pytest.approx(2 / 3), pytest.approx(0.5), None]
    assert details["per_class"]["accuracy"][3] is None and details["per_class"]["pixels"] == [3, 2, 2, 0]
    assert details["confusion_matrix"]["counts"][0] == [2, 1, 0, 0]


def test_the_quality_of_an_image_is_the_mean_over_its_own_classes() -> None:
    assert image_quality(SegmentationMap(FOUND), Annotations(segmentation=TRUTH)) == pytest.approx((2 / 4 + 2 / 3 + 1 / 2) / 3)
    assert image_quality(SegmentationMap(FOUND), Annotations()) is None
    assert image_quality(SegmentationMap(FOUND), Annotations(segmentation=torch.full((3, 3), 255))) is None


def test_maps_of_different_sizes_are_refused_with_the_image_and_both_sizes() -> None:
    with pytest.raises(DataError, match=r"sample 0 of data set 'set'.*\(2, 3\).*\(3, 3\)"):
        scored((TRUTH, FOUND[:2]))


@pytest.mark.parametrize("wrong", [-1, -30000, 4, 254, 256, 259, 65535])
def test_a_prediction_outside_the_classes_is_refused(wrong: int) -> None:
    found = FOUND.clone()
    found[1, 1] = wrong
    for others in (found, found.where(TRUTH != 2, 255)):  # also among pixels without a class
        with pytest.raises(DataError, match=rf"prediction for sample 0.*\[{wrong}\].*4 classes"):
            scored((TRUTH, others))


@pytest.mark.parametrize("num_classes", [1, 19, 181, 255])
def test_pixels_without_a_predicted_class_are_misses_of_their_true_class(num_classes: int) -> None:
    truth, found = random_maps(num_classes, 7)
    found[::3, ::2] = 255
    matrix = confusion_matrix(truth, found, num_classes)
    assert np.array_equal(matrix, by_definition(truth, found, num_classes)) and matrix[:, -1].sum() > 0
    figures = scored((torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 255, 1, 1]]))).compute()
    assert figures["iou/class/road"] == 1 / 2 and figures["iou/class/car"] == 1 and figures["iou/accuracy"] == 3 / 4


@pytest.mark.parametrize("wrong", [-1, 4, 254, 256, 511, 40000])
def test_a_true_label_that_is_neither_a_class_nor_255_is_refused(wrong: int) -> None:
    truth = TRUTH.clone()
    truth[0, 2] = wrong
    with pytest.raises(DataError, match=rf"truth of sample 0.*\[{wrong}\]"):
        scored((truth, FOUND))


def test_unknown_classes_of_subsets_too_many_classes_and_other_predictions_are_refused() -> None:
    with pytest.raises(InputError, match="subset 'x' names bus"):
        SegmentationIoU(classes=CLASSES, subsets={"x": ["road", "bus"]})
    with pytest.raises(InputError, match="255 classes apart at most"):
        SegmentationIoU(classes=[str(k) for k in range(256)])
    with pytest.raises(TypeError, match="not Classification"):
        SegmentationIoU(classes=CLASSES).update([Classification(torch.ones(4))], [Annotations()], [Meta()])
