"""DETR: what it promises beside the parity cases."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from saccade.data.classes import COCO, COCO_CATEGORY_IDS, COCO_STUFF
from saccade.layers.attention import record_attention
from saccade.layers.backbone import TimmBackbone
from saccade.layers.folding import fold_batch_norms
from saccade.layers.positions import LearnedPositions, SinePositions
from saccade.layers.transformer import Transformer
from saccade.models.detr import DETR
from saccade.structures import Annotations, Batch, Detections, Panoptic, collate, make_sample
from saccade.weights.maps import detr as names

CLASSES = ("person", "car", "dog")


def tiny(**changes: Any) -> DETR:
    """A small DETR in eval mode with seeded weights."""
    torch.manual_seed(0)
    levels = [1, 2, 3, 4] if changes.get("masks", "none") != "none" else [4]
    arguments: dict[str, Any] = {
        "classes": CLASSES, "backbone": TimmBackbone(name="resnet10t", norm="frozen", out_indices=levels), "num_queries": 7,
        "transformer": Transformer(channels=32, heads=4, encoder_layers=2, decoder_layers=3, feedforward=48, dropout=0.0),
    }
    model = DETR(**(arguments | changes)).eval()
    torch.nn.init.normal_(model.query_embed.weight, std=3.0)
    return model


def picture(height: int, width: int, objects: int = 2, seed: int = 0, masks: bool = False) -> Any:
    """A noisy picture with `objects` boxes."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    corners = torch.rand(objects, 2, 2, generator=generator).sort(1).values * torch.tensor([width - 4.0, height - 4.0])
    boxes = torch.cat([corners[:, 0], corners[:, 1] + 4], 1)
    labels = torch.arange(objects) % len(CLASSES)
    inside = None
    if masks:
        inside = torch.zeros(objects, height, width, dtype=torch.bool)
        for mask, box in zip(inside, boxes.int().tolist(), strict=True):
            mask[box[1] : box[3], box[0] : box[2]] = True
    return make_sample(image, Annotations(boxes=boxes, labels=labels, masks=inside), dataset="noise", id=seed)


def padded(batch: Batch, rows: int, columns: int) -> Batch:
    """The same pictures with more padding on the right and below."""
    height, width = batch.images.shape[-2:]
    images = torch.nn.functional.pad(batch.images, (0, columns, 0, rows), value=77)
    padding = torch.ones(len(batch), height + rows, width + columns, dtype=torch.bool)
    padding[:, :height, :width] = False if batch.padding is None else batch.padding
    return Batch(images, batch.targets, batch.metas, padding)


@torch.inference_mode()
def predict(model: DETR, batch: Batch) -> list[Any]:
    return model.predictions(model(batch), batch)


def gradients(model: DETR) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def test_parameters_are_those_of_the_released_model() -> None:
    backbone = TimmBackbone(name="resnet50", norm="frozen", frozen_stages=1, out_indices=[4])
    model = DETR(classes=COCO, category_ids=COCO_CATEGORY_IDS, backbone=backbone)
    theirs = names.from_saccade(model.state_dict(), model)
    assert len(theirs) == 458 and sum(p.numel() for p in model.parameters()) == 41_524_768
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 41_302_368
    assert theirs["class_embed.weight"].shape == (92, 256) and "transformer.decoder.layers.5.multihead_attn.in_proj_weight" in theirs
    assert names.to_saccade(theirs, model).keys() == model.state_dict().keys()


def test_dilated_model_has_the_same_keys_and_twice_the_resolution() -> None:
    plain, dilated = (TimmBackbone(name="resnet50", norm="frozen", out_indices=[4], output_stride=stride) for stride in (32, 16))
    assert plain.state_dict().keys() == dilated.state_dict().keys()
    images = torch.zeros(1, 3, 64, 96)
    with torch.no_grad():
        assert plain(images)[-1].shape[-2:] == (2, 3) and dilated(images)[-1].shape[-2:] == (4, 6)


@pytest.mark.parametrize("size", [(64, 96), (70, 101)])
@pytest.mark.parametrize("more", [(0, 64), (64, 0), (37, 91)])
def test_padding_does_not_change_detections(more: tuple[int, int], size: tuple[int, int]) -> None:
    model = tiny(backbone=TimmBackbone(name="resnet18", norm="frozen", out_indices=[4]))
    batch = collate([picture(*size)])
    alone, with_padding = predict(model, batch)[0], predict(model, padded(batch, *more))[0]
    torch.testing.assert_close(with_padding.boxes, alone.boxes, atol=1e-4 * 96, rtol=0)
    torch.testing.assert_close(with_padding.scores, alone.scores, atol=1e-4, rtol=0)
    assert torch.equal(with_padding.labels, alone.labels)


def test_original_model_sees_padding() -> None:
    model = tiny(backbone=TimmBackbone(name="resnet18", norm="frozen", out_indices=[4]), reference_quirks=True)
    batch = collate([picture(64, 96)])
    assert (predict(model, padded(batch, 64, 64))[0].boxes - predict(model, batch)[0].boxes).abs().max() > 1e-3


def test_pictures_of_a_batch_do_not_know_each_other() -> None:
    model = tiny()
    samples = [picture(64, 96, seed=1), picture(96, 64, seed=2)]
    for together, sample in zip(predict(model, collate(samples)), samples, strict=True):
        alone = predict(model, collate([sample]))[0]
        torch.testing.assert_close(together.boxes, alone.boxes, atol=1e-2, rtol=0)
        torch.testing.assert_close(together.scores, alone.scores, atol=1e-4, rtol=0)


def test_detections_are_in_original_pixels_best_first_and_one_a_query() -> None:
    from torchvision.transforms import v2

    found = predict(tiny(), collate([v2.Resize([64, 64])(picture(128, 256))]))[0]
    assert isinstance(found, Detections) and len(found) == 7
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    assert found.boxes[:, 2].max() <= 256 and found.boxes[:, 3].max() <= 128 and found.boxes[:, 2].max() > 64


def test_sparse_category_ids_and_contiguous_ones_find_the_same() -> None:
    plain, sparse = tiny(), tiny(category_ids=[2, 5, 3])
    assert sparse.class_embed.out_features == 7
    weight, bias = torch.full((7, 32), 0.0), torch.full((7,), -1e4)  # logits that stand for no class never win
    places = torch.tensor([2, 5, 3, 6])
    weight[places], bias[places] = plain.class_embed.weight.detach(), plain.class_embed.bias.detach()
    sparse.load_state_dict(plain.state_dict() | {"class_embed.weight": weight, "class_embed.bias": bias})
    batch = collate([picture(64, 96)])
    for one, other in zip(predict(plain, batch), predict(sparse, batch), strict=True):
        torch.testing.assert_close(one.scores, other.scores)
        assert torch.equal(one.labels, other.labels)
    losses = [model.train().losses(model(batch), batch)["loss_ce"] for model in (plain, sparse)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize(("ids", "said"), [([1, 2], "2 numbers for 3 classes"), ([1, 1, 2], "distinct"), ([-1, 0, 1], "from 0")])
def test_category_ids_that_do_not_fit_are_refused(ids: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny(category_ids=ids)


@pytest.mark.parametrize("counts", [(0, 2), (1, 0), (0, 0)])
def test_pictures_without_objects_teach_every_head(counts: tuple[int, int]) -> None:
    model = tiny().train()
    batch = collate([picture(64, 96, objects=n, seed=i) for i, n in enumerate(counts)])
    losses = model.losses(model(batch), batch)
    assert set(losses) == {f"{name}{layer}" for name in ("loss_ce", "loss_bbox", "loss_giou") for layer in ("", "_0", "_1")}
    torch.stack(list(losses.values())).sum().backward()
    found = gradients(model)
    assert found.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(bool(g.isfinite().all()) for g in found.values())
    assert found["class_embed.weight"].abs().sum() > 0


def test_watched_figures_are_of_the_last_layer_and_not_learned() -> None:
    model = tiny().train()
    batch = collate([picture(64, 96, seed=1), picture(64, 96, objects=0, seed=2)])
    outputs = model(batch)
    figures = model.figures({name: value.detach() if isinstance(value, Tensor) else value for name, value in outputs.items()}, batch)
    says = (outputs["logits"][-1].argmax(-1) != len(CLASSES)).sum(1)
    assert figures["cardinality_error"] == (says - torch.tensor([2, 0])).abs().float().mean()
    assert 0 <= figures["class_error"] <= 100 and not figures.keys() & model.losses(outputs, batch).keys()


def test_loss_falls_when_a_batch_is_learned_by_heart() -> None:
    model = tiny().train()
    batch = collate([picture(64, 96, seed=1), picture(64, 96, objects=1, seed=2)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(25):
        total = torch.stack(list(model.losses(model(batch), batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.6 * totals[0]


def test_evaluation_computes_the_last_layer_alone() -> None:
    model = tiny()
    batch = collate([picture(64, 96)])
    with torch.no_grad():
        assert model(batch)["logits"].shape == (1, 1, 7, 4)
        every = model.forward_pixels(model.pixel_norm(batch.images), every_layer=True)
        torch.testing.assert_close(every["logits"][-1:], model(batch)["logits"])
    assert model.train()(batch)["logits"].shape == (3, 1, 7, 4)


def test_folded_model_finds_the_same_boxes() -> None:
    model = tiny()
    batch = collate([picture(64, 96)])
    before = predict(model, batch)[0]
    with torch.no_grad():
        assert fold_batch_norms(model, batch) > 5
    after = predict(model, batch)[0]
    torch.testing.assert_close(after.boxes, before.boxes, atol=1e-2, rtol=0)


def test_half_precision_stays_close() -> None:
    model = tiny()
    batch = collate([picture(64, 96)])
    plain = predict(model, batch)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = predict(model, batch)[0]
    torch.testing.assert_close(half.scores.float(), plain.scores, atol=0.05, rtol=0)


def test_attention_rows_sum_to_one_and_do_not_change_the_result() -> None:
    model = tiny()
    batch = padded(collate([picture(64, 96)]), 32, 0)
    with torch.no_grad():
        plain = model(batch)["boxes"]
        with record_attention(model) as maps:
            recorded = model(batch)["boxes"]
    torch.testing.assert_close(recorded, plain, atol=1e-5, rtol=1e-4)
    assert len(maps) == 2 + 2 * 3 and maps["transformer.decoder.layers.2.cross_attn"].shape == (1, 4, 7, 9)
    assert all(torch.allclose(rows.sum(-1), torch.ones(rows.shape[:-1]), atol=1e-5) for rows in maps.values())
    assert not maps["transformer.encoder.layers.0.self_attn"][..., 6:].any()  # padded places are not looked at


@pytest.mark.parametrize("kind", ["instances", "panoptic"])
def test_masks_come_in_original_size_and_learn(kind: str) -> None:
    model = tiny(masks=kind, things=[True, True, False], panoptic_threshold=0.0)
    batch = collate([picture(64, 96, masks=True), picture(48, 64, objects=1, seed=3, masks=True)])
    first, second = predict(model, batch)
    if kind == "panoptic":
        assert isinstance(first, Panoptic) and second.segment_map.shape == (48, 64)
        assert {s.id for s in first.segments} <= set(first.segment_map.unique().tolist())
        assert all(s.is_thing == (s.label != 2) for s in first.segments)
    else:
        assert first.masks.shape == (7, 64, 96) and second.masks.shape == (7, 48, 64)
    model.train()
    losses = model.losses(model(batch), batch)
    assert {"loss_mask", "loss_dice"} <= losses.keys()
    torch.stack(list(losses.values())).sum().backward()
    assert gradients(model)["mask_head.lay1.weight"].abs().sum() > 0 and gradients(model)["bbox_attention.q_linear.weight"].abs().sum() > 0


def test_second_stage_trains_the_mask_head_alone() -> None:
    model = tiny(masks="instances", freeze_detector=True).train()
    batch = collate([picture(64, 96, masks=True)])
    losses = model.losses(model(batch), batch)
    torch.stack(list(losses.values())).sum().backward()
    assert all(name.startswith(("mask_head.", "bbox_attention.")) for name in gradients(model)) and len(gradients(model)) == 32
    assert not model.transformer.training
    assert tiny(masks="instances", freeze_detector=True, reference_quirks=True).train().transformer.training


def test_mask_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="masks is none"):
        tiny(freeze_detector=True)
    with pytest.raises(ValueError, match="four levels"):
        tiny(masks="panoptic", backbone=TimmBackbone(name="resnet10t", out_indices=[4]))
    with pytest.raises(ValueError, match="2 entries for 3 classes"):
        tiny(masks="panoptic", things=[True, False])


def test_masks_without_truth_are_an_error_that_says_so() -> None:
    from saccade.errors import DataError

    model = tiny(masks="instances").train()
    batch = collate([picture(64, 96)])
    with pytest.raises(DataError, match="no masks"):
        model.losses(model(batch), batch)


def test_other_backbones_and_pre_norm_and_learned_codes_work() -> None:
    model = tiny(
        backbone=TimmBackbone(name="mobilenetv3_small_050", out_indices=[-1]), positions=LearnedPositions(channels=32, size=4),
        transformer=Transformer(channels=32, heads=4, encoder_layers=1, decoder_layers=1, feedforward=48, pre_norm=True),
    )
    assert len(predict(model, collate([picture(64, 96)]))[0]) == 7
    with pytest.raises(ValueError, match="4 rows and columns"):
        predict(model, collate([picture(64, 192)]))


def test_coco_has_133_panoptic_classes() -> None:
    assert len(COCO) == 80 and len(COCO_STUFF) == 53 and len({*COCO, *COCO_STUFF}) == 133


def test_clip_codes_have_time_first_and_count_from_the_far_border() -> None:
    codes = SinePositions(channels=12, axes=3)(torch.zeros(1, 2, 3, 4, dtype=torch.bool))
    assert codes.shape == (1, 2, 12, 3, 4)
    assert torch.equal(codes[0, 0, :4, 0, 0], codes[0, 0, :4, 2, 3]) and not torch.equal(codes[0, 0, :4, 0, 0], codes[0, 1, :4, 0, 0])
    assert codes[0, 0, 0, 0, 0] == pytest.approx(torch.sin(torch.tensor(1 / 2 * 2 * torch.pi)).item(), abs=1e-4)


def test_boxes_stay_tensors_of_the_picture() -> None:
    sample = picture(64, 96)
    assert isinstance(sample.boxes, tv_tensors.BoundingBoxes)
