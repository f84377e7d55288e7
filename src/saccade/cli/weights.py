"""`saccade weights list|show|fetch|convert|export`: published checkpoints, what is in a file, other layouts, ONNX."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saccade.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from saccade.models.contract import Model
    from saccade.weights.compare import Difference
    from saccade.weights.report import TensorRow

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Source = Annotated[
    str, typer.Argument(help="A file (FILE#MEMBER: one of several in it), a checkpoint or run folder, or a name of `saccade weights list`.")
]
RecipeOption = Annotated[str | None, typer.Option("--recipe", help="The recipe whose model the weights belong to.")]
ClassCount = Annotated[int | None, typer.Option("--classes", min=1, help="Number of classes, where the recipe's data set is not at hand.")]
# Where the original programs look for the weights; a dot leads into a member of a member.
_FOREIGN_MEMBER = {"lufficc_ssd": "model", "mmcls": "state_dict", "proda": "ResNet101.model_state"}


@app.command("list")
def list_command(
    pattern: Annotated[str, typer.Argument(help="Only names and systems that hold this.")] = "",
    torchvision: Annotated[bool, typer.Option("--torchvision", help="torchvision's own list instead of the table.")] = False,
) -> None:
    """List published checkpoints with their figures, sizes and terms; `*` marks those in the cache."""
    from rich.table import Table

    from saccade.weights.download import cache_folder
    from saccade.weights.table import published, torchvision_weights

    entries = [e for e in (torchvision_weights() if torchvision else published()).values() if pattern.lower() in f"{e.name} {e.system}".lower()]
    table = Table("", box=None, header_style="bold")
    table.add_column("name", no_wrap=True)
    for column in ("system", "trained on", "figures", "MB", "sha256", "terms"):
        table.add_column(column)
    for entry in entries:
        figures = ", ".join(f"{name.rpartition('/')[2]} {100 * value:.2f} %" for name, value in entry.figures.items())
        size = "" if entry.megabytes is None else f"{entry.megabytes:g}"
        cached = "*" if (cache_folder() / entry.file).is_file() else ""
        table.add_row(cached, entry.name, entry.system, entry.data, figures, size, entry.sha256 or "", entry.licence)
    _print(table)
    typer.echo(f"{len(entries)} checkpoints; cache: {cache_folder()}; timm's weights have names such as timm/resnet50.a1_in1k")


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="A name of `saccade weights list`, torchvision/… or timm/….")]) -> None:
    """Download a published checkpoint into the cache and print where it lies."""
    from saccade.weights.table import fetch_published

    typer.echo(str(fetch_published(name)))


@app.command()
def show(
    source: Source,
    filters: Annotated[list[str] | None, typer.Option("--filter", help="Only tensors whose name holds this (or matches it, with * and ?).")] = None,
    diff: Annotated[str | None, typer.Option("--diff", help="Compare with another source, or with the model of a recipe.")] = None,
    classes: ClassCount = None,
    everything: Annotated[bool, typer.Option("--all", help="With --diff: list the tensors that are equal, too.")] = False,
) -> None:
    """List the tensors of a file: name, shape, type, mean, spread, range; or how they differ from another's."""
    from saccade.weights.load import read_tensors
    from saccade.weights.report import tensor_rows, totals

    tensors = read_tensors(source)
    if diff is None:
        rows = tensor_rows(tensors, filters or ())
        _print_rows(rows)
        typer.echo(totals(rows))
        return
    _show_difference(tensors, diff, filters or (), classes, everything)


@app.command()
def convert(
    source: Source,
    to: Annotated[str, typer.Option("--to", help="safetensors, or a foreign layout: lufficc_ssd, mmcls, torchvision, timm.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .safetensors, or .pth for the original programs.")],
    recipe: RecipeOption = None,
    classes: ClassCount = None,
) -> None:
    """Write weights in another layout. With a recipe (or a checkpoint of saccade) names are translated and every tensor is checked."""
    from saccade.engine.files import atomic_write
    from saccade.weights import maps
    from saccade.weights.load import load_into, read_tensors

    if to != "safetensors" and to not in maps.ORIGINS:
        raise InputError(f"--to {to}: expected safetensors or one of {', '.join(maps.ORIGINS)}")
    if out.suffix not in (".safetensors", ".pth", ".pt"):
        raise InputError(f"--out {out}: expected a name that ends in .safetensors, or .pth for the original programs")
    tensors = read_tensors(source)
    model = _model_for(source, recipe, classes)
    if model is not None:
        typer.echo(load_into(model, tensors).summary())
        tensors = model.state_dict()
    if to != "safetensors":
        if model is None:
            raise InputError(f"--to {to} needs --recipe, whose model says which tensor is which")
        tensors = maps.key_map(to).from_saccade(tensors, model)
    atomic_write(out, _encoded(tensors, out.suffix, _FOREIGN_MEMBER.get(to)))
    typer.echo(f"{len(tensors)} tensors written to {out}")


@app.command()
def export(
    source: Source,
    out: Annotated[Path, typer.Option("--out", help="The .onnx file to write.")],
    recipe: RecipeOption = None,
    classes: ClassCount = None,
    size: Annotated[str | None, typer.Option("--size", help="HEIGHTxWIDTH of the pictures; by default that of the evaluation transforms.")] = None,
    opset: Annotated[int, typer.Option("--opset", min=18, help="Version of the ONNX operators.")] = 18,
    float_pixels: Annotated[bool, typer.Option("--float", help="Take float32 pixels 0..255 instead of uint8.")] = False,
    fixed_batch: Annotated[bool, typer.Option("--fixed-batch", help="Exactly one picture at a time.")] = False,
) -> None:
    """Export to ONNX, compare with onnxruntime and write the file only if they agree."""
    from saccade.engine.files import atomic_write
    from saccade.weights.export import export_onnx
    from saccade.weights.load import load_into, read_tensors

    model = _model_for(source, recipe, classes)
    if model is None:
        raise InputError(f"{source} does not say what model it is; name its recipe with --recipe")
    if recipe is not None:
        typer.echo(load_into(model, read_tensors(source)).summary())
    pixels, height_width = ("float32" if float_pixels else "uint8"), _size(size, model)
    result = export_onnx(model, height_width, opset=opset, pixels=pixels, dynamic_batch=not fixed_batch)  # type: ignore[arg-type]
    for name in result.outputs:
        typer.echo(f"{name}: largest deviation {result.deviations[name]:.1e} of its largest value")
    atomic_write(out, result.content)
    shape = f"({1 if fixed_batch else 'N'}, 3, {height_width[0]}, {height_width[1]})"
    typer.echo(f"{out}: {len(result.content) / 1e6:.1f} MB, opset {opset}, images {shape} {pixels} RGB 0..255")


def _model_for(source: str, recipe: str | None, classes: int | None) -> Model | None:
    """The model of `recipe`, or, without one, that of a saccade checkpoint with its weights; None for other sources."""
    if recipe is not None:
        return _model_of_recipe(recipe, classes)
    from saccade.weights.load import locate

    folder = locate(source).parent
    if not (folder / "model.json").is_file():
        return None
    from saccade.engine.checkpoints import load_model

    return load_model(folder, "cpu")


def _model_of_recipe(name: str, classes: int | None) -> Model:
    from saccade.engine.checkpoints import without_downloads
    from saccade.recipes import build, check, load_recipe
    from saccade.recipes.stages import outcome
    from saccade.report.opening import recipe_classes

    recipe = load_recipe(name)
    check(recipe)
    recipe = outcome(recipe)
    names = recipe_classes(recipe) if classes is None else tuple(f"class {k}" for k in range(classes))
    model: Model = build(without_downloads(recipe.section("model")), where="model", origins=recipe.origins, classes=names)
    model.evaluation_transforms = (recipe.section("data") or {}).get("evaluation_transforms") or []  # type: ignore[assignment]
    return model


def _size(text: str | None, model: Model) -> tuple[int, int]:
    if text is not None:
        height, _, width = text.lower().partition("x")
        if not (height.isdigit() and (width or height).isdigit()):
            raise InputError(f"--size {text}: expected HEIGHTxWIDTH, such as 300x300")
        return int(height), int(width or height)
    for spec in reversed(getattr(model, "evaluation_transforms", None) or []):
        size = spec.get("size")
        if isinstance(size, int) and spec.get("type") == "CenterCrop":
            return size, size
        if isinstance(size, list | tuple) and len(size) == 2:
            return int(size[0]), int(size[1])
    raise InputError("The size of the pictures is not known from the evaluation transforms; name it with --size HEIGHTxWIDTH")


def _encoded(tensors: Mapping[str, Tensor], suffix: str, member: str | None) -> bytes:
    import io

    import safetensors.torch
    import torch

    plain = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    if suffix == ".safetensors":
        return safetensors.torch.save(plain)
    content: dict[str, Any] = plain
    for name in reversed(member.split(".") if member else []):
        content = {name: content}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _print_rows(rows: Sequence[TensorRow]) -> None:
    from rich.table import Table

    table = Table("name", "shape", "type", box=None, header_style="bold")
    for column in ("mean", "std", "min", "max"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = [_number(value) for value in (row.mean, row.std, row.minimum, row.maximum)]
        broken = f"  [red]{row.not_finite} not finite[/red]" if row.not_finite else ""
        table.add_row(row.name + broken, _shape(row.shape), row.dtype, *numbers)
    _print(table)


def _show_difference(tensors: dict[str, Tensor], other: str, filters: Sequence[str], classes: int | None, everything: bool) -> None:
    from saccade.recipes import zoo_names
    from saccade.weights.compare import compare, counts
    from saccade.weights.load import read_tensors, translate
    from saccade.weights.report import tensor_rows

    if other in zoo_names() or Path(other).suffix in (".yaml", ".yml"):
        model = _model_of_recipe(other, classes)
        origin, left = translate(tensors, model, "auto")
        right, values = model.state_dict(), False
        typer.echo(f"names translated from {origin}" if origin != "saccade" else "names as in the file")
    else:
        left, right, values = tensors, read_tensors(other), True
    kept = {row.name for side in (left, right) for row in tensor_rows({n: t.new_empty(0) for n, t in side.items()}, filters)}
    rows = [row for row in compare(left, right, values) if row.name in kept]
    _print_differences([row for row in rows if everything or row.kind != "equal"])
    typer.echo(", ".join(f"{count} {kind}" for kind, count in counts(rows).items()) or "nothing to compare")


def _print_differences(rows: Sequence[Difference]) -> None:
    from rich.table import Table

    table = Table("name", "difference", "left", "right", "largest", "relative", box=None, header_style="bold")
    for row in rows:
        shapes = ["" if shape is None else _shape(shape) for shape in (row.left, row.right)]
        table.add_row(row.name, row.kind, *shapes, _number(row.largest), _number(row.relative))
    if rows:
        _print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _print(table: Table) -> None:
    """To the terminal in its width; to a file or pipe wide enough that nothing is cut."""
    import sys

    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 250).print(table)
