"""Each term computes what its paper says, on any model that has the outputs it reads."""
from __future__ import annotations

import math

import pytest
import torch

from saccade.adaptation.class_scores import ClassScores, class_scores
from saccade.adaptation.context import RAW, Context
from saccade.adaptation.terms.batch_norm_statistics import BatchNormStatistics
from saccade.adaptation.terms.detection_consistency import DetectionConsistency, roi_consistency, rpn_consistency
from saccade.adaptation.terms.entropy import Entropy
from saccade.adaptation.terms.patch_contrast import PatchContrast
from saccade.adaptation.terms.pseudo_label_detection import PseudoLabelDetection
from saccade.errors import InputError
from saccade.layers.normalization import batch_norms
from saccade.models.contract import Model
from saccade.structures import Annotations, Batch
from small_networks import classifier, detector, images, tracker, two_stage


def context(network: Model, view: Batch | None = None, teacher: Model | None = None) -> Context:
    """A step on a raw batch; `view` is what the student sees."""
    views = {RAW: images()} | ({} if view is None else {"student": view})
    return Context(network.eval(), teacher, views, 0)


def test_a_certain_prediction_has_no_entropy_and_an_even_one_the_most() -> None:
    even, certain = torch.zeros(1, 8), torch.tensor([[40.0, *[0.0] * 7]])
    torch.testing.assert_close(ClassScores(even, None).entropy(), torch.tensor([math.log(8)]))
    torch.testing.assert_close(ClassScores(certain, None).entropy(), torch.zeros(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(ClassScores(even, None, independent=True).entropy(), torch.tensor([8 * math.log(2)]))


def test_entropy_reads_classifiers_and_one_stage_detectors_alike() -> None:
    for model, columns in ((classifier(), 3), (detector(), 3)):
        step = context(model)
        assert class_scores(Entropy(), step, "student", RAW).logits.shape[1] == columns
        loss = Entropy(weight=2.0)(step)["entropy_loss"]
        assert 0 < loss.item() <= 2 * math.log(columns) and loss.requires_grad


def test_only_predictions_that_may_be_objects_count() -> None:
    logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 1.0, 1.0]])  # background first
    scores = ClassScores(logits, 0)
    assert (scores.foreground() > 0.5).tolist() == [False, True]
    step = context(detector())
    everything, likely = Entropy()(step), Entropy(min_foreground=0.5)(step)
    assert everything["entropy_loss"].item() != likely["entropy_loss"].item()
    assert Entropy(min_foreground=1.0)(step)["entropy_loss"].item() == 0


def test_a_model_without_the_outputs_is_refused_by_name() -> None:
    teacher = classifier()
    with pytest.raises(InputError, match=r"DetectionConsistency reads rpn_logits, rpn_deltas, which ImageClassifier does not give"):
        DetectionConsistency(student_view=RAW, teacher_view=RAW)(context(classifier(), teacher=teacher))
    with pytest.raises(InputError, match="has no teacher"):
        DetectionConsistency(student_view=RAW, teacher_view=RAW, rpn=0)(context(detector()))
    with pytest.raises(InputError, match="no view 'student'; this adaptation has raw"):
        PseudoLabelDetection()(context(detector()))


def test_networks_that_agree_have_no_consistency_loss() -> None:
    logits, deltas = [torch.randn(2, 3, 4, 5)], [torch.randn(2, 12, 4, 5)]
    assert float(rpn_consistency(logits, deltas, logits, deltas, threshold=0.1)) == 0
    rows = torch.randn(7, 4), torch.randn(7, 12)
    assert float(roi_consistency(*rows, *rows)) == 0
    shifted = (rows[0] + 3.0, rows[1])
    assert float(roi_consistency(*shifted, *rows)) == pytest.approx(0, abs=1e-6)  # a softmax does not see a shift either


def test_boxes_are_compared_where_the_teacher_is_surer() -> None:
    student, teacher = torch.zeros(1, 2, 1, 1), torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)
    own, other = torch.zeros(1, 8, 1, 1), torch.ones(1, 8, 1, 1)
    loss = rpn_consistency([student], [own], [teacher], [other], threshold=0.1)
    assert float(loss) == pytest.approx((1 + 1 + 4) / 2)  # two logits, and the four numbers of the first anchor


def test_views_of_different_geometry_are_not_compared() -> None:
    model = detector()
    step = Context(model, model, {"student": images(size=64), "teacher": images(size=32)}, 0)
    with pytest.raises(InputError, match="place by place"):
        DetectionConsistency()(step)


def test_running_statistics_move_only_within_the_term() -> None:
    model = classifier()
    norm = next(iter(batch_norms(model).values()))
    assert norm.running_mean is not None
    before = norm.running_mean.clone()
    term = BatchNormStatistics(momentum=0.5)
    step = context(model)
    with term.around(model, None, 0), torch.no_grad():
        assert term(step) == {}
        step.outputs("student", RAW)
    assert not torch.equal(norm.running_mean, before)
    assert not norm.training and norm.momentum == 0.1
    after = norm.running_mean.clone()
    model(images(seed=1))
    torch.testing.assert_close(norm.running_mean, after)


def test_statistics_can_be_moved_by_a_pass_of_its_own_alone() -> None:
    student, teacher = classifier().eval(), classifier().eval()
    norm, other = (next(iter(batch_norms(network).values())) for network in (student, teacher))
    start = norm.running_mean.clone()  # type: ignore[union-attr]
    step = context(student, teacher=teacher)
    term = BatchNormStatistics(momentum=0.5, moved_by="own", of="both", steps=1)
    with term.around(student, teacher, 0):
        with torch.no_grad():
            by_batch, by_running = student(images(4))["logits"], teacher(images(4))["logits"]
        torch.testing.assert_close(norm.running_mean, start)
        assert not torch.allclose(by_batch, by_running)
        term(step)
    torch.testing.assert_close(norm.running_mean, other.running_mean)
    assert not torch.equal(norm.running_mean, start)  # type: ignore[arg-type]
    moved = norm.running_mean.clone()  # type: ignore[union-attr]
    term(Context(student, teacher, step.views, 1))  # beyond `steps`
    torch.testing.assert_close(norm.running_mean, moved)
    with pytest.raises(InputError, match="moved_by: own"):
        BatchNormStatistics(normalise="running")


def test_a_model_without_movable_statistics_is_refused() -> None:
    with pytest.raises(InputError, match="no batch norm with statistics to move"):
        BatchNormStatistics().prepare(classifier(norm="frozen"))


def test_pseudo_objects_are_learnt_like_labels_and_images_without_any_are_left_out() -> None:
    model, batch = detector(), images(3)
    boxes = Annotations(boxes=torch.tensor([[8.0, 8, 40, 50]]), labels=torch.tensor([1]), track_ids=torch.tensor([1]))
    nothing = Annotations(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64), track_ids=torch.zeros(0, dtype=torch.int64))
    student = Batch(batch.images, [nothing, boxes, nothing], batch.metas)
    losses = PseudoLabelDetection(weight=0.5)(context(model, student))
    alone = Batch(batch.images[1:2], [boxes], batch.metas[1:2])
    expected = model.losses(model(alone), alone)
    assert set(losses) == {f"pseudo_{name}" for name in expected}
    for name, value in expected.items():
        torch.testing.assert_close(losses[f"pseudo_{name}"], 0.5 * value, rtol=1e-4, atol=1e-5)

    empty = PseudoLabelDetection()(context(model, Batch(batch.images, [nothing] * 3, batch.metas)))
    assert set(empty) == set(losses) and all(value.item() == 0 for value in empty.values())


def test_pseudo_labels_without_a_source_of_objects_are_an_error() -> None:
    with pytest.raises(InputError, match="ConfidentDetections"):
        PseudoLabelDetection(view=RAW)(context(detector()))


def test_a_forward_pass_happens_once_for_all_terms() -> None:
    model = detector()
    step = context(model)
    assert step.outputs("student", RAW) is step.outputs("student", RAW)
    assert step.part(RAW, [0, 1]) == RAW
    part = step.part(RAW, [1])
    assert len(step.view(part)) == 1 and len(step.outputs("student", part)["class_logits"]) == 1


def test_a_map_of_one_cell_keeps_the_running_statistics() -> None:
    norm = torch.nn.BatchNorm2d(3)
    model = classifier()
    model.add_module("extra", norm)
    assert norm.running_mean is not None
    with BatchNormStatistics(momentum=0.5).around(model.eval(), None, 0):
        torch.testing.assert_close(norm(torch.ones(1, 3, 1, 1)), torch.ones(1, 3, 1, 1), atol=1e-4, rtol=0)
        assert not norm.running_mean.any()
        norm(torch.ones(1, 3, 2, 2))
    torch.testing.assert_close(norm.running_mean, torch.full((3,), 0.5))


def test_consistency_of_two_stages_is_zero_with_itself_and_learns_from_a_teacher() -> None:
    student, teacher = two_stage().eval(), two_stage().eval()
    term = DetectionConsistency(threshold=-9.0, student_view=RAW, teacher_view=RAW)  # every box counts
    same = term(context(student, teacher=teacher))
    assert {name: value.item() for name, value in same.items()} == pytest.approx(
        {"rpn_distillation_loss": 0, "roi_distillation_loss": 0}, abs=1e-9
    )
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(1.05)
    losses = term(context(student, teacher=teacher))
    sum(losses.values()).backward()  # type: ignore[union-attr]
    without = {name for name, p in student.named_parameters() if p.grad is None or not p.grad.any()}
    assert all(value.item() > 0 for value in losses.values())
    assert not any(part in name for name in without for part in ("neck", "rpn_head", "box_head"))
    assert all(p.grad is None for p in teacher.parameters())
    half = DetectionConsistency(threshold=-9.0, rpn=0.05, roi=0.0, student_view=RAW, teacher_view=RAW)(context(student, teacher=teacher))
    assert {n: v.item() for n, v in half.items()} == pytest.approx({"rpn_distillation_loss": losses["rpn_distillation_loss"].item() / 2})


def test_two_stage_detectors_have_entropy_and_take_pseudo_labels() -> None:
    model = two_stage().eval()
    step = context(model)
    assert class_scores(Entropy(), step, "student", RAW).background == 2
    assert 0 < Entropy()(step)["entropy_loss"].item() < math.log(3)
    boxes = Annotations(boxes=torch.tensor([[8.0, 8, 40, 50]]), labels=torch.tensor([1]), track_ids=torch.tensor([1]))
    batch = images(1)
    losses = PseudoLabelDetection()(context(model, Batch(batch.images, [boxes], batch.metas)))
    assert set(losses) == {"pseudo_loss_rpn_cls", "pseudo_loss_rpn_bbox", "pseudo_loss_cls", "pseudo_loss_bbox"}


def objects(*boxes: list[float]) -> Annotations:
    """Pseudo objects with ids 1, 2, ..."""
    count = len(boxes)
    ids = torch.arange(1, count + 1)
    return Annotations(boxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.zeros(count, dtype=torch.int64), track_ids=ids)


def contrast(batch: Batch, keys: list[Annotations], others: list[Annotations], **settings: bool) -> dict[str, float]:
    """The losses of a small tracker between two views with the same pixels."""
    model = tracker().eval()
    torch.manual_seed(0)
    views = {"student": Batch(batch.images, keys, batch.metas), "contrastive": Batch(batch.images, others, batch.metas)}
    return {name: value.item() for name, value in PatchContrast(**settings)(Context(model, None, views, 0)).items()}


def test_images_without_objects_leave_the_contrast_with_all_that_is_theirs() -> None:
    first, second = [4.0, 4, 30, 40], [30.0, 20, 60, 60]
    batch = images(3)
    alone = Batch(batch.images[1:2], [], batch.metas[1:2])
    expected = contrast(alone, [objects(first, second)], [objects(first, second)])
    assert expected["loss_track"] > 0 and expected["loss_track_aux"] > 0
    mixed = [objects(), objects(first, second), objects()]
    assert contrast(batch, mixed, mixed) == pytest.approx(expected, rel=1e-4)
    # Cropped out of one view is as good as not there; the original kept such images.
    assert contrast(batch, [objects(first), *mixed[1:]], mixed) == pytest.approx(expected, rel=1e-4)
    assert contrast(batch, mixed, mixed, reference_quirks=True) != pytest.approx(expected, rel=1e-4)  # boxes read from the first image


def test_without_any_object_the_contrast_is_zero() -> None:
    nothing = [objects(), objects()]
    assert contrast(images(2), nothing, nothing) == {"loss_track": 0, "loss_track_aux": 0}


def test_the_contrast_reaches_the_track_head_and_what_it_shares() -> None:
    model, batch = tracker().eval(), images(1)
    seen = Batch(batch.images, [objects([4.0, 4, 30, 40], [30.0, 20, 60, 60])], batch.metas)
    losses = PatchContrast()(Context(model, None, {"student": seen, "contrastive": seen}, 0))
    sum(losses.values()).backward()  # type: ignore[union-attr]
    moved = {name.split(".")[0] + "." + name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"track_head.embedding", "detector.neck", "detector.backbone"} <= moved
    assert not any("rpn_head" in name or "box_head" in name for name in moved)
    with pytest.raises(InputError, match=r"contrast\(\) of the model, which SSD does not have"):
        PatchContrast()(context(detector(), seen))


def test_of_a_tracker_pseudo_labels_train_the_detector_alone() -> None:
    model, batch = tracker().eval(), images(1)
    losses = PseudoLabelDetection()(context(model, Batch(batch.images, [objects([4.0, 4, 30, 40])], batch.metas)))
    assert set(losses) == {"pseudo_loss_rpn_cls", "pseudo_loss_rpn_bbox", "pseudo_loss_cls", "pseudo_loss_bbox"}
