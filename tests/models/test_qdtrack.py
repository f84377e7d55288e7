"""QDTrack: what it learns from pairs, what it says of frames, and how it follows a video."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from saccade.data.loading import Loader
from saccade.data.pairs import FramePairs
from saccade.engine.evaluation import evaluate
from saccade.engine.streaming import Follower
from saccade.layers.backbone import TimmBackbone
from saccade.layers.two_stage import truths_of
from saccade.metrics.tracking import MotTracking
from saccade.models.qdtrack import Following, QDTrack
from saccade.structures import Annotations, Batch, Detections, Geometry, Meta, collate
from saccade.tracking.quasi_dense import QuasiDense
from small_tracker import SETTINGS, pairs, town, tracker_model

TERMS = {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_track", "loss_track_aux"}


def losses(model: QDTrack, batch: Batch) -> dict[str, Tensor]:
    """The losses of a batch with the same random numbers every time."""
    torch.manual_seed(0)
    found: dict[str, Tensor] = model.losses(model(batch), batch)
    return found


def frame(video: str | None = None, number: int | None = None, seed: int = 0) -> Batch:
    """One frame of 64 x 96 pixels of noise, from an original of twice the size."""
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    geometry = Geometry.from_matrix(torch.diag(torch.tensor([2.0, 2.0, 1.0])), (64, 96))
    return Batch(images, [Annotations()], [Meta(original_size=(128, 192), video=video, frame=number, geometry=geometry)])


def test_a_pair_has_the_papers_terms_and_every_part_learns() -> None:
    model = tracker_model().train()
    terms = losses(model, pairs())
    assert set(terms) == TERMS and all(value.isfinite() and value >= 0 for value in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_the_embeddings_learn_through_both_frames() -> None:
    model, batch = tracker_model().train(), pairs()
    images = batch.images.float().requires_grad_()
    terms = losses(model, replace(batch, images=images))
    (gradient,) = torch.autograd.grad(terms["loss_track"] + terms["loss_track_aux"], images, retain_graph=True)
    assert gradient[:, 0].any() and gradient[:, 1].any()
    (gradient,) = torch.autograd.grad(terms["loss_cls"] + terms["loss_rpn_cls"], images)
    assert gradient[:, 0].any()


def test_the_detector_learns_from_the_key_frame_or_from_both() -> None:
    batch = pairs()
    other = replace(batch, targets=[t if i % 2 == 0 else t.select(torch.zeros(0, dtype=torch.int64)) for i, t in enumerate(batch.targets)])
    for both in (False, True):
        model = tracker_model(learn_both=both).train()
        one, two = losses(model, batch)["loss_rpn_cls"], losses(model, other)["loss_rpn_cls"]
        assert bool(torch.isclose(one, two)) is not both


def test_still_images_are_pairs_with_themselves() -> None:
    model, batch = tracker_model().train(), pairs()
    still = Batch(batch.images[:, 0], batch.targets[0::2], batch.metas[0::2])
    terms = losses(model, still)
    assert set(terms) == TERMS and terms["loss_track"] > 0


def test_without_a_common_object_the_embeddings_cost_nothing() -> None:
    model, batch = tracker_model().train(), pairs()
    for target in batch.targets[1::2]:
        assert target.track_ids is not None
        target.track_ids = target.track_ids + 1_000_000
    terms = losses(model, batch)
    assert terms["loss_track"] == 0 and terms["loss_track_aux"] == 0 and terms["loss_cls"] > 0


def test_frames_without_objects_train() -> None:
    model, batch = tracker_model().train(), pairs()
    empty = [target.select(torch.zeros(0, dtype=torch.int64)) for target in batch.targets]
    terms = losses(model, replace(batch, targets=empty))
    assert all(value.isfinite() for value in terms.values()) and terms["loss_track"] == 0
    torch.stack(list(terms.values())).sum().backward()


def test_an_object_with_the_id_0_matches_unless_quirks_are_asked_for() -> None:
    targets = [Annotations(boxes=torch.tensor([[5.0, 5, 40, 40]]), labels=torch.tensor([0]), track_ids=torch.tensor([0]))]
    batch = Batch(pairs().images[:1, 0], targets, [Meta()])
    assert losses(tracker_model().train(), batch)["loss_track_aux"] > 0
    assert losses(tracker_model(reference_quirks=True).train(), batch)["loss_track_aux"] == 0


def test_objects_outside_the_picture_are_not_learnt_unless_quirks_are_asked_for() -> None:
    boxes = torch.tensor([[5.0, 5, 40, 40], [300, 5, 340, 40]])
    target = Annotations(boxes=boxes, labels=torch.tensor([0, 0]), track_ids=torch.tensor([4, 7]))
    sizes = torch.tensor([[64.0, 96.0]])
    assert truths_of([target], sizes)[0].rows.tolist() == [0]
    outputs = {"sizes": sizes, "proposals": [torch.zeros(0, 4)]}
    for quirks, ids in ((False, [4]), (True, [4, 7])):
        (_, found), = tracker_model(reference_quirks=quirks).sample_instances(outputs, [target], objects_only=True)
        assert found.tolist() == ids


def test_clips_of_more_than_two_frames_are_refused() -> None:
    batch = pairs()
    with pytest.raises(ValueError, match="pairs of frames"):
        tracker_model()(replace(batch, images=torch.cat([batch.images, batch.images], 1)))


def test_detections_carry_embeddings_and_are_in_pixels_of_the_original() -> None:
    model = tracker_model(settings=replace(SETTINGS, score_threshold=0.0)).eval()
    batch = frame()
    with torch.no_grad():
        outputs = model(batch)
        (boxes, scores, _), = model.detect(outputs)
        (found,) = model.predictions(outputs, batch)
    assert isinstance(found, Detections) and found.embeddings is not None and found.embeddings.shape == (len(found), 24) and len(found) > 0
    keep = (boxes[:, 2:] > boxes[:, :2]).all(1)
    torch.testing.assert_close(found.boxes, 2 * boxes[keep])
    torch.testing.assert_close(found.scores, scores[keep])
    (again,) = model.embed(outputs["features"], [boxes[keep]])
    torch.testing.assert_close(found.embeddings, again)


def test_predictions_of_pairs_are_those_of_their_key_frames() -> None:
    model, batch = tracker_model(settings=replace(SETTINGS, score_threshold=0.0)).eval(), pairs()
    keys = Batch(batch.images[:, 0], batch.targets[0::2], batch.metas[0::2])
    with torch.no_grad():
        together, alone = model.predictions(model(batch), batch), model.predictions(model(keys), keys)
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Detections) and isinstance(other, Detections)
        torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-4, atol=1e-3)


def test_videos_are_followed_by_trackers_of_their_own() -> None:
    tracker = QuasiDense(init_threshold=0.0, score_threshold=0.0, match_metric="cosine")
    model = tracker_model(settings=replace(SETTINGS, score_threshold=0.1), tracker=tracker).eval()
    first, second = model.start(), model.start()
    with torch.no_grad():
        one, first = model.step(frame("a", 0), first)
        two, second = model.step(frame("b", 0, seed=1), second)
        again, first = model.step(frame("a", 1), first)
    assert isinstance(first, Following) and first.frame == 2 and first.tracker is not tracker and first.tracker is not second.tracker
    assert one.track_ids is not None and again.track_ids is not None and two.track_ids is not None and len(one) > 0
    assert one.track_ids.tolist() == again.track_ids.tolist()  # the same picture again: everything is found again
    assert tracker.last_frame is None


def test_without_a_tracker_frames_are_predicted_one_by_one() -> None:
    model = tracker_model(settings=replace(SETTINGS, score_threshold=0.0)).eval()
    with torch.no_grad():
        found, _ = model.step(frame("a", 0), model.start())
    assert found.track_ids is None and len(found) > 0


def test_a_video_is_followed_the_same_whatever_the_batch() -> None:
    model = tracker_model(settings=replace(SETTINGS, score_threshold=0.1), tracker=QuasiDense(init_threshold=0.1, score_threshold=0.1)).eval()
    data = town(frames=3, videos=1)
    samples = [data[i] for i in range(3)]
    with torch.no_grad():
        together = Follower(model)(collate(samples))
        following = Follower(model)
        alone = [following(collate([s]))[0] for s in samples]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Detections) and isinstance(other, Detections) and one.track_ids is not None and other.track_ids is not None
        assert one.track_ids.tolist() == other.track_ids.tolist()
        torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-4, atol=1e-3)


def test_it_is_scored_over_videos() -> None:
    model = tracker_model(tracker=QuasiDense(init_threshold=0.1, score_threshold=0.1))
    data = town(frames=3)
    figures = evaluate(model, Loader(dataset=data, batch_size=2, training=False), [MotTracking(classes=data.classes)])
    assert {"mot/HOTA", "mot/MOTA", "mot/IDF1"} <= figures.keys()


def test_losses_fall_on_a_few_pairs() -> None:
    torch.manual_seed(0)
    model, batch = tracker_model().train(), pairs()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(15):
        total = torch.stack(list(model.losses(model(batch), batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert sum(history[-5:]) < 0.7 * sum(history[:5])


def test_parameter_groups_and_head_keys_name_parameters_that_exist() -> None:
    model = tracker_model()
    groups = model.parameter_groups()
    assert set(groups) == {"backbone", "head", "track_head"}
    assert sorted(name for names in groups.values() for name in names) == sorted(name for name, _ in model.named_parameters())
    assert all(any(key.startswith(prefix) for key in model.state_dict()) for prefix in model.head_keys())


def test_a_loader_of_pairs_feeds_it() -> None:
    model = tracker_model().train()
    loader = Loader(dataset=FramePairs(dataset=town(), reach=2), batch_size=2, size_divisor=32)
    batch = next(loader.batches())
    assert set(losses(model, batch)) == TERMS


def test_the_published_model_has_as_many_parameters_as_the_original() -> None:
    backbone = TimmBackbone(name="resnet50", out_indices=[1, 2, 3, 4], frozen_stages=1, norm="eval", norm_affine=False, stride_in="1x1")
    model = QDTrack(classes=["pedestrian"], backbone=backbone)
    assert sum(p.numel() for p in model.parameters()) == 56_818_005
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 56_542_485
    assert len(model.state_dict()) == 364
