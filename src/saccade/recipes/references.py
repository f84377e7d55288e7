"""`${path.to.key}`: one value written once. A reference that is a whole value copies what it points to; within text it is filled in as text."""
from __future__ import annotations

import difflib
import re

from saccade.errors import InputError
from saccade.recipes.tree import Node, Path, show_path

_REFERENCE = re.compile(r"\$\{([^${}]*)\}")


def resolve_references(root: Node) -> Node:
    """The tree with every reference replaced; an unknown or circular one is an error that names its line."""
    return _resolve(root, root, ())


def parse_path(text: str) -> Path:
    """("data", "train_transforms", 0, "size") for `data.train_transforms.0.size`."""
    return tuple(int(part) if part.lstrip("-").isdigit() else part for part in text.strip().split("."))


def dereferenced(node: Node, root: Node) -> Node:
    """What `node` stands for where its whole value is a reference, with all references resolved; else `node` itself. Errors as above."""
    whole = _REFERENCE.fullmatch(node.value) if isinstance(node.value, str) else None
    return node if whole is None else _target(whole.group(1), node, root, ())


def _resolve(node: Node, root: Node, trail: tuple[str, ...]) -> Node:
    if isinstance(node.value, dict):
        return Node({k: _resolve(c, root, trail) for k, c in node.value.items()}, node.origin, node.via)
    if isinstance(node.value, list):
        return Node([_resolve(c, root, trail) for c in node.value], node.origin, node.via)
    if not isinstance(node.value, str) or "${" not in node.value:
        return node
    whole = _REFERENCE.fullmatch(node.value)
    if whole:
        target = _target(whole.group(1), node, root, trail)
        return Node(target.value, target.origin, (*target.via, node.origin))
    text = _REFERENCE.sub(lambda match: str(_target(match.group(1), node, root, trail).plain()), node.value)
    return Node(text, node.origin, node.via)


def _target(text: str, node: Node, root: Node, trail: tuple[str, ...]) -> Node:
    if text in trail:
        raise InputError(f"{node.origin}: ${{{text}}} refers to itself by way of {' -> '.join([*trail, text])}")
    target = root.find(parse_path(text))
    if target is None:
        known = [show_path(path) for path, _ in root.walk() if path]
        near = difflib.get_close_matches(text, known, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"{node.origin}: ${{{text}}} refers to a key that does not exist{hint}")
    return _resolve(target, root, (*trail, text))
