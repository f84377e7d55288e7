"""`saccade explain`: a recipe or checkpoint taken apart, down to file:line; or, for one photo, what a transformer's attention looks at."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer


def command(
    target: Annotated[str, typer.Argument(help="A recipe (name or file), a run folder, or a checkpoint folder.", metavar="RECIPE|CHECKPOINT")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings of the recipe to change: key.path=value.", metavar="[KEY=VALUE]...")] = None,
    stage: Annotated[str | None, typer.Option(help="Of a recipe or run in stages: which one.", show_default="first, of a run the last done")] = None,
    depth: Annotated[int, typer.Option(min=0, help="Levels of modules below the model.")] = 2,
    html: Annotated[Path | None, typer.Option(help="Also write a page with all modules to this file.")] = None,
    attention: Annotated[Path | None, typer.Option(help="Instead a page: what attention looks at in this photo.", metavar="PHOTO")] = None,
    out: Annotated[Path | None, typer.Option(help="With --attention: the page's file.", show_default="PHOTO's name_attention.html")] = None,
    weights: Annotated[str | None, typer.Option(help="With --attention and a recipe: a file with its weights, or 'published'.")] = None,
    device: Annotated[str | None, typer.Option(help="With --attention: cpu, cuda, cuda:1, mps, or auto.", show_default="auto")] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="A package with classes of your own; may be repeated.")] = None,
) -> None:
    """Show settings with their origins, a sample after every transform, modules with shapes and FLOPs, losses, parameter groups, and the loop.

    With --attention PHOTO: write one HTML page on which to click places and detections and see what a transformer looks at from there.
    """
    from rich.console import Console

    from saccade.recipes.registry import add_plugin
    from saccade.report.explanation_view import render, show
    from saccade.report.tear_down import explain_target

    for package in plugin or []:
        add_plugin(package)
    if attention is not None:
        _refuse("can't be used together with --attention", {"KEY=VALUE": overrides, "--html": html, "--stage": stage})
        typer.echo(str(_attention_page(target, attention, out or Path(f"{attention.stem}_attention.html"), weights, device or "auto")))
        return
    _refuse("is for --attention PHOTO, which is not given", {"--out": out, "--weights": weights, "--device": device})
    explanation = explain_target(target, overrides or [], stage)
    show(explanation, Console(), depth)
    if html is not None:
        from saccade.engine.files import atomic_write

        html.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(html, render(explanation).encode())
        typer.echo(str(html))


def _refuse(why: str, options: Mapping[str, object]) -> None:
    from saccade.errors import InputError

    given = next((name for name, value in options.items() if value), None)
    if given is not None:
        raise InputError(f"{given} {why}; leave it out")


def _attention_page(target: str, photo: Path, out: Path, weights: str | None, device: str) -> Path:
    """Look into the model that `target` names and write the page. Everything that may be wrong with the arguments is said before the model runs."""
    from saccade.data.decoding import read_image
    from saccade.errors import InputError
    from saccade.report.attention import look_inside
    from saccade.report.attention_page import write_attention_page
    from saccade.report.opening import open_model

    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name the page's file, such as {out / photo.stem}_attention.html")
    image = read_image(photo)
    model = open_model(target, weights, device)
    return write_attention_page(look_inside(model, image), out, title=photo.name, model=f"{type(model).__name__} of {target}")
