"""An explanation as tables, for the terminal and as one HTML page; both show the same."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from saccade.report.explanation import Explanation, ModuleRow, SampleStep
from saccade.report.sections import Table

if TYPE_CHECKING:
    from rich.console import Console

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Part:
    """One part of the tear-down: its heading, a line on how to read it, and its table."""

    heading: str
    remark: str
    table: Table


def parts(explanation: Explanation, depth: int = 2) -> list[Part]:
    """The parts that have something to show; modules down to `depth` levels below the model."""
    modules = [row for row in explanation.modules if row.depth <= depth]
    level = "Modules" if len(modules) == len(explanation.modules) else f"Modules down to level {depth}"
    every = [
        Part("Settings", "each value of the recipe and where it was written", _settings(explanation)),
        Part("One sample, step by step", "after the data set and each transform; fields are shown where they changed", _sample(explanation.sample)),
        Part(level, _module_remark(explanation, modules), _modules(modules)),
        Part("Loss terms", "weighted, on one real batch before any training step; the training loss is their sum", _losses(explanation)),
        Part("Parameter groups", f"of {explanation.optimizer}, before the schedule" if explanation.optimizer else "", _groups(explanation)),
        Part("The loop", "the statements of one run, in their order", _loop(explanation)),
        Part("Parts and hooks", "what else runs, in its order", Table(["part", "what", "written in"], explanation.parts, label_columns=3)),
    ]
    return [part for part in every if part.table.rows]


def _settings(explanation: Explanation) -> Table:
    return Table(["key", "value", "written in"], [[s.path, s.value, s.origin] for s in explanation.settings], label_columns=3)


def _sample(steps: Sequence[SampleStep]) -> Table:
    rows = []
    known: dict[str, tuple[str, ...]] = {}
    for step in steps:
        name = step.name
        changed = [f for f in step.fields if known.get(f[0]) != f[1:]] or [("", "", "", "nothing visible changes")]
        for i, (label, kind, shape, limits) in enumerate(changed):
            rows.append([name if i == 0 else "", label, kind, shape, limits, step.where if i == 0 else ""])
        known = {f[0]: f[1:] for f in step.fields}
    return Table(["step", "field", "type", "shape", "range", "written in"], rows, label_columns=6)


def _module_remark(explanation: Explanation, shown: Sequence[ModuleRow]) -> str:
    if not explanation.modules:
        return ""
    model = explanation.modules[0]
    counts = f"{short(model.parameters)} parameters, {short(model.trainable)} of them trained"
    return f"{len(shown)} of {len(explanation.modules)} modules; {counts}; {short(explanation.total_flops)} FLOPs for {_images(explanation)}"


def _images(explanation: Explanation) -> str:
    return "one image" if explanation.batch_size == 1 else f"the batch of {explanation.batch_size} images"


def _modules(rows: Sequence[ModuleRow]) -> Table:
    shown = []
    for row in rows:
        name = "  " * row.depth + (row.name.rsplit(".", 1)[-1] if row.name else "(model)")
        kind = row.kind if row.calls < 2 else f"{row.kind} (x{row.calls})"
        frozen = "" if row.trainable == row.parameters else "frozen" if not row.trainable else f"{short(row.trainable)} trained"
        shown.append([name, kind, row.output, short(row.parameters), frozen, short(row.flops), row.where])
    return Table(["module", "class", "output", "parameters", "", "FLOPs", "written in"], shown, label_columns=3)


def _losses(explanation: Explanation) -> Table:
    return Table(["term", "value", "share of the sum"], [[t.name, f"{t.value:.4g}", f"{t.share:.1%}"] for t in explanation.losses])


def _groups(explanation: Explanation) -> Table:
    rows = [[g.name, str(len(g.parameters)), short(g.size), g.rate, f"{g.weight_decay:g}"] for g in explanation.groups]
    return Table(["group", "tensors", "parameters", "learning rate", "weight decay"], rows)


def _loop(explanation: Explanation) -> Table:
    return Table(["statement", "written in"], [["  " * line.depth + line.text, line.where] for line in explanation.loop], label_columns=2)


def short(count: float) -> str:
    """A count for people: 25.6 M."""
    if count < 1000:
        return f"{count:g}"
    power = min(4, int(math.log10(count) / 3))
    return f"{count / 1000**power:.3g} {('', 'k', 'M', 'G', 'T')[power]}"


def show(explanation: Explanation, console: Console, depth: int = 2) -> None:
    """Print the tear-down."""
    from rich.table import Table as RichTable
    from rich.text import Text

    console.print(Text(explanation.title, style="bold"))
    for part in parts(explanation, depth):
        console.print()
        console.print(Text.assemble((part.heading, "bold cyan"), (f"  {part.remark}" if part.remark else "", "dim")))
        grid = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for i, column in enumerate(part.table.columns):
            grid.add_column(column, justify="left" if i < part.table.label_columns or column == "written in" else "right", overflow="fold")
        for row in part.table.rows:
            grid.add_row(*(Text(cell) for cell in row))
        console.print(grid)
    for note in explanation.notes:
        console.print(Text(f"note: {note}", style="yellow"))


def render(explanation: Explanation, depth: int = 99) -> str:
    """The tear-down as one self-contained HTML page, with all modules."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("explanation.html").render(title=explanation.title, parts=parts(explanation, depth), notes=explanation.notes)
