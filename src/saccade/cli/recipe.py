"""`saccade recipe show|diff|check`: recipes as what they resolve to, with the origin of every value."""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from saccade.recipes.tree import Node

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

RecipeName = Annotated[str, typer.Argument(help="A shipped recipe's name, a .yaml file, or a run folder.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Overrides: key.path=value, key.path=!delete.")]
Plugins = Annotated[list[str] | None, typer.Option("--plugin", help="A package that offers further classes.")]


@app.command()
def show(
    recipe: RecipeName,
    overrides: Overrides = None,
    origins: Annotated[bool, typer.Option("--origins/--no-origins", help="Say where each value was written.")] = True,
    plain: Annotated[bool, typer.Option("--plain", help="The resolved YAML alone, ready to be saved as a recipe.")] = False,
    stage: Annotated[str | None, typer.Option(help="Of a recipe with stages: this one alone.")] = None,
) -> None:
    """Print the resolved recipe: every value, and where it comes from."""
    from rich.console import Console
    from rich.text import Text

    from saccade.recipes import load_recipe
    from saccade.recipes.stages import stage_named

    loaded = load_recipe(recipe, overrides or [])
    loaded = loaded if stage is None else stage_named(loaded, stage)
    if plain:
        typer.echo(loaded.dump(), nl=False)
        return
    console = Console(soft_wrap=True)
    if loaded.header:
        console.print(Text(loaded.header, style="dim italic"))
    for line, origin in _lines(loaded.tree, 0):
        text = Text(line)
        if origins and origin:
            text.append(" " * max(2, 64 - len(line)) + f"# {origin}", style="dim")
        console.print(text)


def _lines(node: Node, depth: int, label: str = "") -> Iterator[tuple[str, str]]:
    from saccade.recipes.text import to_text

    indent = "  " * depth
    value = node.value
    if isinstance(value, dict) and value:
        if label:
            yield f"{indent}{label}", ""
        for key, child in value.items():
            yield from _lines(child, depth + (1 if label else 0), f"{key}:")
    elif isinstance(value, list) and any(isinstance(c.value, dict | list) for c in value):
        yield f"{indent}{label}", ""
        for child in value:
            yield f"{indent}  - {to_text(child.plain())}", child.described_origin()
    else:
        yield f"{indent}{label} {to_text(node.plain())}", node.described_origin()


@app.command()
def diff(left: RecipeName, right: Annotated[str, typer.Argument(help="The other recipe.")], overrides: Overrides = None) -> None:
    """Print where two recipes differ by value, each side with its origin. Overrides apply to the second."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from saccade.recipes import compare, load_recipe
    from saccade.recipes.text import to_text

    first, second = load_recipe(left), load_recipe(right, overrides or [])
    differences = compare(first, second)
    if not differences:
        typer.echo(f"{first.name} and {second.name} resolve to the same values.")
        return
    table = Table("key", first.name, second.name, box=box.SIMPLE_HEAD, pad_edge=False)
    for d in differences:
        table.add_row(d.path, f"{to_text(d.left)}\n[dim]{d.left_origin}[/]", f"{to_text(d.right)}\n[dim]{d.right_origin}[/]")
    Console().print(table)
    typer.echo(f"{len(differences)} values differ.")


@app.command("check")
def check_command(recipe: RecipeName, overrides: Overrides = None, plugin: Plugins = None) -> None:
    """Check keys, classes, types and ranges without loading anything; exit code 2 and every mistake with its line where there are any."""
    from saccade.recipes import check, is_staged, load_recipe
    from saccade.recipes.registry import add_plugin
    from saccade.recipes.stages import stage_trees

    for package in plugin or []:
        add_plugin(package)
    loaded = load_recipe(recipe, overrides or [])
    check(loaded)
    stages = f" in {len(stage_trees(loaded))} stages" if is_staged(loaded) else ""
    typer.echo(f"{loaded.name}: {len(loaded.origins)} values{stages}, no mistakes found.")
