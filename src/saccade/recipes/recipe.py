"""Loading recipes: a tree of values with their origins."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from saccade.recipes.composition import compose
from saccade.recipes.inheritance import find_recipe, layers_of
from saccade.recipes.overrides import parse_override
from saccade.recipes.tree import Node, show_path


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: what is to be built and run, with the origin of every value.

    `tree` is free of bases, references and deletions. `source` is the file or zoo name that it was loaded from, `header` the file's leading comment.
    A staged recipe has the one section `stages`, see `saccade.recipes.stages`.
    """

    name: str
    source: str
    tree: Node
    header: str = ""

    @property
    def values(self) -> dict[str, Any]:
        """Everything as plain dicts, lists and scalars."""
        return self.tree.plain()

    @property
    def origins(self) -> dict[str, str]:
        """Where each value was written: dotted path -> "file:line" or "command line"."""
        return {show_path(path): node.described_origin() for path, node in self.tree.walk() if path}

    def section(self, name: str) -> Any:
        """The plain values of one section, or None where the recipe has none."""
        node = self.tree.find((name,))
        return None if node is None else node.plain()

    def dump(self) -> str:
        """The resolved recipe as YAML text that loads to the same values."""
        return yaml.safe_dump(self.values, sort_keys=False, width=120, allow_unicode=True)


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name (shipped) or path, with `key.path=value` overrides on top.

    Raises InputError naming file and line where something can't be read; it does not check classes and arguments (see `checking.check`).
    """
    found = find_recipe(str(name_or_path))
    tree = compose(layers_of(found), [parse_override(text) for text in overrides], found.label)
    header = "\n".join(line.lstrip("# ").rstrip() for line in _leading_comment(found.text))
    return Recipe(name=Path(found.label).stem, source=str(name_or_path), tree=tree, header=header)


def recipe_from_values(values: dict[str, Any], name: str, origin: str) -> Recipe:
    """A recipe from plain values (a resolved one read back from a run folder, or one made in Python)."""
    return Recipe(name=name, source=origin, tree=_as_tree(values, origin))


def _as_tree(value: Any, origin: str) -> Node:
    if isinstance(value, dict):
        return Node({str(k): _as_tree(v, origin) for k, v in value.items()}, origin)
    if isinstance(value, list | tuple):
        return Node([_as_tree(v, origin) for v in value], origin)
    return Node(value, origin)


def _leading_comment(text: str) -> list[str]:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line)
    return lines
