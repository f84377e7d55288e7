"""What can be known to be wrong with a recipe before anything is loaded: unknown keys and classes, missing arguments, wrong types and ranges."""
from __future__ import annotations

import difflib
import functools
import json
import typing
from collections.abc import Collection, Iterable
from typing import Annotated, Any, get_args, get_origin

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from saccade.errors import InputError
from saccade.recipes.inheritance import STAGES
from saccade.recipes.recipe import Recipe
from saccade.recipes.registry import SECTIONS, find_target, known_names
from saccade.recipes.signatures import Built, Parameter, Signature, read_signature
from saccade.recipes.stages import dangling_references, is_staged, stage_problems, stage_trees
from saccade.recipes.tree import Node, Path, show_path

# Arguments that the house fills in: a recipe may give them but need not.
PROVIDED = ("classes", "model", "num_classes")


def check(recipe: Recipe) -> None:
    """Raise one InputError that lists every mistake in `recipe`, each with its origin, the signature expected and the nearest names."""
    problems = list(_problems(recipe))
    if problems:
        raise InputError("\n".join(problems))


def _problems(recipe: Recipe) -> Iterable[str]:
    if not is_staged(recipe):
        yield from _section_problems(recipe.tree)
        yield from dangling_references(recipe.tree)
        return
    beside = {name: node for name, node in recipe.tree.value.items() if name != STAGES}
    yield from (f"{node.origin}: {name!r} stands beside stages; sections belong into them" for name, node in beside.items())
    yield from stage_problems(recipe)
    trees = stage_trees(recipe)
    found: dict[str, list[str]] = {}  # a mistake in a shared section is one mistake
    for name, tree in trees.items():
        for problem in _section_problems(tree):
            found.setdefault(problem, []).append(name)
    for problem, names in found.items():
        yield problem if len(names) == len(trees) > 1 else f"{problem} (stage {', '.join(names)})"


def _section_problems(tree: Node) -> Iterable[str]:
    for name, node in tree.value.items():
        if name not in SECTIONS:
            yield f"{node.origin}: unknown section {name!r}; {_suggest(name, [*SECTIONS, STAGES])}"
            continue
        yield from _check_section(node, SECTIONS[name], (name,))


def _check_section(node: Node, target: str | None, path: Path) -> Iterable[str]:
    if isinstance(node.value, list):
        for index, child in enumerate(node.value):
            yield from _check_section(child, target, (*path, index))
    elif not isinstance(node.value, dict):
        if node.value is not None and path[0] != "description":
            yield f"{node.described_origin()}: {show_path(path)} must be a mapping, not {node.plain()!r}"
    elif target is None:
        if "type" in node.value:
            yield from _check_typed(node, path)
        else:
            yield f"{node.described_origin()}: {show_path(path)} needs a `type:`, the name of a class"
    else:
        yield from _check_arguments(node, read_signature(target), path)


def _check_typed(node: Node, path: Path) -> Iterable[str]:
    named = node.value["type"]
    target = find_target(named.value) if isinstance(named.value, str) else None
    if target is None:
        hint = _suggest(str(named.plain()), known_names())
        yield f"{named.described_origin()}: {show_path(path)}: there is no class {named.plain()!r} to build; {hint}"
        return
    yield from _check_arguments(node, read_signature(target), path)


def _check_arguments(node: Node, signature: Signature, path: Path) -> Iterable[str]:
    for key, child in node.value.items():
        if key == "type" and signature.get("type") is None:
            continue
        parameter = signature.get(key)
        if parameter is None:
            if not signature.open:
                names = [p.name for p in signature.parameters]
                yield f"{child.described_origin()}: {show_path((*path, key))}: unknown key {key!r}; {_suggest(key, names)}. Expected {signature}"
            continue
        yield from _check_value(child, parameter, signature, (*path, key))
    for parameter in signature.parameters:
        if parameter.required and parameter.name not in node.value and parameter.name not in PROVIDED:
            yield f"{node.described_origin()}: {show_path(path)}: {signature.name} needs {parameter.name!r}. Expected {signature}"


def _check_value(node: Node, parameter: Parameter, signature: Signature, path: Path) -> Iterable[str]:
    nested = list(_nested_specs(node, path))
    for child, child_path in nested:
        yield from _check_typed(child, child_path)
    try:
        validate(parameter.type, node.plain(), foreign=not signature.location.startswith(_OURS))
    except ValidationError as error:
        first = error.errors()[0]
        steps = [s for s in first["loc"] if isinstance(s, int) or (isinstance(node.value, dict) and s in node.value)]
        yield (
            f"{node.described_origin()}: {show_path((*path, *steps))}: {_reason(error)}; got {node.plain()!r}. "
            f"{signature.name} takes {parameter}"
        )


_OURS = read_signature("saccade.errors:InputError").location.rsplit("errors.py", 1)[0]


def _reason(error: ValidationError) -> str:
    messages = dict.fromkeys(e["msg"][0].lower() + e["msg"][1:] for e in error.errors())
    return " or ".join(list(messages)[:3])


def _nested_specs(node: Node, path: Path) -> Iterable[tuple[Node, Path]]:
    if isinstance(node.value, dict):
        if "type" in node.value:
            yield node, path
            return
        for key, child in node.value.items():
            yield from _nested_specs(child, (*path, key))
    elif isinstance(node.value, list):
        for index, child in enumerate(node.value):
            yield from _nested_specs(child, (*path, index))


def _suggest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    shown = sorted(known)
    return f"known: {', '.join(shown[:12])}{', ...' if len(shown) > 12 else ''}"


def validate(expected: Any, value: Any, foreign: bool = False) -> Any:
    """`value` (plain data from a recipe) as `expected`, strictly: no text for numbers, but lists for tuples and integers for floats.

    `foreign`: the signature is another library's, whose named types (enums and the like) are taken as they come.
    """
    return _adapter(_Key(expected, foreign)).validate_json(json.dumps(value), strict=True)


class _Key:
    # Types such as Literal[...] hash equal across int/bool values, so the adapter cache goes by representation.
    def __init__(self, expected: Any, foreign: bool) -> None:
        self.expected, self.foreign, self.text = expected, foreign, f"{expected!r}{foreign}"

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.text == other.text


@functools.lru_cache(maxsize=1024)
def _adapter(key: _Key) -> TypeAdapter[Any]:
    return TypeAdapter(_with_built(key.expected, key.foreign))


def _must_be_spec(value: Any) -> Any:
    if isinstance(value, dict) and "type" in value:
        return value
    raise ValueError("must be a mapping with a `type:`")


def _with_built(expected: Any, foreign: bool) -> Any:
    if expected is Built:
        return Any if foreign else Annotated[Any, BeforeValidator(_must_be_spec)]
    arguments = get_args(expected)
    if not arguments or get_origin(expected) in (typing.Literal, Annotated):
        return expected
    changed = tuple(a if a is ... else _with_built(a, foreign) for a in arguments)
    origin = get_origin(expected)
    return typing.Union[changed] if origin in (typing.Union, type(int | str)) else origin[changed]  # noqa: UP007
