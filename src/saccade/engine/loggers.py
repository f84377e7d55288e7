"""Where figures go beside `metrics.jsonl`: TensorBoard, Comet, Weights & Biases, MLflow. Each is a thin adapter of an optional package.

A recipe names them under `run.loggers`. `start` is called once in the first process, with the run folder, its name, the recipe's values and the step
that the run continues from (0: a new one).
"""
from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from saccade.errors import InputError


class Logger(Protocol):
    """Takes named numbers of a step; names contain a slash where they belong to a data set."""

    def start(self, folder: Path, name: str, recipe: Mapping[str, Any], step: int) -> None: ...
    def log(self, step: int, figures: Mapping[str, float]) -> None: ...
    def finish(self) -> None: ...


def _load(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f"run.loggers: {extra} needs the package {error.name!r}; install it with `pip install saccade[{extra}]`") from None


def _run_id(folder: Path, name: str) -> Path:
    return folder / f"{name}_run_id.txt"


@dataclass
class TensorBoard:
    """Event files in the run folder, for `tensorboard --logdir`."""

    extra: ClassVar[str] = "tensorboard"

    def start(self, folder: Path, name: str, recipe: Mapping[str, Any], step: int) -> None:
        """Open the writer; events after `step` of the run that is continued are hidden."""
        _load("tensorboard", self.extra)
        self._writer = _load("torch.utils.tensorboard", self.extra).SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Add one scalar a figure."""
        for key, value in figures.items():
            self._writer.add_scalar(key if "/" in key else f"train/{key}", value, step)

    def finish(self) -> None:
        """Write what is waiting."""
        self._writer.close()


@dataclass
class Comet:
    """comet.com, or a server of your own as its configuration says; the key comes from the environment (COMET_API_KEY)."""

    project: str | None = None
    offline: bool = False
    extra: ClassVar[str] = "comet"

    def start(self, folder: Path, name: str, recipe: Mapping[str, Any], step: int) -> None:
        """Open the experiment, or the one that a continued run had."""
        comet, known = _load("comet_ml", self.extra), _run_id(folder, "comet")
        key = known.read_text(encoding="utf-8") if step and known.is_file() else None
        self._experiment = comet.start(project_name=self.project, experiment_key=key, online=not self.offline)
        self._experiment.set_name(name)
        self._experiment.log_parameters(dict(recipe))
        known.write_text(self._experiment.get_key(), encoding="utf-8")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send the figures."""
        self._experiment.log_metrics(dict(figures), step=step)

    def finish(self) -> None:
        """Send what is waiting."""
        self._experiment.end()


@dataclass
class WandB:
    """Weights & Biases; the key comes from its own login or the environment (WANDB_API_KEY)."""

    project: str | None = None
    offline: bool = False
    extra: ClassVar[str] = "wandb"

    def start(self, folder: Path, name: str, recipe: Mapping[str, Any], step: int) -> None:
        """Open the run, or the one that a continued run had."""
        wandb, known = _load("wandb", self.extra), _run_id(folder, "wandb")
        own = known.read_text(encoding="utf-8") if step and known.is_file() else None
        self._run = wandb.init(
            project=self.project, name=name, id=own, resume="allow", config=dict(recipe), dir=str(folder),
            mode="offline" if self.offline else "online",
        )
        known.write_text(self._run.id, encoding="utf-8")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send the figures."""
        self._run.log(dict(figures), step=step)

    def finish(self) -> None:
        """Send what is waiting."""
        self._run.finish()


@dataclass
class MLflow:
    """An MLflow server, or files below `tracking_uri`; None: as the environment says (MLFLOW_TRACKING_URI)."""

    experiment: str = "saccade"
    tracking_uri: str | None = None
    extra: ClassVar[str] = "mlflow"

    def start(self, folder: Path, name: str, recipe: Mapping[str, Any], step: int) -> None:
        """Open the run, or the one that a continued run had."""
        self._mlflow, known = _load("mlflow", self.extra), _run_id(folder, "mlflow")
        if self.tracking_uri is not None:
            self._mlflow.set_tracking_uri(self.tracking_uri)
        self._mlflow.set_experiment(self.experiment)
        own = known.read_text(encoding="utf-8") if step and known.is_file() else None
        run = self._mlflow.start_run(run_id=own, run_name=None if own else name)
        known.write_text(run.info.run_id, encoding="utf-8")
        if own is None:
            self._mlflow.log_dict(dict(recipe), "recipe.json")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send the figures; MLflow takes finite numbers only."""
        self._mlflow.log_metrics({k: v for k, v in figures.items() if math.isfinite(v)}, step=step)

    def finish(self) -> None:
        """Close the run."""
        self._mlflow.end_run()
