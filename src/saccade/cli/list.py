"""`saccade list`: what can be named in a recipe or on the command line."""
from __future__ import annotations

from typing import Annotated

import typer


def command(kind: Annotated[str, typer.Argument(help="recipes, models, backbones, datasets, transforms, metrics, ... or all.")] = "all") -> None:
    """List recipes, models, data sets, transforms and other buildable names, each with its summary."""
    import difflib

    from rich.console import Console

    from saccade.errors import InputError
    from saccade.recipes.registry import TABLE

    kinds = ["recipes", *TABLE]
    if kind not in ("all", *kinds):
        near = difflib.get_close_matches(kind, kinds, n=2)
        raise InputError(f"there is no kind {kind!r} to list; kinds are {', '.join(kinds)}" + (f". Did you mean {near[0]}?" if near else ""))
    console = Console()
    for name in kinds if kind == "all" else [kind]:
        rows = _recipe_rows() if name == "recipes" else _class_rows(name)
        if not rows:
            continue
        console.print(f"[bold]{name}[/bold]", highlight=False)
        width = max(len(r[0]) for r in rows)
        for row in rows:
            console.print(f"  {row[0]:<{width}}  {row[1]}", highlight=False, markup=False, soft_wrap=True)


def _recipe_rows() -> list[tuple[str, str]]:
    from saccade.recipes import load_recipe, zoo_names

    return [(n, load_recipe(n).header.split("\n", 1)[0]) for n in zoo_names() if not n.startswith("_")]


def _class_rows(kind: str) -> list[tuple[str, str]]:
    from saccade.recipes.registry import find_target, known_names
    from saccade.recipes.signatures import read_signature

    return [(n, read_signature(str(find_target(n))).summary) for n in known_names(kind)]
