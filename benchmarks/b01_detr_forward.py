"""B1: DETR ResNet-50, from uint8 pixels to detections, against transformers' `DetrForObjectDetection` at equal weights and input.

Weights are transformers' fresh ones, but with spread-out query embeddings and heads and with statistics in the norms, so that queries and boxes
differ; they go into ours through the key map. Outputs are compared first, then all sides alternate in one process: transformers (normalisation,
network and post-processing), saccade as it is (float32), folded (float32), and folded in bfloat16. Printed: median and fastest seconds an image and
the ratios. Goals: 1.0 or less in float32, 0.65 or less on the fast path with boxes within 1e-2 of the picture.

    python benchmarks/b01_detr_forward.py [--size 800 1066] [--repeats 7] [--threads 2] [--dilation]
"""
from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from saccade.layers.backbone import TimmBackbone
from saccade.layers.folding import fold_batch_norms
from saccade.models.detr import DETR
from saccade.structures import Batch, Geometry, Meta
from saccade.weights.load import load_into

CLASSES = 91


def make_models(dilation: bool) -> tuple[Any, DETR]:
    """transformers' model and ours with its weights."""
    from transformers import DetrConfig, DetrForObjectDetection

    torch.manual_seed(0)
    settings = DetrConfig(use_timm_backbone=True, backbone="resnet50", use_pretrained_backbone=False, dilation=dilation, num_labels=CLASSES)
    theirs = DetrForObjectDetection(settings).eval()
    for name, value in theirs.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            value.normal_(std=0.1)
    nn.init.normal_(theirs.model.query_position_embeddings.weight, std=3.0)
    for layer in (theirs.bbox_predictor.layers[2], theirs.class_labels_classifier):
        nn.init.normal_(layer.weight, std=0.3)
    backbone = TimmBackbone(name="resnet50", norm="frozen", frozen_stages=1, out_indices=[4], output_stride=16 if dilation else 32)
    ours = DETR(classes=[f"class {k}" for k in range(CLASSES)], backbone=backbone, reference_quirks=True).eval()
    load_into(ours, theirs.state_dict())
    return theirs, ours


def make_batch(height: int, width: int) -> Batch:
    """One blurred picture."""
    noise = torch.rand(1, 3, height // 20, width // 20, generator=torch.Generator().manual_seed(1)) * 255
    images = nn.functional.interpolate(noise, size=(height, width), mode="bilinear").to(torch.uint8)
    return Batch(images, [], [Meta(original_size=(height, width), geometry=Geometry.identity((height, width)))])


def theirs_detections(model: Any, ours: DETR, batch: Batch) -> Any:
    """What a user of transformers runs after resizing: normalise, mask, network, post-processing."""
    height, width = batch.images.shape[-2:]
    mean, std = (torch.tensor(v)[:, None, None] for v in (ours.pixel_norm.mean, ours.pixel_norm.std))
    pixels = (batch.images.float() - mean) / std
    outputs = model(pixel_values=pixels, pixel_mask=torch.ones(len(batch), height, width, dtype=torch.long))
    scores, labels = outputs.logits.softmax(-1)[..., :-1].max(-1)
    boxes = outputs.pred_boxes
    corners = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)
    return scores, labels, corners * torch.tensor([width, height, width, height]), outputs


def in_bfloat16(call: Callable[[], Any]) -> Callable[[], Any]:
    """`call` under autocast."""

    def run() -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return call()

    return run


def main() -> None:
    """Compare, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1066), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dilation", action="store_true", help="DC5")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.no_grad():
        theirs, ours = make_models(options.dilation)
        batch = make_batch(*options.size)
        folded = copy.deepcopy(ours)
        fold_batch_norms(folded, make_batch(64, 64))
    with torch.inference_mode():
        expected = theirs_detections(theirs, ours, batch)[3]
        sides: dict[str, Callable[[], Any]] = {
            "transformers": lambda: theirs_detections(theirs, ours, batch),
            "saccade": lambda: ours.predictions(ours(batch), batch),
            "saccade, folded": lambda: folded.predictions(folded(batch), batch),
            "saccade, folded, bf16": in_bfloat16(lambda: folded.predictions(folded(batch), batch)),
        }
        raw = {"saccade": ours(batch), "saccade, folded": folded(batch), "saccade, folded, bf16": in_bfloat16(lambda: folded(batch))()}
        for name, outputs in raw.items():
            boxes = float((outputs["boxes"][-1] - expected.pred_boxes).abs().max())
            logits = float((outputs["logits"][-1].float() - expected.logits).abs().max())
            print(f"{name:24s} largest difference of boxes {boxes:.1e} (of the picture), of logits {logits:.1e}")
            assert boxes < 1e-2, name
        times: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(options.repeats + 1):
            for name, call in sides.items():
                begun = time.perf_counter()
                call()
                if repeat:  # the first round warms up
                    times[name].append(time.perf_counter() - begun)
    base = times["transformers"]
    for name, seconds in times.items():
        ratio, fastest = statistics.median(seconds) / statistics.median(base), min(seconds) / min(base)
        print(f"{name:24s} median {statistics.median(seconds):.3f} s, fastest {min(seconds):.3f} s; ratio {ratio:.2f}, of the fastest {fastest:.2f}")
    print("goals: saccade 1.0 or less, with the fast path 0.65 or less")


if __name__ == "__main__":
    main()
