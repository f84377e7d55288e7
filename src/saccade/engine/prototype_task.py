"""The task that computes prototypes: the mean features of each class over the target, by the network's own labels (ProDA, `calc_prototype.py`)."""
from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from saccade.adaptation.prototypes import FILE, LEAST_PIXELS, ClassMeans, PrototypeBank, class_means
from saccade.adaptation.warping import maps_of
from saccade.data.loading import Loader
from saccade.engine.files import atomic_write, storage_errors
from saccade.errors import InputError
from saccade.models.contract import Model
from saccade.structures import Batch
from saccade.structures.ranges import PositiveInt

_VECTORS = "vectors"  # the folder with the class means of single images; it goes once the prototypes are there


class ComputePrototypes:
    """Writes `prototypes.safetensors`, for the term `Prototypes`, from the `embeddings` and `logits` of a network on every image of `data.train`.

    An image with at least `least_pixels` of a class, at the network's resolution, adds the mean features of these pixels; a prototype is the mean of
    these vectors, from the 3000th on a moving average. `passes`: how often they are gone through (4 in the published code; the network looks at each
    image once, for it says the same every time).
    """

    def __init__(self, *, least_pixels: PositiveInt = LEAST_PIXELS, passes: PositiveInt = 1) -> None:
        self.least_pixels, self.passes = least_pixels, passes

    def run(self, model: Model, batches: Loader, folder: Path, progress: Callable[[int], object]) -> None:
        """Write the file into `folder`. Raises InputError for a model without the outputs, and where no class was found in any image."""
        if not (folder / FILE).is_file():
            files = self._vectors(model, batches, folder / _VECTORS, progress)
            atomic_write(folder / FILE, self._prototypes(files, batches.dataset.name).as_bytes(model.classes))
        shutil.rmtree(folder / _VECTORS, ignore_errors=True)

    def _vectors(self, model: Model, batches: Loader, folder: Path, progress: Callable[[int], object]) -> list[Path]:
        """A file with the class means of every image, in order."""
        with storage_errors(folder):
            folder.mkdir(exist_ok=True)
        files: list[Path] = []
        for batch in batches.batches():
            own = [folder / f"{len(files) + number:08d}.safetensors" for number in range(len(batch))]
            if not all(file.is_file() for file in own):
                self._write(model, batch.to(next(model.parameters()).device), own)
            files += own
            progress(len(files))
        return files

    def _prototypes(self, files: list[Path], data: str) -> PrototypeBank:
        bank: PrototypeBank | None = None
        for _ in range(self.passes):
            for file in files:
                means = load_file(file)
                bank = bank or PrototypeBank.empty(*means["vectors"].shape)
                bank = bank.averaged(ClassMeans(means["vectors"][None], means["found"][None]))
        if bank is None or not bool(bank.known.any()):
            raise InputError(
                f"no class has {self.least_pixels} pixels in any of the {len(files)} images of {data}, so there are no prototypes; look at what the "
                "network predicts, or lower task.least_pixels"
            )
        return bank

    def _write(self, model: Model, batch: Batch, files: list[Path]) -> None:
        outputs = model(batch)
        missing = [name for name in ("embeddings", "logits") if name not in outputs]
        if missing:
            raise InputError(f"ComputePrototypes reads {', '.join(missing)}; {type(model).__name__} gives {', '.join(outputs)}")
        pairs = zip(maps_of(outputs, "embeddings", batch)[0], maps_of(outputs, "logits", batch)[0], strict=True)
        for (features, logits), file in zip(pairs, files, strict=True):
            means = class_means(features[None], logits[None].argmax(1), logits.shape[0], least_pixels=self.least_pixels)
            content: dict[str, Tensor] = {"vectors": means.vectors[0].cpu(), "found": means.found[0].cpu()}
            atomic_write(file, save(content))
