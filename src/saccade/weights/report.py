"""What is in a file of weights: name, shape, type and spread of every tensor, and the totals."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor


@dataclass(frozen=True)
class TensorRow:
    """One tensor: its name, shape, type, number of elements and bytes; mean, standard deviation, smallest and largest of its finite values (None
    where there are none); how many are not finite."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    elements: int
    bytes: int
    mean: float | None
    std: float | None
    minimum: float | None
    maximum: float | None
    not_finite: int


def tensor_rows(tensors: Mapping[str, Tensor], patterns: Sequence[str] = ()) -> list[TensorRow]:
    """A row for each tensor whose name holds one of `patterns` (a part of the name, or a shell pattern with * or ?); all without patterns."""
    return [_row(name, value) for name, value in tensors.items() if not patterns or any(_holds(name, p) for p in patterns)]


def totals(rows: Sequence[TensorRow]) -> str:
    """One line: tensors, elements, megabytes by type, and values that are not finite."""
    by_type: dict[str, int] = {}
    for row in rows:
        by_type[row.dtype] = by_type.get(row.dtype, 0) + row.bytes
    types = ", ".join(f"{size / 1e6:.2f} MB {name}" for name, size in sorted(by_type.items(), key=lambda item: -item[1]))
    broken = sum(row.not_finite for row in rows)
    remark = f"; {broken:,} not finite" if broken else ""
    return f"{len(rows)} tensors, {sum(row.elements for row in rows):,} elements; {types or 'nothing'}{remark}"


def _holds(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) if any(c in pattern for c in "*?[") else pattern in name


def _row(name: str, value: Tensor) -> TensorRow:
    size = value.numel()
    numbers = value.detach().double().flatten()
    finite = numbers[torch.isfinite(numbers)]
    known = len(finite) > 0
    return TensorRow(
        name=name,
        shape=tuple(value.shape),
        dtype=str(value.dtype).removeprefix("torch."),
        elements=size,
        bytes=size * value.element_size(),
        mean=float(finite.mean()) if known else None,
        std=float(finite.std(correction=0)) if known else None,
        minimum=float(finite.min()) if known else None,
        maximum=float(finite.max()) if known else None,
        not_finite=size - len(finite),
    )
