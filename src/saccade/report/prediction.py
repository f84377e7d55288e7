"""A model on pictures that belong to no data set: any number of images, in batches, with the transforms that the model was evaluated with."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from saccade.data.decoding import read_image
from saccade.engine.streaming import Follower
from saccade.models.contract import Model, VideoModel
from saccade.recipes import build
from saccade.structures import Prediction, Sample, collate, make_sample

Key = TypeVar("Key")


def predict_images(model: Model, images: Iterable[Tensor | str | Path], *, batch_size: int = 8) -> Iterator[Prediction]:
    """One prediction for each image, in order: (3, H, W) uint8 RGB tensors or image files, of any sizes.

    The model is used as it is: on its device, in its mode (`saccade.load` gives evaluation mode). Raises DataError for a file that can't be read.
    """
    pairs = ((i, image if isinstance(image, Tensor) else read_image(image)) for i, image in enumerate(images))
    for _, _, prediction in predict_stream(model, pairs, batch_size=batch_size):
        yield prediction


def predict_stream(
    model: Model, images: Iterable[tuple[Key, Tensor]], *, batch_size: int = 8, video: str | None = None
) -> Iterator[tuple[Key, Tensor, Prediction]]:
    """(key, image, prediction) for each (key, image), in order, holding no more than one batch of images at a time.

    `video`: the images are the frames of the video of this name, which a `VideoModel` follows one by one.
    """
    if video is not None and isinstance(model, VideoModel):
        yield from _follow(model, images, video)
        return
    transform = evaluation_transform(model)
    waiting: list[tuple[Key, Tensor]] = []
    for pair in images:
        waiting.append(pair)
        if len(waiting) >= batch_size:
            yield from _predict(model, transform, waiting)
            waiting = []
    if waiting:
        yield from _predict(model, transform, waiting)


def _follow(model: VideoModel, images: Iterable[tuple[Key, Tensor]], video: str) -> Iterator[tuple[Key, Tensor, Prediction]]:
    transform, following = evaluation_transform(model), Follower(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for number, (key, image) in enumerate(images):
        with torch.inference_mode():
            batch = collate([transform(make_sample(image, id=number, video=video, frame=number))]).to(device)
            prediction, = following(batch)
        yield key, image, prediction


def _predict(model: Model, transform: Callable[[Sample], Sample], pairs: list[tuple[Key, Tensor]]) -> Iterator[tuple[Key, Tensor, Prediction]]:
    batch = collate([transform(make_sample(image, id=i)) for i, (_, image) in enumerate(pairs)])
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        batch = batch.to(device)
        predictions = model.predictions(model(batch), batch)
    for (key, image), prediction in zip(pairs, predictions, strict=True):
        yield key, image, prediction


def evaluation_transform(model: Model) -> Callable[[Sample], Sample]:
    """The transforms that `model.evaluation_transforms` (a list of specs, which checkpoints carry) describes, one after the other."""
    specs: list[dict[str, Any]] = list(getattr(model, "evaluation_transforms", None) or [])
    steps = [build(spec, where=f"evaluation_transforms.{i}") for i, spec in enumerate(specs)]

    def transform(sample: Sample) -> Sample:
        for step in steps:
            sample = step(sample)
        return sample

    return transform
