"""`key.path=value` on the command line: the last word on a recipe."""
from __future__ import annotations

from dataclasses import dataclass

from saccade.errors import InputError
from saccade.recipes.references import dereferenced, parse_path
from saccade.recipes.text import parse_yaml
from saccade.recipes.tree import DELETE, Node, Path, merge, show_path

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Override:
    """Where, and the value to merge there (`!delete` removes)."""

    path: Path
    value: Node


def parse_override(text: str) -> Override:
    """What `text` asks for. Raises InputError for what is no override."""
    key, sign, value_text = text.partition("=")
    if not sign or not key.strip():
        raise InputError(f"the argument {text!r} is neither an option nor an override; an override reads key.path=value, e.g. run.steps=1000")
    value = parse_yaml(value_text, f"{COMMAND_LINE} ({key.strip()})", line_origins=False) if value_text.strip() else Node(None, COMMAND_LINE)
    for _, node in value.walk():
        node.origin = COMMAND_LINE
    return Override(parse_path(key), value)


def apply_override(tree: Node, override: Override) -> Node:
    """`tree` with the value set; it is not changed itself. Where the path leads into what a reference stands for, a copy of that is changed.

    Raises InputError where the path leads nowhere.
    """
    return _set(tree, override.path, override.value, (), tree)


def _set(tree: Node, path: Path, value: Node, done: Path, root: Node) -> Node:
    if not path:
        return merge(tree, value)
    tree = dereferenced(tree, root)
    key = path[0]
    if isinstance(tree.value, list):
        if not isinstance(key, int) or not -len(tree.value) <= key < len(tree.value):
            count = f"a list of {len(tree.value)} items (from {tree.origin})"
            raise InputError(f"{COMMAND_LINE}: {show_path(done)} is {count}; {key!r} is not one of 0..{len(tree.value) - 1}")
        items = list(tree.value)
        if len(path) == 1 and value.value is DELETE:
            del items[key]
        else:
            items[key] = _set(items[key], path[1:], value, (*done, key), root)
        return Node(items, tree.origin, tree.via)
    children = dict(tree.value) if isinstance(tree.value, dict) else {}
    key = str(key)
    if len(path) == 1 and value.value is DELETE:
        if key not in children:
            raise InputError(f"{COMMAND_LINE}: there is no {show_path((*done, key))} to delete")
        del children[key]
    else:
        child = children.get(key, Node({} if len(path) > 1 else None, COMMAND_LINE))
        children[key] = _set(child, path[1:], value, (*done, key), root)
    return Node(children, tree.origin, tree.via)
