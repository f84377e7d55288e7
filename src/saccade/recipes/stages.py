"""Staged recipes: their stages as recipes of their own, what a stage reads of earlier ones, and what can be wrong with that.

`stage:NAME`, optionally `stage:NAME/rest`, at the beginning of a text value stands for the folder of that stage in the run folder.
"""
from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path as FilePath

from saccade.errors import InputError
from saccade.recipes.composition import LEARNER, TASK
from saccade.recipes.inheritance import STAGES
from saccade.recipes.recipe import Recipe
from saccade.recipes.tree import Node, Path, show_path

_FOLDER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
STAGE_REFERENCE = "stage:"  # what a text value that stands for a stage's folder begins with
_RESERVED = ("checkpoints", "evaluation")  # what a run folder has of its own


def is_staged(recipe: Recipe) -> bool:
    """Whether `recipe` has stages instead of sections."""
    return recipe.tree.find((STAGES,)) is not None


def stage_trees(recipe: Recipe) -> dict[str, Node]:
    """The sections of each stage in order, with `stage:NAME` as it is written. Raises InputError for a recipe whose `stages` are no mapping."""
    node = recipe.tree.find((STAGES,))
    if node is None or not isinstance(node.value, dict) or not all(isinstance(child.value, dict) for child in node.value.values()):
        raise InputError(f"the recipe {recipe.name} has no stages: a mapping of names to sections")
    return dict(node.value)


def stage_recipes(recipe: Recipe, folder: str | FilePath) -> list[tuple[str, Recipe]]:
    """The stages of `recipe` in order, each as a recipe for itself, with the paths that they have in the run folder `folder`.

    Raises InputError for names that are no folder names and for references to stages that are unknown or come later.
    """
    problems = list(stage_problems(recipe))
    if problems:
        raise InputError("\n".join(problems))
    run = FilePath(folder).expanduser().resolve()
    return [(name, Recipe(f"{recipe.name}/{name}", recipe.source, _with_paths(tree, run))) for name, tree in stage_trees(recipe).items()]


def outcome(recipe: Recipe) -> Recipe:
    """What describes the network that comes out: `recipe` itself, or of a staged one the last stage that trains (paths of stages as written)."""
    if not is_staged(recipe):
        return recipe
    training = [tree for tree in stage_trees(recipe).values() if LEARNER in tree.value]
    if not training:
        raise InputError(f"no stage of the recipe {recipe.name} trains a network; name another recipe")
    return replace(recipe, tree=training[-1])


def stage_named(recipe: Recipe, name: str) -> Recipe:
    """One stage of `recipe`, with the paths of others as they are written. Raises InputError with the names that there are."""
    trees = stage_trees(recipe)
    if name not in trees:
        raise InputError(f"the recipe {recipe.name} has no stage {name!r}; its stages are {', '.join(trees)}")
    return replace(recipe, name=f"{recipe.name}/{name}", tree=trees[name])


def read_stages(tree: Node) -> list[str]:
    """The names of the stages that a stage refers to."""
    return list(dict.fromkeys(_parts(node.value)[0] for _, node in tree.walk() if _is_reference(node)))


def stage_problems(recipe: Recipe) -> Iterable[str]:
    """What is wrong with the stages as such: names, references, and stages that do nothing; what is in their sections is checked elsewhere."""
    trees = stage_trees(recipe)
    if not trees:
        yield f"{recipe.tree.value[STAGES].origin}: stages is empty"
    for name, tree in trees.items():
        if not _FOLDER_NAME.fullmatch(name) or name in _RESERVED:
            yield (f"{tree.origin}: the stage {name!r} can't be a folder's name: a letter, then letters, digits, - and _, and not "
                   f"{' or '.join(_RESERVED)}")
        if TASK not in tree.value and LEARNER not in tree.value:
            yield f"{tree.origin}: stages.{name} has neither a `learner` nor a `task`, so there is nothing that it does"
        for path, node in tree.walk():
            if _is_reference(node):
                yield from _reference_problems(node, (STAGES, name, *path), name, list(trees))


def _reference_problems(node: Node, path: Path, stage: str, names: Sequence[str]) -> Iterable[str]:
    wanted, _ = _parts(node.value)
    where = f"{node.described_origin()}: {show_path(path)}: {node.value!r}"
    if wanted not in names:
        near = difflib.get_close_matches(wanted, names, n=2)
        yield f"{where}: there is no stage {wanted!r}; {f'did you mean {near[0]}?' if near else 'there are ' + ', '.join(names)}"
    elif names.index(wanted) >= names.index(stage):
        yield f"{where}: the stage {stage!r} reads {wanted!r}, which {'is itself' if wanted == stage else 'comes later'}; it can read earlier ones"


def dangling_references(tree: Node) -> Iterable[str]:
    """References to stages in a recipe that has none, as problems."""
    for path, node in tree.walk():
        if _is_reference(node):
            yield f"{node.described_origin()}: {show_path(path)}: {node.value!r} names a stage, and this recipe has no stages"


def _is_reference(node: Node) -> bool:
    return isinstance(node.value, str) and node.value.startswith(STAGE_REFERENCE)


def _parts(text: str) -> tuple[str, str]:
    name, _, rest = text.removeprefix(STAGE_REFERENCE).partition("/")
    return name, rest


def _with_paths(node: Node, run: FilePath) -> Node:
    if isinstance(node.value, dict):
        return Node({key: _with_paths(child, run) for key, child in node.value.items()}, node.origin, node.via)
    if isinstance(node.value, list):
        return Node([_with_paths(child, run) for child in node.value], node.origin, node.via)
    return Node(str(run.joinpath(*_parts(node.value))), node.origin, node.via) if _is_reference(node) else node
