"""`saccade report`: one HTML page for one or several runs."""
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, one or several.", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="The page to write; default: report.html in the run folder, or here for several.")] = None,
) -> None:
    """Make one self-contained HTML page from one or several runs, side by side. A run that is still going is shown as far as it got."""
    from saccade.report.page import write_page

    if out is None:
        out = runs[0] / "report.html" if len(runs) == 1 else Path("report.html")
    typer.echo(str(write_page(runs, out)))
