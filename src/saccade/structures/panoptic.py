"""Panoptic maps: every pixel belongs to one segment, every segment has one class."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node
from torchvision import tv_tensors

VOID, UNLISTED = -1, -2  # what `Panoptic.rows` has for pixels without a segment, and for ids that no segment has


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

    def rows(self) -> Tensor:
        """(H, W) int64: where in `segments` each pixel's segment stands; `VOID` for pixels without one, `UNLISTED` for ids that `segments` lacks."""
        return segment_rows(self.segment_map.as_subclass(Tensor), [segment.id for segment in self.segments])

    def areas(self) -> Tensor:
        """(n,) int64: the pixels of each segment, in the order of `segments`."""
        rows = self.rows()
        return torch.bincount(rows[rows >= 0], minlength=len(self.segments))


def segment_rows(segment_map: Tensor, ids: Sequence[int] | Tensor) -> Tensor:
    """(H, W) int64: where in `ids` (n different ones above 0) the value of each pixel of `segment_map` stands; 0 is `VOID`, others `UNLISTED`."""
    wanted = torch.as_tensor(ids, dtype=torch.int64, device=segment_map.device)
    ordered, order = wanted.sort()
    # One entry more, so that no id lies beyond the end; no id is the largest int64.
    ordered = torch.cat([ordered, ordered.new_tensor([torch.iinfo(torch.int64).max])])
    order = torch.cat([order, order.new_tensor([UNLISTED])])
    values = segment_map.to(torch.int64)
    place = torch.searchsorted(ordered, values)
    rows = torch.where(ordered[place] == values, order[place], UNLISTED)
    return torch.where(values == 0, VOID, rows)


def _flatten(panoptic: Panoptic) -> tuple[list[Tensor], tuple[Segment, ...]]:
    return [panoptic.segment_map], panoptic.segments


def _unflatten(children: Sequence[Tensor], segments: tuple[Segment, ...]) -> Panoptic:
    return Panoptic(children[0], segments)


register_pytree_node(Panoptic, _flatten, _unflatten)  # type: ignore[arg-type]
