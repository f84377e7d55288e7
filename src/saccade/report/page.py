"""One self-contained HTML page for one or several runs: no network, no library, readable without its little script."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from saccade.report import sections
from saccade.report.page_pictures import Comparison, Gallery, comparison_of, data_uri, gallery_of
from saccade.report.run_data import Run, load_run
from saccade.report.sections import Chart, Table

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class _DataSection:
    name: str
    class_tables: list[tuple[str, Table]]
    class_bars: list[Chart]
    curves: list[Chart]
    confusions: list[tuple[Chart | None, Table]]
    galleries: list[Gallery]
    comparison: Comparison | None
    missing: list[str]


@dataclass(frozen=True)
class _RunFacts:
    name: str
    colour: int
    facts: list[tuple[str, str]]
    notes: list[str]
    recipe: Table
    environment: Table
    events: Table | None


@dataclass(frozen=True)
class Opening:
    """What a page begins with, before the figures of its runs: a table of methods, and a video with a picture that stands for it until it plays."""

    title: str
    words: str
    table: Table
    video: Path
    picture: Path
    video_words: str


def write_page(run_folders: Sequence[str | Path], out: str | Path, opening: Opening | None = None) -> Path:
    """Read the run folders and write the report to the file `out` (its folder is made), with `opening` at its top. Returns the path.

    Errors as of `load_run`.
    """
    from saccade.engine.files import atomic_write, storage_errors

    page = render_page([load_run(folder) for folder in run_folders], opening)
    path = Path(out)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, page.encode())
    return path


def render_page(runs: Sequence[Run], opening: Opening | None = None) -> str:
    """The page as text. Runs of equal names are told apart by their folders."""
    runs = _with_distinct_names(runs)
    names = sections.figure_names(runs)
    headline = sections.headline_names(names)
    first, more = sections.training_charts(runs)
    evaluation, more_evaluation = sections.evaluation_charts(runs, headline)
    others = [name for name in names if name not in headline]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(
        title=opening.title if opening else " / ".join(run.name for run in runs),
        opening=opening,
        video=data_uri(opening.video, "video/mp4") if opening else "", poster=data_uri(opening.picture, "image/jpeg") if opening else "",
        runs=[_facts(run, i) for i, run in enumerate(runs)],
        headline=sections.figures_table(runs, headline) if headline else None,
        other_figures=sections.figures_table(runs, others) if others else None,
        domain_chart=sections.domain_chart(runs, headline[0]) if headline else None,
        training=evaluation + first, more_training=more_evaluation + more,
        data=[_data_section(runs, name) for name in sections.data_names(runs)],
        differences=sections.difference_table([run.recipe for run in runs], [run.name for run in runs]) if len(runs) > 1 else None,
    )


def _with_distinct_names(runs: Sequence[Run]) -> list[Run]:
    from dataclasses import replace

    names = [run.name for run in runs]
    return [replace(run, name=str(run.path)) if names.count(run.name) > 1 else run for run in runs]


def _data_section(runs: Sequence[Run], name: str) -> _DataSection:
    tables, curves = sections.class_tables(runs, name), sections.precision_recall_charts(runs, name)
    confusions = sections.confusion_charts(runs, name)
    galleries = [gallery for run in runs if name in run.results and (gallery := gallery_of(run.name, run.results[name])) is not None]
    missing = [] if tables else ["no per-class table"]
    missing += [] if curves or confusions else ["no precision-recall curve or confusion matrix"]
    missing += [] if galleries else ["no pictures"]
    bars = sections.class_bar_charts(runs, name)
    return _DataSection(name, tables, bars, curves, confusions, galleries, comparison_of(runs, name), missing)


def _facts(run: Run, index: int) -> _RunFacts:
    model = run.recipe.get("model") or {}
    facts: list[tuple[str, str]] = [("folder", str(run.path))]
    if isinstance(model, dict) and "type" in model:
        facts.append(("model", str(model["type"])))
    planned = run.planned_steps
    if run.last_step or planned:
        facts.append(("steps", f"{run.last_step}" + (f" of {planned}" if planned is not None else "")))
    if run.seconds:
        facts.append(("time", _duration(run.seconds)))
    facts += [(f"{name} checkpoint", folder) for name, folder in run.checkpoints.items()]
    notes = list(run.notes)
    if planned is not None and run.last_step < planned:
        notes.insert(0, f"this run has come to step {run.last_step} of {planned}: it is still going or was stopped")
    return _RunFacts(run.name, index, facts, notes, sections.recipe_table(run), _two_columns(run.environment), _events(run))


def _two_columns(values: Any) -> Table:
    return Table(["", ""], [[path, str(value)] for path, value in sections.flatten(values) if path], label_columns=2)


def _events(run: Run) -> Table | None:
    """Warnings, skipped images and whatever else the run recorded that is neither a training step nor an evaluation."""
    rows = []
    for event in run.events:
        words = "; ".join(f"{key}: {value}" for key, value in event.items() if key not in ("kind", "step", "time", "epoch"))
        rows.append([str(event.get("step", sections.MISSING)), str(event.get("kind", sections.MISSING)), words])
    return Table(["step", "kind", "what"], rows, label_columns=3) if rows else None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
