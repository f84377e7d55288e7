"""B3: SSD300 VGG-16, from uint8 pixels to detections, against torchvision's `ssd300_vgg16` and against lufficc/SSD's way, at equal weights.

torchvision's model is drawn at random, its class head scaled so that about 300 candidates an image pass the score threshold, as in a trained
detector; the weights go into ours through the key map. "reference" is the same network in the memory format that pixels come in, with all priors
decoded and one suppression for every class of every image, as lufficc/SSD does. Raw outputs and detections are compared first; then the three
alternate in one process. Printed: median and fastest time an image, by the clock and by the processor (other work on the machine moves only the
first), the share of post-processing, and the ratios. Goal: at most 1.0 of the time of either.

    python benchmarks/b03_ssd_forward.py [--repeats 7] [--batch 1 8] [--threads 2]
"""
from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_convert, box_iou, nms

from saccade.layers.box_coder import decode_boxes
from saccade.models.ssd import SSD
from saccade.models.ssd_backbones.vgg import SSDVGG16
from saccade.structures import Batch, Detections, Geometry, Meta
from saccade.weights.maps import torchvision_ssd

CLASSES, SIZE, MOST = 20, 300, 200
CANDIDATES = 300


def make_models() -> tuple[Any, SSD]:
    """torchvision's model, calibrated, and ours with the same weights and limits."""
    torch.manual_seed(0)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES + 1).eval()
    ours = SSD(
        classes=[f"class {k}" for k in range(CLASSES)], backbone=SSDVGG16(), image_size=SIZE, strides=[8, 16, 32, 64, 100, 300],
        min_sizes=[21, 45, 99, 153, 207, 261], max_sizes=[45, 99, 153, 207, 261, 315], aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        max_detections=MOST,
    ).eval()
    ours.load_state_dict(torchvision_ssd.to_saccade(theirs.state_dict(), ours), strict=True)
    logits = ours(make_batch(2))["class_logits"]
    scale = 3.0 / float(logits.std())
    low, high = 0.0, 30.0
    for _ in range(40):  # the background bias that lets the wanted number of candidates pass
        bias = (low + high) / 2
        shifted = logits * scale
        shifted[..., 0] += bias
        passing = int((shifted.softmax(-1)[..., 1:] > ours.score_threshold).sum()) / len(logits)
        low, high = (bias, high) if passing > CANDIDATES else (low, bias)
    for level in theirs.head.classification_head.module_list:
        level.weight.mul_(scale)
        level.bias.mul_(scale).view(-1, CLASSES + 1)[:, 0] += bias
    ours.load_state_dict(torchvision_ssd.to_saccade(theirs.state_dict(), ours), strict=True)
    return theirs, ours


def make_batch(size: int) -> Batch:
    """Blurred noise, so that neighbouring cells see similar things."""
    noise = torch.rand(size, 3, SIZE // 10, SIZE // 10, generator=torch.Generator().manual_seed(1)) * 255
    images = torch.nn.functional.interpolate(noise, size=(SIZE, SIZE), mode="bilinear").to(torch.uint8)
    return Batch(images, [], [Meta(original_size=(SIZE, SIZE), geometry=Geometry.identity((SIZE, SIZE)))] * size)


def reference_detections(model: SSD, class_logits: Tensor, offsets: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Post-processing as lufficc/SSD writes it: everything decoded, one suppression for every class of every image."""
    scores = class_logits.softmax(2)
    boxes = box_convert(decode_boxes(offsets, model.priors, model.center_variance, model.size_variance), "cxcywh", "xyxy") * SIZE
    results = []
    for image_scores, image_boxes in zip(scores, boxes, strict=True):
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for label in range(1, CLASSES + 1):
            passing = image_scores[:, label] > model.score_threshold
            candidates, confidence = image_boxes[passing], image_scores[passing, label]
            kept = nms(candidates, confidence, model.nms_threshold)
            found.append((candidates[kept], confidence[kept], torch.full((len(kept),), label - 1)))
        all_boxes, all_scores, all_labels = (torch.cat(part) for part in zip(*found, strict=True))
        best = all_scores.topk(min(MOST, len(all_scores))).indices
        results.append((all_boxes[best], all_scores[best], all_labels[best]))
    return results


def reference_network(model: SSD, batch: Batch) -> tuple[Tensor, Tensor]:
    """Our modules as the reference calls them: pixels in the memory format they come in, a contiguous copy of every head."""
    features = model.backbone(model.pixel_norm(batch.images))
    parts = []
    for heads, values in ((model.class_heads, CLASSES + 1), (model.box_heads, 4)):
        maps = [head(feature).permute(0, 2, 3, 1).contiguous() for head, feature in zip(heads, features, strict=True)]
        parts.append(torch.cat([m.view(len(m), -1) for m in maps], 1).view(len(batch), -1, values))
    return parts[0], parts[1]


def check_equal(theirs: Any, ours: SSD, batch: Batch) -> None:
    """Stops where raw outputs or detections differ."""
    raw = ours(batch)
    pixels = ours.pixel_norm(batch.images)
    features = list(theirs.backbone(pixels).values())
    head = theirs.head(features)
    for name, got, expected in (("logits", raw["class_logits"], head["cls_logits"]), ("offsets", raw["box_offsets"], head["bbox_regression"])):
        difference = float((got - expected).abs().max())
        print(f"  largest difference of {name} to torchvision: {difference:.1e} (spread {float(expected.std()):.2g})")
        assert difference < 1e-3 * float(expected.std()), name
    anchors = theirs.anchor_generator(ImageList(pixels, [(SIZE, SIZE)] * len(batch)), features)[0]
    moved = ((anchors - box_convert(ours.priors, "cxcywh", "xyxy") * SIZE).abs() > 1e-3).any(1)
    print(f"  {int(moved.sum())} of {len(moved)} priors differ: torchvision clips their sizes, the reference their centres as well")
    assert moved.sum() <= 114
    for (boxes, scores, labels), expected in zip(
        ours.detect(raw["class_logits"], raw["box_offsets"]), reference_detections(ours, raw["class_logits"], raw["box_offsets"]), strict=True
    ):
        assert torch.equal(labels, expected[2]) and torch.allclose(scores, expected[1]) and torch.allclose(boxes, expected[0], atol=1e-3)
    found, expected_found = ours.predictions(raw, batch), theirs(list(batch.images / 255))
    shares = [_shared(a, b) for a, b in zip(found, expected_found, strict=True)]
    print(f"  detections equal to the reference's; {min(shares):.1%} or more have a twin among torchvision's, which clips before it suppresses")
    assert min(shares) > 0.9


def _shared(found: Any, expected: dict[str, Tensor]) -> float:
    assert isinstance(found, Detections) and len(found) > 0
    same = (found.labels[:, None] + 1 == expected["labels"]) & ((found.scores[:, None] - expected["scores"]).abs() < 1e-4)
    return float((same & (box_iou(found.boxes, expected["boxes"]) > 0.99)).any(1).float().mean())


@dataclass
class Times:
    """Seconds of every repetition, by the clock and by the processor."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def add(self, function: Callable[[], object]) -> None:
        """Run once."""
        clock, processor = time.perf_counter(), time.process_time()
        function()
        self.clock.append(time.perf_counter() - clock)
        self.processor.append(time.process_time() - processor)


def measure(theirs: Any, ours: SSD, batch: Batch, repeats: int) -> None:
    """Alternate the three, whole and post-processing alone, and print."""
    raw = ours(batch)
    logits, offsets = raw["class_logits"], raw["box_offsets"]
    pixels = ours.pixel_norm(batch.images)
    anchors = theirs.anchor_generator(ImageList(pixels, [(SIZE, SIZE)] * len(batch)), list(theirs.backbone(pixels).values()))
    head = {"cls_logits": logits, "bbox_regression": offsets}
    whole: dict[str, Callable[[], object]] = {
        "saccade": lambda: ours.predictions(ours(batch), batch),
        "torchvision": lambda: theirs(list(batch.images / 255)),
        "reference": lambda: reference_detections(ours, *reference_network(ours, batch)),
    }
    post: dict[str, Callable[[], object]] = {
        "saccade": lambda: ours.predictions(raw, batch),
        "torchvision": lambda: theirs.postprocess_detections(head, anchors, [(SIZE, SIZE)] * len(batch)),
        "reference": lambda: reference_detections(ours, logits, offsets),
    }
    times = {name: (Times(), Times()) for name in whole}
    for repeat in range(repeats + 1):
        for name in whole:
            all_of_it, after = times[name] if repeat else (Times(), Times())  # the first round warms up
            all_of_it.add(whole[name])
            after.add(post[name])
    median = {name: (statistics.median(t.clock), statistics.median(t.processor), statistics.median(p.clock)) for name, (t, p) in times.items()}
    for name, (t, _) in times.items():
        clock, processor, after = (value / len(batch) * 1e3 for value in median[name])
        fastest = min(t.clock) / len(batch) * 1e3
        share = f"after the network {after:.2f} ({after / clock:.1%})"
        print(f"  {name:<12} {clock:7.1f} ms/image (fastest {fastest:.1f}, processor {processor:.1f}), of it {share}")
    for name in ("torchvision", "reference"):
        by_clock, by_processor = (median["saccade"][i] / median[name][i] for i in (0, 1))
        fastest = min(times["saccade"][0].clock) / min(times[name][0].clock)
        shares = f"{by_clock:.2f} by the clock, {fastest:.2f} of the fastest, {by_processor:.2f} by the processor"
        print(f"  saccade / {name}: {shares} (goal 1.0 or less)")


@torch.inference_mode()
def main() -> None:
    """Parse the arguments, check and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    theirs, ours = make_models()
    for size in arguments.batch:
        batch = make_batch(size)
        print(f"batch {size}, {SIZE} x {SIZE}, {arguments.threads} threads, float32")
        check_equal(theirs, ours, batch)
        measure(theirs, ours, batch, arguments.repeats)


if __name__ == "__main__":
    main()
