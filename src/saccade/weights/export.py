"""Models to ONNX, checked against onnxruntime before the file is written.

The exported graph takes what the model takes, RGB pixels 0..255 (N, 3, H, W) as uint8 or float32, and gives the model's raw outputs by name; pixel
statistics and channel order are inside. SSD also gives its decoded boxes and its scores. Left out: feature maps, suppression of overlapping boxes and
the way back to the original picture, which differ between runtimes.
"""
from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from saccade.errors import InputError, NumericError
from saccade.layers.box_coder import decode_boxes
from saccade.models.contract import Model
from saccade.models.ssd import SSD
from saccade.structures import Batch, Outputs

PixelType = Literal["uint8", "float32"]


class ExportedModel(nn.Module):
    """`model` with pixels in and a tuple of tensors out, in the order of `names`."""

    def __init__(self, model: Model, size: tuple[int, int], pixels: PixelType) -> None:
        super().__init__()
        self.model = model
        self.size = size
        example = torch.zeros(1, 3, *size, dtype=getattr(torch, pixels))
        with torch.no_grad():
            self.names = tuple(self._named(example))

    def _named(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self.model(Batch(images, [], []))  # a list of metas would fix the number of pictures in the graph
        named = flat_tensors({name: value for name, value in outputs.items() if name != "features"})
        return named | _decoded(self.model, outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """`images` (N, 3, H, W) in 0..255; the outputs named in `names`."""
        return tuple(self._named(images).values())


def _decoded(model: Model, outputs: Outputs) -> dict[str, Tensor]:
    """What every user of a detector computes next: `boxes` (N, P, 4) as x1, y1, x2, y2 in pixels of the input; `scores` (N, P, K), no background."""
    if not isinstance(model, SSD):
        return {}
    centers = decode_boxes(outputs["box_offsets"], model.priors, model.center_variance, model.size_variance)
    boxes = torch.cat([centers[..., :2] - centers[..., 2:] / 2, centers[..., :2] + centers[..., 2:] / 2], -1) * model.image_size
    return {"boxes": boxes, "scores": outputs["class_logits"].softmax(-1)[..., 1:]}


@dataclass(frozen=True)
class Export:
    """A checked ONNX model: its bytes, the names of its outputs and how far each deviates from the model, relative to its largest value (1 at
    least)."""

    content: bytes
    outputs: tuple[str, ...]
    deviations: Mapping[str, float]


def flat_tensors(outputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a model's outputs by name; those of a list as `name_0`, `name_1` …, of a mapping as `name_key`."""
    result: dict[str, Tensor] = {}
    for name, value in outputs.items():
        if isinstance(value, Tensor):
            result[name] = value
        elif isinstance(value, Mapping):
            result |= {f"{name}_{key}": tensor for key, tensor in flat_tensors(value).items()}
        elif isinstance(value, Sequence) and not isinstance(value, str):
            result |= {f"{name}_{i}": tensor for i, tensor in enumerate(value) if isinstance(tensor, Tensor)}
    return result


def export_onnx(
    model: Model,
    size: tuple[int, int],
    *,
    opset: int = 18,
    pixels: PixelType = "uint8",
    dynamic_batch: bool = True,
    tolerance: float = 1e-4,
) -> Export:
    """`model` as ONNX for pictures of `size` (height, width), compared with onnxruntime on random pixels.

    With `dynamic_batch` any number of pictures may come at once, and two are checked, too. Raises NumericError, and gives nothing, when an output
    deviates by more than `tolerance` of its largest value; InputError when the packages for export are not installed or the model can't be traced.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(f"Export needs the package {error.name}: pip install 'saccade[onnx]'") from None
    was_training = model.training
    wrapped = ExportedModel(model.eval(), size, pixels).eval()
    try:
        content = _traced(wrapped, opset, pixels, dynamic_batch)
        deviations = _checked(wrapped, content, pixels, (1, 2) if dynamic_batch else (1,))
    finally:
        model.train(was_training)
    worst = max(deviations, key=lambda name: deviations[name])
    if not deviations[worst] <= tolerance:
        raise NumericError(
            f"The exported model deviates from the original: {worst} by {deviations[worst]:.2e} of its largest value, {tolerance:g} is allowed. "
            "Nothing was written."
        )
    return Export(content, wrapped.names, deviations)


def _traced(wrapped: ExportedModel, opset: int, pixels: PixelType, dynamic_batch: bool) -> bytes:
    example = _pixels(2 if dynamic_batch else 1, wrapped.size, pixels)
    shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
    with TemporaryDirectory() as folder, warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's remarks on its own dependencies
        path = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(
                wrapped,
                (example,),
                path,
                dynamo=True,
                opset_version=opset,
                input_names=["images"],
                output_names=list(wrapped.names),
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise InputError(f"{type(wrapped.model).__name__} can't be traced for ONNX: {reason}. A fixed batch (--fixed-batch) may help.") from error
        return path.read_bytes()


def _checked(wrapped: ExportedModel, content: bytes, pixels: PixelType, batches: Sequence[int]) -> dict[str, float]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    if len(batches) > 1 and isinstance(session.get_inputs()[0].shape[0], int):  # the exporter falls back to fixed shapes without a word
        raise InputError(f"{type(wrapped.model).__name__} can't be traced for any number of pictures at once; export it with --fixed-batch.")
    deviations = dict.fromkeys(wrapped.names, 0.0)
    for count in batches:
        images = _pixels(count, wrapped.size, pixels)
        with torch.no_grad():
            expected = wrapped(images)
        found = session.run(None, {"images": images.numpy()})
        for name, mine, theirs in zip(wrapped.names, expected, found, strict=True):
            deviations[name] = max(deviations[name], _deviation(mine, torch.from_numpy(theirs)))
    return deviations


def _deviation(mine: Tensor, theirs: Tensor) -> float:
    if mine.shape != theirs.shape:
        return float("inf")
    return float((theirs.double() - mine.double()).abs().max()) / max(1.0, float(mine.abs().max())) if mine.numel() else 0.0


def _pixels(count: int, size: tuple[int, int], pixels: PixelType) -> Tensor:
    images = torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(count), dtype=torch.uint8)
    return images.to(getattr(torch, pixels))
