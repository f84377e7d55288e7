"""Constructor signatures read from source text, without importing it.

Importing a model costs seconds and runs code; reading its signature costs a millisecond. That is how an unknown key or a wrong type in a
recipe is found before anything is loaded. A target is "module:attribute";
the attribute is a class with its own `__init__`, a dataclass, or a function.
"""
from __future__ import annotations

import ast
import functools
import importlib.util
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le


class Built:
    """Stands for "an object built from a nested mapping with `type:`" among the types of a signature."""


# What annotations may say by name; every other name is a class of ours, so an object to be built.
_NAMES: dict[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "list": list, "tuple": tuple, "dict": dict, "None": None, "Any": Any, "object": Any,
    "Path": Path, "Sequence": Sequence, "Mapping": Mapping, "Literal": Literal, "Iterable": Sequence, "Collection": Sequence, "Union": typing.Union,
    "Optional": typing.Optional, "List": list, "Tuple": tuple, "Dict": dict,
    "PositiveInt": Annotated[int, Gt(0)], "NonNegativeInt": Annotated[int, Ge(0)],
    "PositiveFloat": Annotated[float, Gt(0)], "NonNegativeFloat": Annotated[float, Ge(0)], "Probability": Annotated[float, Ge(0), Le(1)],
}


@dataclass(frozen=True)
class Parameter:
    """One argument: its annotation as written and as a type (`Built` inside where objects are expected), and whether it must be given."""

    name: str
    text: str
    type: Any
    required: bool
    default: str | None = None

    def __str__(self) -> str:
        annotated = f"{self.name}: {self.text}" if self.text else self.name
        return annotated if self.required else f"{annotated} = {self.default}"


@dataclass(frozen=True)
class Signature:
    """The arguments of one buildable thing, its summary line and where it is written ("file:line")."""

    name: str
    parameters: tuple[Parameter, ...]
    summary: str
    location: str
    open: bool = False  # takes any further keyword (**kwargs)

    def get(self, name: str) -> Parameter | None:
        """The parameter of that name, or None."""
        return next((p for p in self.parameters if p.name == name), None)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.parameters))}{', ...' if self.open else ''})"


@functools.cache
def read_signature(target: str) -> Signature:
    """The signature of "package.module:attribute". Raises LookupError when the source does not define it (a defect of the table or a plugin)."""
    module, _, attribute = target.partition(":")
    path, tree = _parsed(module)
    return _signature_in(tree, attribute, path, target, module)


@functools.cache
def _parsed(module: str) -> tuple[Path, ast.Module]:
    path = _source_of(module)
    return path, ast.parse(path.read_text(encoding="utf-8"))


def _source_of(module: str) -> Path:
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"no package {top!r} is installed")
    for root in spec.submodule_search_locations:
        stem = Path(root, *rest)
        for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
            if candidate.is_file():
                return candidate
    raise LookupError(f"no source of module {module!r}")


def _signature_in(tree: ast.Module, attribute: str, path: Path, target: str, module: str) -> Signature:
    aliases = _aliases(tree, module.partition(".")[0])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return _make(attribute, node.args, False, node, path, aliases)
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            return _class_signature(tree, node, path, aliases, target)
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == attribute for a in node.names):
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            for _ in range(max(0, node.level - 1)):
                package = package.rpartition(".")[0]
            source = f"{package}.{node.module}" if node.level and node.module else package if node.level else node.module
            original = next(a.name for a in node.names if (a.asname or a.name) == attribute)
            return read_signature(f"{source}:{original}")
    raise LookupError(f"{path} does not define {attribute!r} ({target})")


def _aliases(tree: ast.Module, package: str) -> dict[str, ast.expr]:
    """What the names of types in a module stand for: those that it defines, and those that it imports from modules of `package`."""
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] == package:
            defined = _assigned(_parsed(str(node.module))[1])
            found |= {a.asname or a.name: defined[a.name] for a in node.names if a.name in defined}
    return found | _assigned(tree)


def _assigned(tree: ast.Module) -> dict[str, ast.expr]:
    return {t.id: node.value for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)}


def _class_signature(tree: ast.Module, node: ast.ClassDef, path: Path, aliases: dict[str, ast.expr], target: str) -> Signature:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _make(node.name, item.args, True, node, path, aliases)
    if any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        return _dataclass_signature(tree, node, path, aliases)
    for base in node.bases:
        if not isinstance(base, ast.Name) or not _defines(tree, base.id):
            continue
        found = _signature_in(tree, base.id, path, target, target.partition(":")[0])
        if found.parameters or found.open:
            return Signature(node.name, found.parameters, _summary(node), f"{path}:{node.lineno}", found.open)
    return Signature(node.name, (), _summary(node), f"{path}:{node.lineno}")


def _defines(tree: ast.Module, name: str) -> bool:
    own = any(isinstance(n, ast.ClassDef) and n.name == name for n in tree.body)
    # Bases from torch (nn.Module, Dataset) have no arguments of interest; only siblings in the package are followed.
    return own or any(isinstance(n, ast.ImportFrom) and n.level and any((a.asname or a.name) == name for a in n.names) for n in tree.body)


def _dataclass_signature(tree: ast.Module, node: ast.ClassDef, path: Path, aliases: dict[str, ast.expr]) -> Signature:
    parameters: dict[str, Parameter] = {}
    for base in node.bases:
        inherited = next((b for b in tree.body if isinstance(b, ast.ClassDef) and isinstance(base, ast.Name) and b.name == base.id), None)
        if inherited is not None:
            parameters |= {p.name: p for p in _dataclass_signature(tree, inherited, path, aliases).parameters}
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name) or "ClassVar" in ast.unparse(item.annotation):
            continue
        if item.value is not None and "init=False" in ast.unparse(item.value).replace(" ", ""):
            continue
        default = None if item.value is None else ast.unparse(item.value)
        parameters[item.target.id] = Parameter(
            item.target.id, ast.unparse(item.annotation), _type_of(item.annotation, aliases), item.value is None, default
        )
    return Signature(node.name, tuple(parameters.values()), _summary(node), f"{path}:{node.lineno}")


def _make(
    name: str, arguments: ast.arguments, skip_self: bool, node: ast.ClassDef | ast.FunctionDef, path: Path, aliases: dict[str, ast.expr]
) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args][1 if skip_self else 0:]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults) if positional else []
    pairs = [*zip(positional, defaults[-len(positional):] if positional else []), *zip(arguments.kwonlyargs, arguments.kw_defaults)]
    parameters = tuple(
        Parameter(
            a.arg, "" if a.annotation is None else ast.unparse(a.annotation), Any if a.annotation is None else _type_of(a.annotation, aliases),
            default is None, None if default is None else ast.unparse(default),
        )
        for a, default in pairs
    )
    return Signature(name, parameters, _summary(node), f"{path}:{node.lineno}", arguments.kwarg is not None)


def _summary(node: ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").strip().split("\n", 1)[0]


def _type_of(node: ast.expr, aliases: dict[str, ast.expr]) -> Any:
    if isinstance(node, ast.Constant):
        return _type_of(ast.parse(node.value, mode="eval").body, aliases) if isinstance(node.value, str) else node.value
    if isinstance(node, ast.Name):
        if node.id in _NAMES:
            return _NAMES[node.id]
        if node.id in aliases and not isinstance(aliases[node.id], ast.Call | ast.Constant):
            return _type_of(aliases[node.id], {k: v for k, v in aliases.items() if k != node.id})
        return Built
    if isinstance(node, ast.Attribute):
        return _NAMES.get(node.attr, Built)
    if isinstance(node, ast.BinOp):
        return typing.Union[_type_of(node.left, aliases), _type_of(node.right, aliases)]  # noqa: UP007
    if isinstance(node, ast.Subscript):
        return _generic(node, aliases)
    return Built


def _generic(node: ast.Subscript, aliases: dict[str, ast.expr]) -> Any:
    origin = _type_of(node.value, aliases)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if origin is Literal:
        return Literal[tuple(ast.literal_eval(item) for item in items)]
    if origin is Built:
        return Built
    inner = tuple(... if isinstance(i, ast.Constant) and i.value is ... else _type_of(i, aliases) for i in items)
    return origin[inner] if len(inner) > 1 else origin[inner[0]]
