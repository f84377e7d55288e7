"""Runs the classifier cases of mmclassification: stages, pooled features, logits, probabilities and loss of ResNets."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import fill
import numpy as np
import torch
from inputs import make
from torch import Tensor

from saccade.layers.backbone import TimmBackbone
from saccade.models.classifier import ImageClassifier
from saccade.structures import Annotations, Batch, Meta
from saccade.weights.load import load_into

Case = dict[str, Any]


def build_model(architecture: Case) -> ImageClassifier:
    """The classifier that a case's `architecture` describes."""
    if architecture["neck"] != "global average pooling" or architecture["head"] != "linear":
        raise LookupError(f"no classifier of ours has the neck {architecture['neck']!r} and the head {architecture['head']!r}")
    depth = architecture["depth"]
    options: Case = {"stem_type": "deep", "stem_width": 32} if architecture["deep_stem"] else {}
    backbone = TimmBackbone(
        name=f"resnet{depth}",
        norm_eps=architecture["norm_eps"],
        # Blocks of two 3x3 convolutions (depth 18 and 34) have no 1x1 that could stride; the original's are alike in both styles.
        stride_in="1x1" if architecture["style"] == "caffe" and depth >= 50 else "3x3",
        options=options | {"avg_down": architecture.get("avg_down", False)},
    )
    return ImageClassifier(classes=[str(label) for label in range(architecture["num_classes"])], backbone=backbone)


def run(folder: Path, case: Case) -> dict[str, np.ndarray]:
    """The outputs of the classifier of the case in `folder`."""
    model = build_model(case["architecture"])
    load_into(model, {key: torch.from_numpy(value) for key, value in fill.state_dict_from(folder / "manifest.json").items()}, origin="mmcls")
    model.train(case["mode"] == "train")
    images = torch.from_numpy(make(case["inputs"]["images"]))
    labels = make(case["inputs"]["labels"])
    batch = Batch(images, [Annotations(label=int(label)) for label in labels], [Meta() for _ in labels])
    with torch.no_grad():
        outputs = model.forward_pixels(images)
        results: dict[str, Tensor] = {f"stage{i}": features for i, features in enumerate(outputs["features"])}
        results |= {"pooled": outputs["pooled"], "logits": outputs["logits"], "loss": sum(model.losses(outputs, batch).values()).reshape(1)}
        results["probabilities"] = torch.stack([prediction.scores for prediction in model.predictions(outputs, batch)])
    return {name: value.numpy() for name, value in results.items()}


RUNNERS = [(lambda case: case["case"].startswith("mmcls_") and case.get("architecture", {}).get("type") == "resnet", run)]
