"""Classification figures against torchmetrics and scikit-learn, on hand-made cases, and on odd input."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from saccade.errors import DataError, NumericError
from saccade.metrics.classification import ClassificationAccuracy
from saccade.metrics.image_quality import image_quality
from saccade.metrics.multilabel import MultiLabelClassification
from saccade.structures import Annotations, Classification, Detections, Meta


def metric_of(scores: torch.Tensor, labels: list[int], **settings: object) -> ClassificationAccuracy:
    metric = ClassificationAccuracy(classes=[str(k) for k in range(scores.shape[1])], **settings)  # type: ignore[arg-type]
    metas = [Meta("set", i) for i in range(len(labels))]
    metric.update([Classification(row) for row in scores], [Annotations(label=y) for y in labels], metas)
    return metric


def random_scores(images: int = 200, classes: int = 7, seed: int = 0) -> tuple[torch.Tensor, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(images, classes, generator=generator).softmax(1), torch.randint(0, classes, (images,), generator=generator).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_torchmetrics_and_sklearn(seed: int) -> None:
    from torchmetrics.functional.classification import multiclass_accuracy

    scores, labels = random_scores(seed=seed)
    figures = metric_of(scores, labels, topk=(1, 3)).compute()
    best = scores.argmax(1).numpy()
    for k in (1, 3):
        expected = multiclass_accuracy(scores, torch.tensor(labels), num_classes=7, top_k=k, average="micro")
        assert figures[f"classification/top{k}"] == pytest.approx(float(expected), abs=1e-6)
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(labels, best, average="macro", zero_division=0)
    assert figures["classification/precision"] == pytest.approx(precision, abs=1e-12)
    assert figures["classification/recall"] == pytest.approx(recall, abs=1e-12)
    assert figures["classification/f1"] == pytest.approx(f1, abs=1e-12)
    assert figures["classification/mean_class_accuracy"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(labels, best), abs=1e-12)
    assert (metric_of(scores, labels).confusion() == sklearn_metrics.confusion_matrix(labels, best)).all()


def test_k_above_the_number_of_classes_means_all_of_them() -> None:
    scores, labels = random_scores(classes=3)
    assert metric_of(scores, labels).compute()["classification/top5"] == 1.0


def test_equal_scores_rank_by_class_so_a_constant_model_is_right_once() -> None:
    figures = metric_of(torch.full((4, 4), 0.25), [0, 1, 2, 3], topk=(1, 2)).compute()
    assert figures["classification/top1"] == 0.25 and figures["classification/top2"] == 0.5


def test_a_score_at_the_threshold_does_not_count() -> None:
    metric = metric_of(torch.tensor([[0.5, 0.5 - 1e-3], [0.25, 0.75]]), [0, 1], topk=(1,), thresholds=(0.0, 0.5, 0.75, None))
    figures = metric.compute()
    assert [figures[f"classification/top1{s}"] for s in ("", "@0.5", "@0.75", "@none")] == [1.0, 0.5, 0.0, 1.0]


def test_absent_classes_count_in_the_macro_means_but_not_in_the_mean_class_accuracy() -> None:
    figures = metric_of(torch.eye(4)[:2], [0, 1]).compute()
    assert figures["classification/recall"] == 0.5 and figures["classification/mean_class_accuracy"] == 1.0


def test_merging_processes_equals_one_process_and_counts_duplicates_once() -> None:
    scores, labels = random_scores()
    whole = metric_of(scores, labels)
    parts = []
    for chosen in (list(range(120)), list(range(100, 200))):
        part = ClassificationAccuracy(classes=whole.classes)
        metas = [Meta("set", i) for i in chosen]
        part.update([Classification(scores[i]) for i in chosen], [Annotations(label=labels[i]) for i in chosen], metas)
        parts.append(part)
    parts[0].merge(parts[1])
    assert parts[0].compute() == whole.compute() and (parts[0].confusion() == whole.confusion()).all()


def test_no_images_give_nan() -> None:
    assert all(math.isnan(v) for v in ClassificationAccuracy(classes=["a", "b"]).compute().values())


def test_labels_and_scores_that_cannot_be_judged_are_refused() -> None:
    metric, scores = ClassificationAccuracy(classes=["a", "b"]), torch.tensor([0.4, 0.6])
    with pytest.raises(DataError, match=r"sample 5 .*no label"):
        metric.update([Classification(scores)], [Annotations()], [Meta("set", 5)])
    with pytest.raises(DataError, match="is 2, outside"):
        metric.update([Classification(scores)], [Annotations(label=2)], [Meta("set", 5)])
    with pytest.raises(DataError, match="soft or several"):
        metric.update([Classification(scores)], [Annotations(label=torch.tensor([0.3, 0.7]))], [Meta("set", 5)])
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        metric.update([Classification(torch.rand(3))], [Annotations(label=0)], [Meta("set", 5)])
    many = [Classification(scores), Classification(torch.tensor([0.5, math.nan]))]
    with pytest.raises(NumericError, match="sample 6"):
        metric.update(many, [Annotations(label=0)] * 2, [Meta("set", 5), Meta("set", 6)])


def multi(scores: np.ndarray, truth: np.ndarray, **settings: object) -> MultiLabelClassification:
    metric = MultiLabelClassification(classes=[str(k) for k in range(scores.shape[1])], **settings)  # type: ignore[arg-type]
    targets = [Annotations(label=torch.from_numpy(row).float()) for row in truth]
    metric.update([Classification(torch.from_numpy(row)) for row in scores], targets, [Meta("set", i) for i in range(len(scores))])
    return metric


def test_several_labels_equal_sklearn() -> None:
    random = np.random.default_rng(0)
    scores, truth = random.random((60, 5)), (random.random((60, 5)) < 0.3).astype(float)
    figures = multi(scores, truth).compute()
    assert figures["multilabel/mAP"] == pytest.approx(sklearn_metrics.average_precision_score(truth, scores, average="macro"), abs=1e-9)
    for name, average in (("C", "macro"), ("O", "micro")):
        expected = sklearn_metrics.precision_recall_fscore_support(truth, scores >= 0.5, average=average, zero_division=0)
        assert figures[f"multilabel/{name}P"] == pytest.approx(expected[0], abs=1e-9)
        assert figures[f"multilabel/{name}R"] == pytest.approx(expected[1], abs=1e-9)
    overall = sklearn_metrics.f1_score(truth, scores >= 0.5, average="micro")
    assert figures["multilabel/OF1"] == pytest.approx(overall, abs=1e-9)


def test_top_k_predicts_exactly_k_classes_an_image() -> None:
    figures = multi(np.array([[0.9, 0.8, 0.1], [0.2, 0.3, 0.1]]), np.array([[1, 0, 0], [0, 1, 0]]), topk=1).compute()
    assert figures["multilabel/OP"] == pytest.approx(1.0) and figures["multilabel/OR"] == pytest.approx(1.0)


def test_difficult_labels_leave_average_precision_alone() -> None:
    scores = np.array([[0.9], [0.8], [0.7]])
    assert multi(scores, np.array([[-1], [1], [0]])).compute()["multilabel/mAP"] == pytest.approx(1.0)
    assert multi(scores, np.array([[0], [1], [0]])).compute()["multilabel/mAP"] == pytest.approx(0.5)


def test_image_quality_orders_predictions() -> None:
    assert image_quality(Classification(torch.tensor([0.2, 0.8])), Annotations(label=1)) == pytest.approx(0.8)
    box, away = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]
    truth = Annotations(torch.tensor([box, away]), torch.tensor([0, 1]))
    right = Detections(torch.tensor([box, away, away]), torch.tensor([0.9, 0.8, 0.4]), torch.tensor([0, 1, 0]))
    assert image_quality(right, truth) == 1.0
    assert image_quality(right[torch.tensor([0])], truth) == pytest.approx(2 / 3)
    twice = Detections(torch.tensor([box, box]), torch.tensor([0.9, 0.8]), torch.tensor([0, 0]))
    assert image_quality(twice, truth) == pytest.approx(0.5)
    empty = Annotations(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert image_quality(Detections.empty(), empty) == 1.0 and image_quality(right, empty) == 0.0
    assert image_quality(right, Annotations(label=1)) is None
