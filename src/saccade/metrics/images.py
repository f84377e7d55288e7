"""Which image a prediction belongs to: what lets merged metrics count every image once, in one order."""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from saccade.errors import DataError
from saccade.structures import Annotations, Meta

ImageKey = tuple[str, str | int]  # data set, id


def key_of(meta: Meta) -> ImageKey:
    """The image's identity across processes."""
    return meta.dataset, meta.id


def in_order(keys: Iterable[ImageKey]) -> list[ImageKey]:
    """Keys sorted by data set, then numbers by value before names by spelling.

    Figures must not depend on the order in which processes are merged, and ties between scores fall as in pycocotools, which sorts by image id.
    """
    return sorted(keys, key=lambda key: (key[0], isinstance(key[1], str), key[1]))


def named(meta: Meta) -> str:
    """`meta` for a message."""
    place = f"sample {meta.id!r} of data set {meta.dataset!r}"
    return f"{place} ({meta.path})" if meta.path else place


def check_lengths(predictions: int, targets: int, metas: int) -> None:
    """Raises ValueError unless a metric got as many predictions as annotations and metas."""
    if not predictions == targets == metas:
        raise ValueError(f"a metric needs one annotation and one meta for each prediction; got {predictions}, {targets}, {metas}")


def check_objects(target: Annotations, meta: Meta) -> None:
    """Raises DataError where the truth of an image has no boxes and no masks, or no labels; an image without objects has empty ones."""
    if target.boxes is None and target.masks is None:
        raise DataError(f"The truth of {named(meta)} has neither boxes nor masks, so detections cannot be judged on it; use a data set with objects.")
    if target.labels is None:
        raise DataError(f"The objects of {named(meta)} have no labels, so detections cannot be judged on them.")


def check_labels(labels: np.ndarray, num_classes: int, meta: Meta, whose: str) -> None:
    """Raises DataError where one of `labels` (n,) lies outside 0..K-1."""
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise DataError(
            f"The {whose} of {named(meta)} has labels {labels.min()} to {labels.max()}, but the metric was made for {num_classes} classes "
            f"(0..{num_classes - 1}). Evaluate on data with the classes that the model was made for."
        )
