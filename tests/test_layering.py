"""The layers of the house: a folder imports only from those below it, and no modules import each other in a circle."""
from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "saccade"

# From the lowest to the highest; each may import those before it. `errors` is a module, the others are folders.
LAYERS = (
    "errors", "structures", "ops", "recipes", "layers", "models", "tracking", "metrics", "data", "learning", "adaptation", "engine", "weights",
    "report", "cli", "__main__",
)


def imported_modules(text: str, known: frozenset[str]) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of our own in a source text, wherever it stands; of names, where they are modules, those."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "saccade")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide where they lead"
            if node.module is not None and node.module.split(".")[0] == "saccade":
                yield from ((node.lineno, full if (full := f"{node.module}.{alias.name}") in known else node.module) for alias in node.names)


@cache
def sources() -> dict[str, Path]:
    """Every module of the package, by name."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def layer_of(module: str) -> str:
    """The folder (or module) right below the package; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def upward_imports(module: str, text: str, known: frozenset[str]) -> list[str]:
    """The imports of a module that lead to a layer above its own."""
    height = LAYERS.index(layer_of(module))
    return [
        f"{module}:{line} imports {target}" for line, target in imported_modules(text, known)
        if layer_of(target) and LAYERS.index(layer_of(target)) > height
    ]


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Nodes that lead to each other, the first one again at the end; empty where there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_folder_has_its_layer() -> None:
    assert {layer_of(module) for module in sources()} - {""} <= set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_folder_imports_only_from_those_below_it(layer: str) -> None:
    known = frozenset(sources())
    found = [line for module, path in sources().items() if layer_of(module) == layer for line in upward_imports(module, path.read_text(), known)]
    assert not found, "\n".join(found)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """Imports inside functions count as well. The package itself is left out: all of its modules import it, and it opens checkpoints lazily."""
    known = frozenset(sources())
    graph = {
        module: {target for _, target in imported_modules(path.read_text(), known) if target not in (module, "saccade")}
        for module, path in sources().items() if module != "saccade"
    }
    circle = find_circle(graph)
    assert not circle, " -> ".join(circle)


def test_the_check_itself_sees_upward_imports_and_circles() -> None:
    known = frozenset({"saccade.engine", "saccade.engine.files", "saccade.weights.load"})
    text = "def f():\n    from saccade.weights.load import load_into\n    from saccade.engine import files\n"
    assert upward_imports("saccade.engine.experiment", text, known) == ["saccade.engine.experiment:2 imports saccade.weights.load"]
    assert list(imported_modules(text, known))[1] == (3, "saccade.engine.files")
    assert upward_imports("saccade.report.page", text, known) == []
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) and not find_circle({"a": {"b", "c"}, "b": {"c"}})
