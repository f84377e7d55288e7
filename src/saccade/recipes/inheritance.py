"""Finding recipes, and what each inherits: the layers that are merged, those of its bases first."""
from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path as FilePath

from saccade.errors import InputError
from saccade.recipes.text import parse_yaml
from saccade.recipes.tree import DELETE, Node

STAGES, BASE = "stages", "base"
_MAX_BASES = 8  # how deep inheritance may go


@dataclass(frozen=True)
class Found:
    """The text of a recipe, the label that stands in origins, and its folder (None for a shipped one)."""

    text: str
    label: str
    folder: FilePath | None


@dataclass(frozen=True)
class Layer:
    """What one file says: its sections, and for each stage that it names the nodes to merge (None: the stage, or all of them, `!delete`d)."""

    sections: Node
    stages: dict[str, list[Node] | None] | None = field(default_factory=dict)


def zoo_names() -> list[str]:
    """The names of the recipes that ship with saccade (those that start with an underscore are bases, not for running)."""
    return sorted(item.name.removesuffix(".yaml") for item in resources.files("saccade.recipes.zoo").iterdir() if item.name.endswith(".yaml"))


def find_recipe(name: str, beside: FilePath | None = None, origin: str = "") -> Found:
    """The recipe of that name or file; `beside` is the folder of the recipe that names it as its base, at `origin`. Raises InputError."""
    where = f"{origin}: " if origin else ""
    if name.endswith((".yaml", ".yml")):
        path = FilePath(name) if beside is None else beside / name
        if beside is not None and (".." in FilePath(name).parts or FilePath(name).is_absolute()):
            raise InputError(f"{where}base {name!r} leaves the recipe's folder; a base is a shipped recipe's name, or a file beside or below it")
        return Found(_read(path, where), str(path), path.parent)
    shipped = resources.files("saccade.recipes.zoo").joinpath(f"{name}.yaml") if "/" not in name and "\\" not in name else None
    if shipped is not None and shipped.is_file():
        return Found(shipped.read_text(encoding="utf-8"), f"zoo/{name}.yaml", None)
    if beside is None and FilePath(name).is_dir() and (FilePath(name) / "recipe.yaml").is_file():
        return Found(_read(FilePath(name) / "recipe.yaml", where), str(FilePath(name) / "recipe.yaml"), FilePath(name))
    near = difflib.get_close_matches(name, zoo_names(), n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    raise InputError(f"{where}there is no recipe {name!r}: neither a shipped one (`saccade list recipes`) nor a .yaml file.{hint}")


def _read(path: FilePath, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{where}there is no recipe file {path}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{where}{path} is not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{where}{path} can't be read: {error.strerror}") from None


def layers_of(found: Found, trail: Sequence[str] = ()) -> list[Layer]:
    """What is to be merged, first to last. `trail`: the recipes that led here, by their labels. Raises InputError with the origin."""
    tree = parse_yaml(found.text, found.label)
    if not isinstance(tree.value, dict):
        raise InputError(f"{found.label}: a recipe is a mapping of sections, this is a {type(tree.value).__name__}")
    layers = _bases(tree, found, trail)
    own = {key: child for key, child in tree.value.items() if key not in (BASE, STAGES)}
    stages = _stages(tree.value[STAGES], found, trail) if STAGES in tree.value else {}
    return [*layers, Layer(Node(own, tree.origin), stages)]


def _bases(tree: Node, found: Found, trail: Sequence[str]) -> list[Layer]:
    if BASE not in tree.value:
        return []
    base = tree.value[BASE]
    if len(trail) >= _MAX_BASES:
        raise InputError(f"{base.origin}: bases are nested more than {_MAX_BASES} deep: {' -> '.join(trail)}")
    layers = []
    for node in base.value if isinstance(base.value, list) else [base]:
        if not isinstance(node.value, str):
            raise InputError(f"{node.origin}: base must be a recipe's name or file, or a list of them; got {node.plain()!r}")
        following = find_recipe(node.value, found.folder if found.folder is not None else FilePath(), node.origin)
        if following.label in (*trail, found.label):
            raise InputError(f"{node.origin}: base {node.value!r} leads back to itself: {' -> '.join([*trail, found.label, following.label])}")
        layers += layers_of(following, (*trail, found.label))
    return layers


def _stages(node: Node, found: Found, trail: Sequence[str]) -> dict[str, list[Node] | None] | None:
    """By stage what is to be merged over the shared sections, its own bases first; they may be stage recipes of their own no more."""
    if node.value is DELETE:
        return None
    if not isinstance(node.value, dict) or not node.value:
        raise InputError(f"{node.origin}: stages is a mapping of names to what each stage changes in the shared sections; got {node.plain()!r}")
    stages: dict[str, list[Node] | None] = {}
    for name, stage in node.value.items():
        if stage.value is DELETE:
            stages[name] = None
            continue
        if not isinstance(stage.value, dict):
            raise InputError(f"{stage.origin}: stages.{name} is a mapping of sections; got {stage.plain()!r}")
        layers = _bases(stage, found, trail)
        if any(layer.stages != {} for layer in layers):
            raise InputError(f"{stage.value[BASE].origin}: stages.{name} has a base with stages of its own; a stage's bases have sections alone")
        own = Node({key: child for key, child in stage.value.items() if key != BASE}, stage.origin)
        stages[name] = [*(layer.sections for layer in layers), own]
    return stages
