"""Two recipes side by side, by value and with origins."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from saccade.recipes.recipe import Recipe
from saccade.recipes.tree import Node, show_path


@dataclass(frozen=True)
class Difference:
    """One key whose values differ; a side that has no such key says so with `missing`."""

    path: str
    left: Any
    right: Any
    left_origin: str
    right_origin: str


MISSING = "(absent)"


def compare(left: Recipe, right: Recipe) -> list[Difference]:
    """The leaves in which the recipes differ, in the order of the left one and then of the right one; lists are compared item by item."""
    ours, theirs = _leaves(left), _leaves(right)
    paths = [*ours, *(p for p in theirs if p not in ours)]
    differences = []
    for path in paths:
        a, b = ours.get(path), theirs.get(path)
        if a is not None and b is not None and a.plain() == b.plain() and type(a.value) is type(b.value):
            continue
        differences.append(
            Difference(
                path, MISSING if a is None else a.plain(), MISSING if b is None else b.plain(),
                "" if a is None else a.described_origin(), "" if b is None else b.described_origin(),
            )
        )
    return differences


def _leaves(recipe: Recipe) -> dict[str, Node]:
    return {show_path(path): node for path, node in recipe.tree.walk() if path and not (isinstance(node.value, dict | list) and node.value)}
