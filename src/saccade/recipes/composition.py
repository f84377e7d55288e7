"""Layers and overrides to one resolved tree: of a plain recipe its sections, of a staged one `stages` with the sections of each, complete.

A stage is the shared sections with what it says itself merged over, so nothing is shared any more in the result. An override that begins with
`stages.NAME` is for that stage; any other is for all of them and, being later, goes before what a stage says.
"""
from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence

from saccade.errors import InputError
from saccade.recipes.inheritance import STAGES, Layer
from saccade.recipes.overrides import COMMAND_LINE, Override, apply_override
from saccade.recipes.references import resolve_references
from saccade.recipes.tree import Node, merge, without_deleted

TASK, LEARNER = "task", "learner"
_NOT_FOR_TASKS = (LEARNER, "metrics", "online")  # shared sections that a stage with a task has no use for
_UNREAD = "which has no use for the section {!r}; leave it out, or make two stages of it"


def compose(layers: Sequence[Layer], overrides: Sequence[Override], label: str) -> Node:
    """The tree, free of references and deletions. Raises InputError with origins."""
    shared = functools.reduce(merge, (layer.sections for layer in layers), Node({}, label))
    stages = _stages(layers)
    if stages is None:
        for override in overrides:
            if override.path[0] == STAGES:
                raise InputError(f"{COMMAND_LINE}: the recipe {label} has no stages that {'.'.join(map(str, override.path))} could change")
            shared = apply_override(shared, override)
        return _resolved(shared)
    if not stages:
        raise InputError(f"{label}: no stage is left; a recipe without stages has `stages: !delete`, or does not name them")
    if TASK in shared.value:
        raise InputError(f"{shared.value[TASK].origin}: a task belongs to one stage; write it under stages.NAME.{TASK}")
    trees = {name: _of_stage(name, shared, nodes) for name, nodes in stages.items()}
    for override in overrides:
        trees = _overridden(trees, override)
    return Node({STAGES: Node({name: _resolved(_fitting(tree)) for name, tree in trees.items()}, label)}, label)


def _resolved(tree: Node) -> Node:
    return resolve_references(Node(without_deleted(tree.value), tree.origin))


def _stages(layers: Sequence[Layer]) -> dict[str, list[Node]] | None:
    """The nodes of each stage over all layers, in the order in which the stages are first named; None where no layer names any."""
    found: dict[str, list[Node]] | None = None
    for layer in layers:
        if layer.stages is None:
            found = None
            continue
        for name, nodes in layer.stages.items():
            found = {} if found is None else found
            if nodes is None:
                found.pop(name, None)
            else:
                found.setdefault(name, []).extend(nodes)
    return found


def _of_stage(name: str, shared: Node, nodes: Sequence[Node]) -> Node:
    own = functools.reduce(merge, nodes, Node({}, nodes[-1].origin)).value
    unread = [key for key in _NOT_FOR_TASKS if TASK in own and key in own]
    if unread:
        raise InputError(f"{own[unread[0]].origin}: stages.{name} has a task ({own[TASK].origin}), {_UNREAD.format(unread[0])}")
    merged = functools.reduce(merge, nodes, shared)
    return Node(merged.value, nodes[-1].origin)


def _fitting(tree: Node) -> Node:
    """Without the shared sections that a stage with a task does not read."""
    if TASK not in tree.value:
        return tree
    return Node({key: child for key, child in tree.value.items() if key not in _NOT_FOR_TASKS}, tree.origin)


def _overridden(trees: dict[str, Node], override: Override) -> dict[str, Node]:
    if override.path[0] == STAGES:
        return _overridden_stage(trees, override)
    changed, refusals = dict(trees), []
    for name, tree in trees.items():
        try:
            changed[name] = apply_override(tree, override)
        except InputError as refusal:  # what one stage lacks another may have
            refusals.append(refusal)
    if len(refusals) == len(trees):
        raise refusals[0]
    return changed


def _overridden_stage(trees: dict[str, Node], override: Override) -> dict[str, Node]:
    name = str(override.path[1]) if len(override.path) > 1 else ""
    if name not in trees:
        near = difflib.get_close_matches(name, trees, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(trees)}"
        raise InputError(f"{COMMAND_LINE}: there is no stage {name!r} to change; {hint}")
    if TASK in trees[name].value and len(override.path) > 2 and override.path[2] in _NOT_FOR_TASKS:
        raise InputError(f"{COMMAND_LINE}: stages.{name} has a task, {_UNREAD.format(override.path[2])}")
    return dict(apply_override(Node(trees), Override(override.path[1:], override.value)).value)
