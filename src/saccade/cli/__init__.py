"""The `saccade` command. Only the command that is called gets imported, so `saccade --help` answers at once."""
from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

import typer

from saccade.errors import SaccadeError

# name -> (module, one line of help); a module has a function `command`, or a Typer `app` with sub-commands.
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("saccade.cli.train", "Train a model from a recipe, or resume a stopped run."),
    "adapt": ("saccade.cli.adapt", "Take a trained model to a new domain, without labels."),
    "evaluate": ("saccade.cli.evaluate", "Score a checkpoint on its own or other data sets."),
    "predict": ("saccade.cli.predict", "Run a checkpoint on images, folders and videos."),
    "track": ("saccade.cli.track", "Follow objects through detections that lie in files."),
    "explain": ("saccade.cli.explain", "Take a recipe or checkpoint apart, down to file:line."),
    "report": ("saccade.cli.report", "Make one HTML page from one or several runs."),
    "recipe": ("saccade.cli.recipe", "Show, compare and check recipes."),
    "weights": ("saccade.cli.weights", "List, fetch, inspect, convert and export weights."),
    "data": ("saccade.cli.data", "Show, make and convert data sets."),
    "list": ("saccade.cli.list", "List recipes, models, data sets and other names."),
    "demo": ("saccade.cli.demo", "Train a small tracker on the town, adapt it to fog, compare."),
    "demo-detection": ("saccade.cli.demo_detection", "Train a small detector on the town, score it, predict, report."),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with exit code 0, 1 (a defect of ours), 2 (input), 3 (data), 4 (numbers), 5 (files) or 128 + signal."""
    # Threads that wait for each other in a busy loop make a network a hundred times slower where other work shares the processor; sleeping costs
    # next to nothing. Read when torch is imported; who sets it otherwise has the last word.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    called = next((word for word in words if not word.startswith("-")), None)
    try:
        _app(called)(args=words, prog_name="saccade")
    except SaccadeError as error:
        if debug:
            raise
        _complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # the last place before the user: a defect gets one paragraph, and its traceback on request
        if debug:
            raise
        _complain(f"{type(error).__name__}: {error}\nThis is a defect of saccade. The same command with --debug shows where it happens.")
        sys.exit(1)


def _complain(text: str) -> None:
    colour = sys.stderr.isatty()
    print(("\x1b[1;31merror:\x1b[0m " if colour else "error: ") + text, file=sys.stderr)  # noqa: T201


def _app(called: str | None) -> typer.Typer:
    app = typer.Typer(
        help="saccade: one toolkit for images, video, tracking, and taking a trained model to a new domain. `--debug` shows tracebacks.",
        no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_version)
    for name, (module_name, summary) in COMMANDS.items():
        if name != called:
            app.command(name, help=summary)(_placeholder())
            continue
        module = importlib.import_module(module_name)
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, help=summary)
        else:
            app.command(name)(module.command)
    return app


def _placeholder() -> Callable[[], None]:
    def placeholder() -> None:
        raise AssertionError("only the called command runs, and that one is never a placeholder")

    return placeholder


def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True)) -> None:
    if version:
        from saccade import __version__

        typer.echo(f"saccade {__version__}")
        raise typer.Exit


if __name__ == "__main__":
    main()
