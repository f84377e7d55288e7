"""DETR's weights from facebookresearch/detr and from transformers: names, packing, and equal numbers."""
from __future__ import annotations

from typing import Any

import pytest
import torch

from saccade.errors import InputError
from saccade.layers.backbone import TimmBackbone
from saccade.layers.positions import LearnedPositions
from saccade.layers.transformer import Transformer
from saccade.models.detr import DETR
from saccade.weights.load import load_into
from saccade.weights.maps import detr, key_map, recognise, transformers_detr


def small(**changes: Any) -> DETR:
    torch.manual_seed(1)
    masks = changes.get("masks", "none") != "none"
    backbone = TimmBackbone(name="resnet18", norm="frozen", out_indices=[1, 2, 3, 4] if masks else [4])
    transformer = Transformer(channels=32, heads=4, encoder_layers=1, decoder_layers=2, feedforward=40, dropout=0.0)
    return DETR(**({"classes": [f"c{k}" for k in range(5)], "backbone": backbone, "transformer": transformer, "num_queries": 6} | changes)).eval()


@pytest.mark.parametrize("origin", ["detr", "transformers_detr"])
def test_both_directions_meet(origin: str) -> None:
    model, fresh = small(), small()
    torch.nn.init.normal_(model.class_embed.weight)
    theirs = key_map(origin).from_saccade(model.state_dict(), model)
    assert recognise(list(theirs)) == origin
    report = load_into(fresh, theirs)
    assert report.origin == origin and not report.missing and not report.unexpected
    assert all(torch.equal(fresh.state_dict()[key], value) for key, value in model.state_dict().items())


def test_detector_of_a_mask_model_has_a_prefix_and_learned_codes_lie_in_the_backbone() -> None:
    model = small(masks="panoptic", positions=LearnedPositions(channels=32))
    theirs = detr.from_saccade(model.state_dict(), model)
    assert {"detr.query_embed.weight", "detr.backbone.0.body.conv1.weight", "detr.backbone.1.row_embed.weight", "mask_head.gn5.weight",
            "bbox_attention.k_linear.bias", "detr.transformer.decoder.layers.1.multihead_attn.in_proj_bias"} <= theirs.keys()
    assert detr.to_saccade(theirs, model).keys() == model.state_dict().keys()


def test_box_weights_start_a_mask_model_when_its_head_is_named_missing() -> None:
    theirs = detr.from_saccade(small().state_dict(), small())
    with pytest.raises(InputError, match=r"mask_head\.lay1\.weight"):
        load_into(small(masks="instances"), theirs)
    report = load_into(small(masks="instances"), theirs, missing=["mask_head", "bbox_attention"])
    assert all(key.startswith(("mask_head.", "bbox_attention.")) for key in report.missing)


def test_other_classes_redraw_the_class_head_alone_and_say_so() -> None:
    theirs = detr.from_saccade(small().state_dict(), small())
    mine = small(classes=["cat", "dog"])
    with pytest.raises(InputError, match=r"class_embed\.weight: 6x32 in the file, 3x32 in the model"):
        load_into(mine, theirs)
    assert load_into(mine, theirs, reinitialise=["heads"]).reinitialised == ("class_embed.weight", "class_embed.bias")


def test_names_of_transformers_4_are_read_as_well() -> None:
    model = small()
    names = transformers_detr.from_saccade(model.state_dict(), model)
    old = {
        key.replace("model.backbone.model.", "model.backbone.conv_encoder.model.").replace(".mlp.fc", ".fc").replace(".o_proj.", ".out_proj."): value
        for key, value in names.items()
    }
    assert old.keys() != names.keys() and recognise(list(old)) == "transformers_detr"
    assert transformers_detr.to_saccade(old, model).keys() == model.state_dict().keys()


def test_equal_weights_give_the_outputs_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    settings = transformers.DetrConfig(
        use_timm_backbone=True, backbone="resnet18", use_pretrained_backbone=False, d_model=32, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=40, num_queries=6, num_labels=5, dropout=0.0,
    )
    theirs = transformers.DetrForObjectDetection(settings).eval()
    with torch.no_grad():
        for name, value in theirs.named_buffers():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
        model = small()
        load_into(model, theirs.state_dict())
        pixels, padding = torch.randn(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.bool)
        padding[1, 32:] = True
        pixels = pixels.masked_fill(padding[:, None], 0)
        expected = theirs(pixel_values=pixels, pixel_mask=(~padding).long())
        model.reference_quirks = True
        got = model.forward_pixels(pixels, padding)
    torch.testing.assert_close(got["logits"][-1], expected.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got["boxes"][-1], expected.pred_boxes, atol=1e-5, rtol=1e-4)
