"""ONNX export gives the model's own outputs for any number of pictures, and nothing when it does not."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.errors import NumericError
from saccade.layers.pixels import PixelNorm
from saccade.models.contract import Model
from saccade.models.ssd import SSD
from saccade.structures import Batch, Outputs
from saccade.weights import export
from saccade.weights.export import export_onnx, flat_tensors

onnxruntime = pytest.importorskip("onnxruntime")


class Tiny(Model):
    """Two feature maps, logits and two further maps."""

    def __init__(self) -> None:
        super().__init__(["a", "b"], PixelNorm(channel_order="bgr"))
        self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 6, 3, 2)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(6, 2)

    def forward(self, batch: Batch) -> Outputs:
        first = self.norm(self.first(self.pixel_norm(batch.images, batch.padding))).relu()
        second = self.second(first)
        return {"features": [first, second], "logits": self.head(second.mean((2, 3))), "maps": [first, second]}


def test_the_file_computes_what_the_model_computes() -> None:
    torch.manual_seed(0)
    model = Tiny().train()
    result = export_onnx(model, (32, 48))
    assert result.outputs == ("logits", "maps_0", "maps_1") and max(result.deviations.values()) < 1e-5
    assert model.training
    session = onnxruntime.InferenceSession(result.content, providers=["CPUExecutionProvider"])
    images = torch.randint(0, 256, (3, 3, 32, 48), dtype=torch.uint8)
    found = session.run(["logits"], {"images": images.numpy()})[0]
    with torch.no_grad():
        expected = model.eval()(Batch(images, [], []))["logits"]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_float_pixels_and_a_fixed_batch() -> None:
    result = export_onnx(Tiny(), (32, 32), pixels="float32", dynamic_batch=False)
    session = onnxruntime.InferenceSession(result.content, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert images.shape == [1, 3, 32, 32] and images.type == "tensor(float)"


def test_a_deviating_file_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = export._traced

    def other_weights(wrapped: export.ExportedModel, *settings: object) -> bytes:
        content = traced(wrapped, *settings)  # type: ignore[arg-type]
        with torch.no_grad():
            wrapped.model.head.bias += 0.01  # type: ignore[operator]
        return content

    monkeypatch.setattr(export, "_traced", other_weights)
    with pytest.raises(NumericError, match=r"logits by .* Nothing was written"):
        export_onnx(Tiny(), (32, 32), dynamic_batch=False)


class Pyramid(nn.Module):
    """Three small maps for an SSD."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, 8)
        self.levels = nn.ModuleList([nn.Conv2d(8, 8, 3, 2, 1) for _ in range(3)])

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.stem(images)]
        for level in self.levels:
            maps.append(level(maps[-1]).relu())
        return maps[1:]


def test_ssd_gives_the_boxes_and_scores_that_its_own_detection_uses() -> None:
    torch.manual_seed(0)
    model = SSD(classes=["a", "b"], backbone=Pyramid(), image_size=128).eval()
    with torch.no_grad():
        model.backbone.stem.weight.mul_(0.01)  # type: ignore[union-attr, operator]  # random weights on 0..255 saturate, and ties have no best box
    result = export_onnx(model, (128, 128), dynamic_batch=False)
    assert result.outputs == ("class_logits", "box_offsets", "boxes", "scores")
    session = onnxruntime.InferenceSession(result.content, providers=["CPUExecutionProvider"])
    images = torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8)
    boxes, scores = session.run(["boxes", "scores"], {"images": images.numpy()})
    with torch.no_grad():
        outputs = model(Batch(images, [], []))
    ((found, confidence, labels),) = model.detect(outputs["class_logits"], outputs["box_offsets"])
    best = int(scores[0, :, int(labels[0])].argmax())
    np.testing.assert_allclose(boxes[0, best], found[0].numpy(), atol=1e-3)
    np.testing.assert_allclose(scores[0, best, int(labels[0])], float(confidence[0]), atol=1e-5)


def test_nested_outputs_get_flat_names() -> None:
    one = torch.ones(1)
    named = flat_tensors({"a": one, "b": [one, one], "c": {"d": one, "e": [one]}, "f": "text", "g": 3})
    assert list(named) == ["a", "b_0", "b_1", "c_d", "c_e_0"]
