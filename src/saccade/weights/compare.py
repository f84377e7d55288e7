"""How two sets of weights differ, tensor by tensor."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["equal", "values", "type", "shape", "only left", "only right"]


@dataclass(frozen=True)
class Difference:
    """One name: how its tensors differ. `largest` is the largest absolute difference of the values and `relative` that over the left side's largest
    value; both None where the values were not or could not be compared."""

    name: str
    kind: Kind
    left: tuple[int, ...] | None
    right: tuple[int, ...] | None
    largest: float | None = None
    relative: float | None = None


def compare(left: Mapping[str, Tensor], right: Mapping[str, Tensor], values: bool = True) -> list[Difference]:
    """One row for each name of either side, the left's order first. Without `values` only names and shapes are compared."""
    names = [*left, *(name for name in right if name not in left)]
    return [_difference(name, left.get(name), right.get(name), values) for name in names]


def counts(differences: Sequence[Difference]) -> dict[Kind, int]:
    """How many names differ in which way."""
    result: dict[Kind, int] = {}
    for row in differences:
        result[row.kind] = result.get(row.kind, 0) + 1
    return result


def _difference(name: str, left: Tensor | None, right: Tensor | None, values: bool) -> Difference:
    shapes = (None if left is None else tuple(left.shape), None if right is None else tuple(right.shape))
    if left is None or right is None:
        return Difference(name, "only left" if right is None else "only right", *shapes)
    if shapes[0] != shapes[1]:
        return Difference(name, "shape", *shapes)
    if not values or left.numel() == 0:
        return Difference(name, "equal", *shapes)
    a, b = left.detach().double(), right.detach().double()
    same = (a == b) | (a.isnan() & b.isnan())
    largest = float(torch.where(same, 0.0, (a - b).abs()).max())
    if same.all():
        return Difference(name, "equal" if left.dtype == right.dtype else "type", *shapes, 0.0, 0.0)
    return Difference(name, "values", *shapes, largest, largest / max(float(a.abs().max()), 1e-300))
