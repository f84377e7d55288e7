"""What every model of the house is, and what one is that goes through a video frame by frame."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from saccade.layers.pixels import PixelNorm
from saccade.structures import Batch, Outputs, Prediction


class Model(nn.Module):
    """A network with its classes and pixel statistics: it takes raw uint8 RGB and gives predictions in original coordinates.

    Subclasses implement the three methods below; nothing else is called by training, evaluation, adaptation and explanation.
    `classes` are the names of labels 0..K-1 (background and no-object are private to a model).
    """

    def __init__(self, classes: Sequence[str], pixel_norm: PixelNorm) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.pixel_norm = pixel_norm

    def forward(self, batch: Batch) -> Outputs:
        """Raw tensors by name: what losses, predictions, adaptation methods and explanations look at."""
        raise TypeError(f"{type(self).__name__} must define forward(batch)")

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Weighted terms by the paper's names, each a scalar; the training loss is their sum."""
        raise TypeError(f"{type(self).__name__} must define losses(outputs, batch)")

    def figures(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """What is worth watching during training but not learned, each a scalar on the outputs' device; nothing by default."""
        return {}

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """One prediction per image or clip, in pixels of the original images."""
        raise TypeError(f"{type(self).__name__} must define predictions(outputs, batch)")

    def parameter_groups(self) -> dict[str, list[str]]:
        """Named groups of parameter names that recipes may give their own learning rate; "backbone" at least where there is one."""
        names = [n for n, _ in self.named_parameters()]
        backbone = [n for n in names if n.startswith("backbone.")]
        return {"backbone": backbone, "head": [n for n in names if not n.startswith("backbone.")]}

    def head_keys(self) -> tuple[str, ...]:
        """Prefixes of the state-dict keys whose shapes depend on the classes; only these may be re-initialised for other classes."""
        return ()

    def data_arguments(self) -> dict[str, Any]:
        """What the constructor was given by the data besides `classes`, as plain data: a checkpoint keeps it."""
        return {}

    def extra_repr(self) -> str:
        """The number of classes, for `print(model)`."""
        return f"classes={len(self.classes)}"

    def example_batch(self, size: tuple[int, int], batch_size: int = 1, **meta: Any) -> Batch:
        """A grey batch of `batch_size` images of `size` (height, width), for shape tables, FLOP counts and export."""
        import torch

        from saccade.structures import Geometry, Meta

        images = torch.full((batch_size, 3, *size), 127, dtype=torch.uint8)
        metas = [Meta(original_size=size, geometry=Geometry.identity(size), **meta) for _ in range(batch_size)]
        return Batch(images, [], metas)


class VideoModel(Model):
    """A model that also follows a video: it is given one frame after another, and a state of its own making that says what it saw before.

    The state is explicit: two videos can be followed at once by two states, and nothing of a video stays in the model.
    """

    def start(self) -> Any:
        """The state before the first frame."""
        raise TypeError(f"{type(self).__name__} must define start()")

    def step(self, batch: Batch, state: Any) -> tuple[Prediction, Any]:
        """(prediction of the frame, state after it) for a batch of one image, the next frame of the video; `state` may be changed in place."""
        raise TypeError(f"{type(self).__name__} must define step(batch, state)")

    def finish(self, state: Any) -> Prediction | None:
        """What is known only at the end of a video; nothing by default."""
        return None
