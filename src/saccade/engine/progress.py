"""What a person sees while a run goes: on a terminal a bar with rate, time left, losses and memory; in a log file a line now and then."""
from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from saccade.engine.memory import peak_memory
from saccade.structures import Batch, Prediction

_BAR_SECONDS, _LINE_SECONDS = 0.5, 15.0  # drawing the bar takes milliseconds
_LEFT_OUT = ("lr", "grad_norm", "images_per_second", "waiting")


class TrainingProgress:
    """A bar over the steps `start` to `total`; call it after every step. Costs a look at the clock unless something is shown.

    `title`: what stands before the count, e.g. the stage of a run and what is counted.
    """

    def __init__(self, console: Console, start: int, total: int, title: str = "step") -> None:
        self.console, self.start, self.total, self.title = console, start, total, title
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), *times, TextColumn("{task.description}"))
        self.progress = Progress(*columns, console=console, auto_refresh=False, disable=not console.is_terminal)
        self._task: TaskID = self.progress.add_task("", total=total, completed=start)
        self._interval = _BAR_SECONDS if console.is_terminal else _LINE_SECONDS
        self._next, self._last = 0.0, (time.monotonic(), start)

    def __enter__(self) -> TrainingProgress:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.refresh()
        self.progress.stop()

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        """After step number `step`."""
        now = time.monotonic()
        if now < self._next and step < self.total:
            return
        self._next = now + self._interval
        (before, step_before), self._last = self._last, (now, step)
        rate = (step - step_before) / max(now - before, 1e-9)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items() if name not in _LEFT_OUT)
        text = f"{shown}  lr {figures['lr']:.3g}  {rate:.3g} steps/s  {memory_text()}" if "lr" in figures else shown
        if self.console.is_terminal:
            self.progress.update(self._task, completed=step, description=text)
            self.progress.refresh()
        else:
            left = (self.total - step) / rate if rate > 0 else 0.0
            self.console.print(f"{self.title} {step}/{self.total}  {text}  {_duration(left)} left", highlight=False, soft_wrap=True)

    def counting(self, what: str, total: int) -> EvaluationProgress:
        """A second bar, for an evaluation of `total` images."""
        return EvaluationProgress(self.progress, what, total)


class EvaluationProgress:
    """An observer of evaluations that moves a bar; `close` removes it."""

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self.progress = progress
        self._task = progress.add_task(f"evaluating {what}", total=total)
        self._next = 0.0

    def __call__(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        """After one batch."""
        self.progress.advance(self._task, len(predictions))
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _BAR_SECONDS
            self.progress.refresh()

    def close(self) -> None:
        """The evaluation is done."""
        self.progress.remove_task(self._task)


@contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[EvaluationProgress]:
    """A bar of its own for one evaluation of `total` images."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, auto_refresh=False, disable=not console.is_terminal) as progress:
        bar = EvaluationProgress(progress, what, total)
        yield bar
        progress.refresh()


def memory_text() -> str:
    """The memory in use at most so far, in words."""
    return f"{peak_memory():.1f} GiB{' GPU' if torch.cuda.is_available() and torch.cuda.is_initialized() else ''}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


class RunLog(logging.Handler):
    """saccade's messages on the console (above the bar), and from `follow` on in a file, too. Only the first process shows more than warnings."""

    def __init__(self, console: Console, rank: int = 0) -> None:
        super().__init__(logging.INFO if rank == 0 else logging.WARNING)
        self.console, self._file = console, None
        own = logging.getLogger("saccade")
        own.setLevel(logging.INFO)
        own.handlers, own.propagate = [self], False

    _file: logging.FileHandler | None

    def follow(self, path: Path) -> None:
        """Also write to `path`, appending, and no longer to a file named before."""
        if self._file is not None:
            self._file.close()
        self._file = logging.FileHandler(path, encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Show one message."""
        style = {"WARNING": "yellow", "ERROR": "bold red"}.get(record.levelname)
        self.console.print(record.getMessage(), style=style, highlight=False, markup=False, soft_wrap=True)
        if self._file is not None:
            self._file.emit(record)
