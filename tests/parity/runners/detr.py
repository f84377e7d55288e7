"""Runs the DETR network cases: features, codes, attention, outputs, post-processing, the transformer alone, gradients of a training step."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fill
import numpy as np
import torch
from inputs import make
from torch import Tensor

from saccade.layers.attention import record_attention
from saccade.layers.backbone import TimmBackbone
from saccade.layers.positions import LearnedPositions, SinePositions
from saccade.layers.set_matching import set_truth
from saccade.layers.transformer import Transformer
from saccade.models.detr import DETR
from saccade.structures import Annotations
from saccade.weights.maps import detr as names

Case = dict[str, Any]
Outputs = dict[str, np.ndarray]
POST_SIZES = ((480, 640), (333, 500))


def build(architecture: Case) -> DETR:
    """The model that an `architecture` block describes."""
    masks, channels = architecture.get("masks", False), architecture["hidden_dim"]
    learned = architecture["position_embedding"].startswith("learned")
    classes = architecture["num_classes"]
    return DETR(
        classes=[f"class {k}" for k in range(classes)],
        backbone=TimmBackbone(
            name=architecture["backbone"], norm="frozen", frozen_stages=1, out_indices=[1, 2, 3, 4] if masks else [4],
            output_stride=16 if architecture.get("dilation", False) else 32,
        ),
        transformer=Transformer(
            channels=channels, heads=architecture["nheads"], encoder_layers=architecture["enc_layers"], decoder_layers=architecture["dec_layers"],
            feedforward=architecture["dim_feedforward"], dropout=architecture["dropout"], pre_norm=architecture["pre_norm"],
        ),
        positions=LearnedPositions(channels=channels) if learned else SinePositions(channels=channels),
        num_queries=architecture["num_queries"], auxiliary=architecture["aux_loss"], masks="panoptic" if masks else "none", reference_quirks=True,
    )


def pad_together(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Images (3, h, w) filled up with zeros to one size, and the mask of what was filled."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    batch, padding = torch.zeros(len(images), 3, height, width), torch.ones(len(images), height, width, dtype=torch.bool)
    for image, out, outside in zip(images, batch, padding, strict=True):
        out[:, : image.shape[1], : image.shape[2]] = image
        outside[: image.shape[1], : image.shape[2]] = False
    return batch, padding


@torch.inference_mode()
def run_network(folder: Path, case: Case) -> Outputs:
    """Every output that a network case stores; a prefix stands for the weights with the case's overrides."""
    given = {name: torch.from_numpy(make(entry)) for name, entry in case["inputs"].items()}
    weights = {key: torch.from_numpy(value) for key, value in fill.state_dict_from(folder / "manifest.json").items()}
    model = build(case["architecture"]).eval()
    model.load_state_dict(names.to_saccade(weights, model), strict=True)
    outputs = _forward(model, [given["image0"], given["image1"]])
    outputs |= _modules(model, given, case)
    prefix = case["overrides"]["prefix"]
    replaced = weights | {key: torch.from_numpy(make(entry)) for key, entry in case["overrides"]["state_dict"].items()}
    model.load_state_dict(names.to_saccade(replaced, model), strict=True)
    outputs |= {prefix + name: value for name, value in _forward(model, [given["image0"], given["image1"]]).items()}
    outputs |= {prefix + name: value for name, value in _postprocess(model, outputs[f"{prefix}pred_logits"], outputs[f"{prefix}pred_boxes"]).items()}
    if "odd0" in given:
        odd = _forward(model, [given["odd0"], given["odd1"]])
        outputs |= {f"{prefix}odd_logits": odd["pred_logits"], f"{prefix}odd_boxes": odd["pred_boxes"]}
    return {name: value.numpy() for name, value in outputs.items()}


def _forward(model: DETR, images: Sequence[Tensor]) -> dict[str, Tensor]:
    with record_attention(model) as maps:
        raw = model.forward_pixels(*pad_together(images), every_layer=True)
    width = raw["padding"].shape[2]
    last = len(model.transformer.encoder.layers) - 1, len(model.transformer.decoder.layers) - 1
    outputs = {
        "pred_logits": raw["logits"][-1], "pred_boxes": raw["boxes"][-1], "features": raw["features"][-1], "feature_mask": raw["padding"].int(),
        "position": model.positions(raw["padding"]), "memory": raw["memory"].flatten(2).transpose(1, 2), "hs": raw["queries"],
        "aux0_logits": raw["logits"][0], "aux0_boxes": raw["boxes"][0],
        "encoder_attention": maps[f"transformer.encoder.layers.{last[0]}.self_attn"].mean(1)[:, 2 * width + 3],
        "decoder_attention": maps[f"transformer.decoder.layers.{last[1]}.cross_attn"].mean(1)[:, 10],
    }
    if "masks" in raw:
        outputs |= {"pred_masks": raw["masks"], "attention": raw["mask_attention"]}
    return outputs


def _postprocess(model: DETR, logits: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    scores, labels, corners = model.detect(logits, boxes)
    scale = torch.tensor([[w, h, w, h] for h, w in POST_SIZES], dtype=torch.float32)[:, None]
    return {"post_scores": scores, "post_labels": labels, "post_boxes": corners * scale}


def _modules(model: DETR, given: dict[str, Tensor], case: Case) -> dict[str, Tensor]:
    """The transformer alone (`t_*`), or the mask modules alone (`m_*`), on given inputs; the second image is padded from row 4 and column 6 on."""
    if "src" not in given and "memory" not in given:
        return {}
    source = given["src"] if "src" in given else given["memory"]
    padding = torch.zeros(len(source), *source.shape[2:], dtype=torch.bool)
    padding[1, 4:], padding[1, :, 6:] = True, True
    if "src" in given:
        tokens, positions = (x.flatten(2).transpose(1, 2) for x in (source, model.positions(padding)))
        decoded = model.transformer(tokens, positions, given["query_embed"], padding=padding.flatten(1))
        memory = decoded.memory.transpose(1, 2).unflatten(2, source.shape[2:])
        logits, boxes = model.class_embed(decoded.queries[-1]), model.bbox_embed(decoded.queries[-1]).sigmoid()
        return {"t_memory": memory, "t_hs": decoded.queries, "t_logits": logits, "t_boxes": boxes}
    levels = [given[f"feature{level}"] for level in (3, 2, 1)]
    attention = model.bbox_attention(given["hs"], source, padding)
    masks = model.mask_head(source, attention, levels)
    from_given = model.mask_head(source, given["attention"], levels)
    return {"m_attention": attention, "m_masks": masks.flatten(0, 1)[:, None], "m_masks_given": from_given.flatten(0, 1)[:, None]}


def run_gradients(folder: Path, case: Case) -> Outputs:
    """Losses, matches and gradient norms of one training step."""
    given = {name: torch.from_numpy(make(entry)) for name, entry in case["inputs"].items()}
    model = build(case["architecture"]).train()
    weights = {key: torch.from_numpy(value) for key, value in fill.state_dict_from(folder / "manifest.json").items()}
    weights |= {key: torch.from_numpy(make(entry)) for key, entry in case["overrides"]["state_dict"].items()}
    model.load_state_dict(names.to_saccade(weights, model), strict=True)
    raw = model.forward_pixels(*pad_together([given["image0"], given["image1"]]), every_layer=True)
    targets = [_annotations(given[f"target{i}_labels"], given[f"target{i}_boxes"], raw["sizes"][i]) for i in range(2)]
    truth = set_truth(targets, raw["sizes"], model.logit_of_label, raw["logits"].device)
    losses = model.criterion.losses(raw, truth, ["0", "1"])
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    weight = {"loss_ce": model.criterion.weight_ce, "loss_bbox": model.criterion.weight_bbox, "loss_giou": model.criterion.weight_giou}
    outputs: dict[str, Any] = {"total": total, **{name: losses[name] / weight[name] for name in weight}}
    outputs |= _matches(model, raw, truth)
    theirs = names.from_saccade({key: p.grad for key, p in model.named_parameters() if p.grad is not None}, model)
    wanted = [name.removeprefix("grad_norm/") for name in case["outputs"] if name.startswith("grad_norm/")]
    outputs |= {f"grad_norm/{key}": theirs[key].norm() for key in wanted}
    trainable = [p for p in model.parameters() if p.requires_grad]
    outputs |= {
        "grad_norm_all": torch.stack([g.norm() for g in theirs.values()]).norm(), "grad_query_embed_rows": theirs["query_embed.weight"][::10],
        "trainable_tensors": torch.tensor(len(trainable)), "trainable_numbers": torch.tensor(sum(p.numel() for p in trainable)),
    }
    return {name: value.detach().numpy() for name, value in outputs.items()}


def _annotations(labels: Tensor, boxes: Tensor, size: Tensor) -> Annotations:
    """Truth in pixels from relative (cx, cy, w, h)."""
    from torchvision.ops import box_convert

    return Annotations(boxes=box_convert(boxes, "cxcywh", "xyxy") * size.flip(0).repeat(2), labels=labels)


def _matches(model: DETR, raw: dict[str, Any], truth: Any) -> dict[str, Tensor]:
    """(query, object) pairs of each image in the last layer, by query."""
    matches = model.criterion.match(raw, truth, ["0", "1"])
    last = matches.layer == matches.layer.max()
    first = torch.cat([torch.zeros(1, dtype=torch.int64), truth.counts.cumsum(0)])
    found = {}
    for image in range(len(truth.counts)):
        here = last & (matches.image == image)
        order = matches.query[here].argsort()
        found[f"match{image}"] = torch.stack([matches.query[here][order], matches.target[here][order] - first[image]]).int()
    return found


RUNNERS: list[tuple[Callable[[Case], bool], Callable[[Path, Case], Outputs]]] = [
    (lambda case: case["case"].startswith("detr") and case["case"].endswith("_gradients"), run_gradients),
    (lambda case: case["case"].startswith("detr") and "image0" in case.get("inputs", {}), run_network),
]
