"""Runs `mm_schedules_sizes`: learning-rate curves of mmcv, and sizes, boxes and pixels of the image, detection and video pipelines."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from saccade.data.transforms.sizes import CenterCrop, KeepRatioResize, center_crop_window, keep_ratio_size, padded_size
from saccade.layers.pixels import PixelNorm
from saccade.learning.schedules import ConstantWarmup, Cosine, ExponentialWarmup, LinearWarmup, MultiStep, Poly, Schedule, Step, Warmup
from saccade.structures import Annotations, Batch, Sample, collate, make_sample

Outputs = dict[str, np.ndarray]
_WARMUPS: dict[str, type] = {"linear": LinearWarmup, "exp": ExponentialWarmup, "constant": ConstantWarmup}
_BOXES = ((10.5, 20.25, 200.0, 90.75), (0.0, 0.0, 30.0, 40.0))
_ACTION_SCALES = ((-1, 256), (340, 256), (224, 224))


def run(folder: Path, case: dict[str, Any]) -> Outputs:
    """Every output of the case."""
    settings = case["settings"]
    sizes = [tuple(size) for size in settings["image sizes h, w"]]
    pixels = torch.from_numpy(np.load(folder / "golden.npz")["in_pixels"]).permute(2, 0, 1)
    return _rates(settings) | _sizes(sizes, settings) | _detection(sizes, settings, case) | _classification(sizes) | _pixels(pixels, case)


def _rates(settings: dict[str, Any]) -> Outputs:
    per_epoch, total = settings["iterations per epoch"], settings["epochs"] * settings["iterations per epoch"]
    schedules = {name: _schedule(spec) for name, spec in settings["schedules"].items()}
    return {f"lr_{name}": np.array([s.lr(i, settings["base_lr"], total, per_epoch) for i in range(total)]) for name, s in schedules.items()}


def _schedule(spec: dict[str, Any]) -> Schedule:
    by: Any = "epoch" if spec.get("by_epoch", True) else "step"
    warmup = _warmup(spec)
    kind = spec["hook"].removesuffix("LrUpdaterHook")
    if kind == "Step":
        rest = {"gamma": spec.get("gamma", 0.1), "minimum": spec.get("min_lr") or 0.0, "by": by, "warmup": warmup}
        return Step(every=spec["step"], **rest) if isinstance(spec["step"], int) else MultiStep(milestones=spec["step"], **rest)
    if kind == "CosineAnnealing":
        return Cosine(minimum=spec.get("min_lr"), minimum_ratio=spec.get("min_lr_ratio"), by=by, warmup=warmup)
    if kind == "Poly":
        return Poly(power=spec.get("power", 1.0), minimum=spec.get("min_lr", 0.0), by=by, warmup=warmup)
    raise LookupError(f"no schedule for {spec['hook']}")


def _warmup(spec: dict[str, Any]) -> Warmup | None:
    if "warmup" not in spec:
        return None
    unit = "epoch" if spec.get("warmup_by_epoch", False) else "step"
    warmup: Warmup = _WARMUPS[spec["warmup"]](steps=spec["warmup_iters"], ratio=spec.get("warmup_ratio", 0.1), by=unit)
    return warmup


def _sample(size: tuple[int, int], boxes: tuple[tuple[float, ...], ...] = ()) -> Sample:
    return make_sample(torch.zeros(3, *size, dtype=torch.uint8), Annotations(boxes=torch.tensor(boxes)))


def _sizes(sizes: list[Any], settings: dict[str, Any]) -> Outputs:
    scales = [scale if isinstance(scale, float) else tuple(scale) for scale in settings["scales"]]
    rescaled = [[keep_ratio_size(size, scale)[::-1] for scale in scales] for size in sizes]
    action = [[KeepRatioResize(scale=scale)(_sample(size)).size for size in sizes] for scale in _ACTION_SCALES]
    return {"rescale": np.array(rescaled, dtype=np.int32), "action_resize": np.array(action, dtype=np.int32)}


def _detection(sizes: list[Any], settings: dict[str, Any], case: dict[str, Any]) -> Outputs:
    count = case["outputs"]["det_img_shape"]["shape"][0]
    given = [_sample(size, _BOXES) for size in sizes[:count]]
    resized = [KeepRatioResize(scale=tuple(settings["scales"][0]))(sample) for sample in given]
    flipped = [v2.RandomHorizontalFlip(p=1.0)(sample) for sample in resized]
    factors = [[new / old for old, new in zip(a.size[::-1], b.size[::-1], strict=True)] * 2 for a, b in zip(given, resized, strict=True)]
    padded = [collate([sample], divisor=32) for sample in flipped]
    assert all(_shape(batch) == padded_size(sample.size, 32) for batch, sample in zip(padded, flipped, strict=True))
    return {
        "det_scale_factor": np.array(factors),
        "det_img_shape": np.array([sample.size for sample in resized], dtype=np.int32),
        "det_boxes_resized": np.stack([sample.boxes.numpy() for sample in resized if sample.boxes is not None]),
        "det_boxes_flipped": np.stack([sample.boxes.numpy() for sample in flipped if sample.boxes is not None]),
        "det_pad_shape": np.array([_shape(batch) for batch in padded], dtype=np.int32),
    }


def _shape(batch: Batch) -> tuple[int, int]:
    return int(batch.images.shape[-2]), int(batch.images.shape[-1])


def _classification(sizes: list[Any]) -> Outputs:
    resized = [v2.Resize(size=256, antialias=False)(_sample(size)) for size in sizes]
    cropped = [CenterCrop(size=224)(sample) for sample in resized]
    windows = []
    for before, after in zip(resized, cropped, strict=True):
        left, top = after.meta.geometry.points_to_original(torch.zeros(2, dtype=torch.float64)).tolist()  # type: ignore[union-attr]
        original = before.meta.original_size or before.size
        windows.append((round(top * before.size[0] / original[0]), round(left * before.size[1] / original[1]), *after.size))
        assert windows[-1] == center_crop_window(before.size, (224, 224))
    return {"cls_resize": np.array([s.size for s in resized], dtype=np.int32), "cls_center_crop": np.array(windows, dtype=np.int32)}


def _pixels(pixels: torch.Tensor, case: dict[str, Any]) -> Outputs:
    outputs: Outputs = {}
    for name in case["outputs"]:
        if name.startswith("resized_"):
            width, height = (int(side) for side in name.rsplit("_", 1)[1].split("x"))
            sample = make_sample(pixels.float() if name.startswith("resized_float_") else pixels)
            outputs[name] = v2.Resize(size=(height, width), antialias=False)(sample).image.permute(1, 2, 0).numpy()
    # The stored pixels are BGR in the reference; it reverses them and subtracts RGB means. Ours takes RGB.
    outputs["normalized"] = PixelNorm()(pixels.flip(0)[None])[0].permute(1, 2, 0).numpy()
    return outputs


def _is_this(case: dict[str, Any]) -> bool:
    return "schedules" in case.get("settings", {}) and "image sizes h, w" in case["settings"]


RUNNERS: list[tuple[Callable[[dict[str, Any]], bool], Callable[[Path, dict[str, Any]], Outputs]]] = [(_is_this, run)]
