"""A recipe as a tree in which every value knows where it was written, and the one rule by which recipes are merged.

Later wins; mappings merge key by key, lists and scalars replace; a key whose later value is `!delete` disappears.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str | int, ...]


class Delete:
    """What `!delete` reads as; it removes the key that it stands for."""

    def __repr__(self) -> str:
        return "!delete"


DELETE = Delete()


@dataclass
class Node:
    """One value with its origin ("file:line" or "command line"). `value` is a dict of nodes, a list of nodes, or a scalar."""

    value: Any
    origin: str = ""
    via: tuple[str, ...] = field(default=())  # origins of the `${...}` references that led here

    def plain(self) -> Any:
        """The values alone, as nested dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """Every node with its path, parents before children."""
        yield path, self
        children = self.value.items() if isinstance(self.value, dict) else enumerate(self.value) if isinstance(self.value, list) else ()
        for key, child in children:
            yield from child.walk((*path, key))

    def find(self, path: Path) -> Node | None:
        """The node at `path`, or None."""
        node: Node | None = self
        for key in path:
            value: Any = node.value if node is not None else None
            in_list = isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value)
            if in_list or (isinstance(value, dict) and key in value):
                node = value[key]
            else:
                return None
        return node

    def described_origin(self) -> str:
        """The origin, with the references through which the value came."""
        return " via ".join([self.origin, *self.via]) if self.via else self.origin


def show_path(path: Path) -> str:
    """`data.train_transforms.0.size` for ("data", "train_transforms", 0, "size")."""
    return ".".join(str(key) for key in path)


def merge(earlier: Node, later: Node) -> Node:
    """`later` over `earlier`; neither is changed."""
    if not isinstance(later.value, dict):
        return later
    if not isinstance(earlier.value, dict) or _names_another_type(earlier, later):
        return Node(without_deleted(later.value), later.origin, later.via)
    merged = dict(earlier.value)
    for key, child in later.value.items():
        if child.value is DELETE:
            merged.pop(key, None)
        elif key in merged:
            merged[key] = merge(merged[key], child)
        else:
            merged[key] = Node(without_deleted(child.value), child.origin, child.via) if isinstance(child.value, dict) else child
    return Node(merged, earlier.origin, earlier.via)


def _names_another_type(earlier: Node, later: Node) -> bool:
    # Another class takes other arguments: the inherited ones would only be errors, so a changed `type` starts afresh.
    old, new = earlier.value.get("type"), later.value.get("type")
    return old is not None and new is not None and old.value != new.value


def without_deleted(children: dict[str, Node]) -> dict[str, Node]:
    """The children of a mapping that nothing is merged into, less those that say `!delete`."""
    kept = {}
    for key, child in children.items():
        if child.value is DELETE:
            continue
        kept[key] = Node(without_deleted(child.value), child.origin, child.via) if isinstance(child.value, dict) else child
    return kept
