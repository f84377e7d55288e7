"""`saccade explain`: a recipe or checkpoint taken apart, down to file:line."""
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    target: Annotated[str, typer.Argument(help="A recipe (name or file), a run folder, or a checkpoint folder.", metavar="RECIPE|CHECKPOINT")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings of the recipe to change: key.path=value.", metavar="[KEY=VALUE]...")] = None,
    depth: Annotated[int, typer.Option(min=0, help="Levels of modules below the model.")] = 2,
    html: Annotated[Path | None, typer.Option(help="Also write a page with all modules to this file.")] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="A package with classes of your own; may be repeated.")] = None,
) -> None:
    """Show settings with their origins, a sample after every transform, modules with shapes and FLOPs, losses, parameter groups, and the loop."""
    from rich.console import Console

    from saccade.recipes.registry import add_plugin
    from saccade.report.explanation_view import render, show
    from saccade.report.tear_down import explain_target

    for package in plugin or []:
        add_plugin(package)
    explanation = explain_target(target, overrides or [])
    show(explanation, Console(), depth)
    if html is not None:
        from saccade.engine.files import atomic_write

        html.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(html, render(explanation).encode())
        typer.echo(str(html))
