"""A data set whose classes are brought to those of a model, by name: what a model was trained on and what it meets rarely have the same list."""
from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from saccade.data.contract import Dataset, Problem
from saccade.errors import InputError
from saccade.structures import IGNORE, Annotations, Sample

_log = logging.getLogger(__name__)


class MatchClasses:
    """`dataset` with `classes` for its labels. Objects of other classes leave it, pixels of other classes become "ignore" (255), and a warning tells
    the names without a partner.

    Names match when they are equal but for case; `names` says where they differ ({"person": "pedestrian"}: the data's, the model's). Several classes
    of the data may become one. Raises InputError where nothing matches.
    """

    def __init__(self, *, dataset: Dataset, classes: Sequence[str], names: dict[str, str] | None = None) -> None:
        self.dataset, self.classes = dataset, tuple(classes)
        self.name, self.videos = dataset.name, dataset.videos
        self.problems: list[Problem] = list(getattr(dataset, "problems", []))
        places = _places(dataset.classes, self.classes, names or {})
        self._places = torch.tensor(places, dtype=torch.int64)  # (classes of the data,), -1 for those without a partner
        self.colours, self.subsets = _colours(dataset, places, len(self.classes)), _subsets(dataset, self.classes)
        if dataset.classes and max(places) < 0:
            raise InputError(
                f"{dataset.name} has none of the model's classes: it has {_few(dataset.classes)}, the model {_few(self.classes)}; say with `names` "
                "which are the same"
            )
        self._warn(places)

    def _warn(self, places: Sequence[int]) -> None:
        left = [name for name, place in zip(self.dataset.classes, places, strict=True) if place < 0]
        unseen = [name for place, name in enumerate(self.classes) if place not in places]
        unseen = unseen if self.dataset.classes else []
        parts = [f"objects and pixels of {_few(left)} are left out" if left else "", f"it has no {_few(unseen)}" if unseen else ""]
        if any(parts):
            _log.warning("%s has other classes than the model, which are matched by name: %s", self.name, "; ".join(p for p in parts if p))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self._matched(self.dataset[index])

    def annotations(self, index: int) -> Annotations:
        """Those of the item, of the matched classes."""
        return self._matched(self.dataset.annotations(index))

    def item_id(self, index: int) -> str:
        """That of the item in `dataset`."""
        return self.dataset.item_id(index)

    def describe(self) -> dict[str, Any]:
        """The data set's description with the classes here."""
        return {**self.dataset.describe(), "classes": list(self.classes)}

    def _matched(self, known: Any) -> Any:
        if known.label is not None:
            known = replace(known, label=self._label(known.label))
        if known.labels is None:
            return known if known.segmentation is None else replace(known, segmentation=self._segmentation(known.segmentation))
        places = self._places[known.labels]
        kept = known if bool((places >= 0).all()) else known.select(places >= 0)
        return replace(kept, labels=places[places >= 0])

    def _segmentation(self, labels: Tensor) -> Tensor:
        table = np.full(IGNORE + 1, IGNORE, dtype=np.uint8)
        table[: len(self._places)] = torch.where(self._places >= 0, self._places, IGNORE).numpy()
        matched = torch.from_numpy(np.take(table, labels.as_subclass(Tensor).numpy()))
        return tv_tensors.wrap(matched, like=labels) if isinstance(labels, tv_tensors.TVTensor) else matched

    def _label(self, label: int | Tensor) -> int | Tensor | None:
        """The label of a whole image; None for a class without a partner."""
        if isinstance(label, Tensor) and label.ndim:
            matched = label.new_zeros(len(self.classes))
            known = self._places >= 0
            return matched.index_add_(0, self._places[known], label[known])
        place = int(self._places[int(label)])
        return place if place >= 0 else None


def _places(of_data: Sequence[str], of_model: Sequence[str], names: Mapping[str, str]) -> list[int]:
    unknown = [f"{left} -> {right}" for left, right in names.items() if left not in of_data or right not in of_model]
    if unknown:
        raise InputError(
            f"`names` of MatchClasses: {', '.join(unknown)}: the left ones must be classes of the data ({_few(of_data)}), the right of the model "
            f"({_few(of_model)})"
        )
    known = {name.casefold(): place for place, name in enumerate(of_model)}
    return [known.get(names.get(name, name).casefold(), -1) for name in of_data]


def _colours(dataset: Dataset, places: Sequence[int], count: int) -> tuple[Any, ...] | None:
    """The data's colours for the model's classes, None where one of them has none."""
    known = dict(zip(places, getattr(dataset, "colours", None) or (), strict=False))
    return tuple(known[place] for place in range(count)) if all(place in known for place in range(count)) else None


def _subsets(dataset: Dataset, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The data's subsets that are subsets of `classes`, too."""
    known: Mapping[str, tuple[str, ...]] = getattr(dataset, "subsets", None) or {}
    return {name: members for name, members in known.items() if set(members) < set(classes)}


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
