"""Panoptic maps: every pixel belongs to one segment, every segment has one class."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node
from torchvision import tv_tensors


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic map: its id in the map (> 0), class, whether it is a countable thing, crowd flag and score (1 for truth)."""

    id: int
    label: int
    is_thing: bool
    is_crowd: bool = False
    score: float = 1.0


@dataclass
class Panoptic:
    """`segment_map` (H, W) int64, 0 = void, with one `Segment` for each other value."""

    segment_map: Tensor
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.segment_map, tv_tensors.TVTensor) and isinstance(self.segment_map, Tensor):
            self.segment_map = tv_tensors.Mask(self.segment_map)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Panoptic:
        """The same on `device`."""
        return Panoptic(self.segment_map.to(device, non_blocking=non_blocking), self.segments)


def _flatten(panoptic: Panoptic) -> tuple[list[Tensor], tuple[Segment, ...]]:
    return [panoptic.segment_map], panoptic.segments


def _unflatten(children: Sequence[Tensor], segments: tuple[Segment, ...]) -> Panoptic:
    return Panoptic(children[0], segments)


register_pytree_node(Panoptic, _flatten, _unflatten)  # type: ignore[arg-type]
