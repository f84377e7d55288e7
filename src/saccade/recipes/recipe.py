"""Finding, inheriting and overriding recipes."""
from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from saccade.errors import InputError
from saccade.recipes.references import parse_path, resolve_references
from saccade.recipes.text import parse_yaml
from saccade.recipes.tree import DELETE, Node, merge, show_path, without_deleted

COMMAND_LINE = "command line"
_MAX_BASES = 8  # how deep inheritance may go


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: what is to be built and run, with the origin of every value.

    `tree` is free of bases, references and deletions. `source` is the file or zoo name that it was loaded from, `header` the file's leading comment.
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


def zoo_names() -> list[str]:
    """The names of the recipes that ship with saccade (those that start with an underscore are bases, not for running)."""
    return sorted(item.name.removesuffix(".yaml") for item in resources.files("saccade.recipes.zoo").iterdir() if item.name.endswith(".yaml"))


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name (shipped) or path, with `key.path=value` overrides on top.

    Raises InputError naming file and line where something can't be read; it does not check classes and arguments (see `checking.check`).
    """
    text, label, folder = _find(str(name_or_path), None)
    tree = _with_bases(parse_yaml(text, label), label, folder, ())
    if not isinstance(tree.value, dict):
        raise InputError(f"{label}: a recipe is a mapping of sections, this is a {type(tree.value).__name__}")
    for override in overrides:
        tree = _override(tree, override)
    tree = resolve_references(Node(without_deleted(tree.value), tree.origin))
    header = "\n".join(line.lstrip("# ").rstrip() for line in _leading_comment(text))
    return Recipe(name=Path(label).stem, source=str(name_or_path), tree=tree, header=header)


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


def _find(name: str, beside: Path | None, origin: str = "") -> tuple[str, str, Path | None]:
    """Text, label for origins and folder of a recipe; `beside` is the folder of the recipe that names it as its base."""
    where = f"{origin}: " if origin else ""
    if name.endswith((".yaml", ".yml")):
        path = Path(name) if beside is None else beside / name
        if beside is not None and (".." in Path(name).parts or Path(name).is_absolute()):
            raise InputError(f"{where}base {name!r} leaves the recipe's folder; a base is a shipped recipe's name, or a file beside or below it")
        return _read(path, where), str(path), path.parent
    shipped = resources.files("saccade.recipes.zoo").joinpath(f"{name}.yaml") if "/" not in name and "\\" not in name else None
    if shipped is not None and shipped.is_file():
        return shipped.read_text(encoding="utf-8"), f"zoo/{name}.yaml", None
    if beside is None and Path(name).is_dir() and (Path(name) / "recipe.yaml").is_file():
        return _read(Path(name) / "recipe.yaml", where), str(Path(name) / "recipe.yaml"), Path(name)
    near = difflib.get_close_matches(name, zoo_names(), n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    raise InputError(f"{where}there is no recipe {name!r}: neither a shipped one (`saccade list recipes`) nor a .yaml file.{hint}")


def _read(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{where}there is no recipe file {path}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{where}{path} is not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{where}{path} can't be read: {error.strerror}") from None


def _with_bases(tree: Node, label: str, folder: Path | None, trail: tuple[str, ...]) -> Node:
    if not isinstance(tree.value, dict) or "base" not in tree.value:
        return tree
    if len(trail) >= _MAX_BASES:
        raise InputError(f"{tree.value['base'].origin}: bases are nested more than {_MAX_BASES} deep: {' -> '.join(trail)}")
    base = tree.value["base"]
    nodes = base.value if isinstance(base.value, list) else [base]
    merged = Node({}, label)
    for node in nodes:
        if not isinstance(node.value, str):
            raise InputError(f"{node.origin}: base must be a recipe's name or file, or a list of them; got {node.plain()!r}")
        text, base_label, base_folder = _find(node.value, folder if folder is not None else Path(), node.origin)
        if base_label in (*trail, label):
            raise InputError(f"{node.origin}: base {node.value!r} leads back to itself: {' -> '.join([*trail, label, base_label])}")
        merged = merge(merged, _with_bases(parse_yaml(text, base_label), base_label, base_folder, (*trail, label)))
    return merge(merged, Node({k: v for k, v in tree.value.items() if k != "base"}, tree.origin))


def _override(tree: Node, text: str) -> Node:
    key, sign, value_text = text.partition("=")
    if not sign or not key.strip():
        raise InputError(f"the argument {text!r} is neither an option nor an override; an override reads key.path=value, e.g. run.steps=1000")
    path = parse_path(key)
    value = parse_yaml(value_text, f"{COMMAND_LINE} ({key.strip()})", line_origins=False) if value_text.strip() else Node(None, COMMAND_LINE)
    for _, node in value.walk():
        node.origin = COMMAND_LINE
    return _set(tree, path, value, ())


def _set(tree: Node, path: tuple[str | int, ...], value: Node, done: tuple[str | int, ...]) -> Node:
    if not path:
        return merge(tree, value)
    key = path[0]
    if isinstance(tree.value, list):
        if not isinstance(key, int) or not -len(tree.value) <= key < len(tree.value):
            count = f"a list of {len(tree.value)} items (from {tree.origin})"
            raise InputError(f"{COMMAND_LINE}: {show_path(done)} is {count}; {key!r} is not one of 0..{len(tree.value) - 1}")
        items = list(tree.value)
        if len(path) == 1 and value.value is DELETE:
            del items[key]
        else:
            items[key] = _set(items[key], path[1:], value, (*done, key))
        return Node(items, tree.origin, tree.via)
    children = dict(tree.value) if isinstance(tree.value, dict) else {}
    key = str(key)
    if len(path) == 1 and value.value is DELETE:
        if key not in children:
            raise InputError(f"{COMMAND_LINE}: there is no {show_path((*done, key))} to delete")
        del children[key]
    else:
        child = children.get(key, Node({} if len(path) > 1 else None, COMMAND_LINE))
        children[key] = _set(child, path[1:], value, (*done, key))
    return Node(children, tree.origin, tree.via)
