"""The folder of a run: what was asked for, on what it ran, and what was measured.

    recipe.yaml, recipe_origins.json, environment.json, metrics.jsonl, log.txt, checkpoints/, evaluation/<data set>/, skipped.json

Only the first process of a run writes here.
"""
from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from saccade.engine.checkpoints import all_checkpoints
from saccade.engine.files import atomic_write, remove_stale, storage_errors, write_json
from saccade.errors import InputError
from saccade.recipes import Recipe

RECIPE, ORIGINS, ENVIRONMENT, METRICS = "recipe.yaml", "recipe_origins.json", "environment.json", "metrics.jsonl"
SKIPPED = "skipped.json"  # in the run folder (training) and in those of evaluations: ids of samples that could not be read, each with the reason
_PACKAGES = ("saccade", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "safetensors", "faster-coco-eval")

_log = logging.getLogger(__name__)


class RunFolder:
    """Paths and small files of one run folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / METRICS
        self.skipped = self.path / SKIPPED

    def evaluation(self, data: str) -> Path:
        """Where the results on the data set of that name go."""
        return self.path / "evaluation" / data

    @property
    def holds_a_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / RECIPE).exists() or bool(all_checkpoints(self.checkpoints))

    def check(self, resume: bool) -> None:
        """Raise InputError where there is no run to resume, or where a new one would meet another, or anything else."""
        if resume and not self.holds_a_run:
            raise InputError(f"there is no run in {self.path} to resume; leave out --resume to start one")
        if not resume and self.holds_a_run:
            raise InputError(f"{self.path} already holds a run; add --resume to continue it, or give another folder with --out")
        if not resume and self.path.is_dir() and any(self.path.iterdir()):
            raise InputError(f"{self.path} is not empty and holds no run; give another folder with --out")

    def begin(self, recipe: Recipe, trains: bool = True) -> None:
        """Make the folder for a new run, with one for checkpoints where it `trains`. Raises StorageError where it can't be made."""
        with storage_errors(self.path):
            (self.checkpoints if trains else self.path).mkdir(parents=True, exist_ok=True)
        self.describe(recipe)
        write_json(self.path / ENVIRONMENT, describe_environment())

    def describe(self, recipe: Recipe) -> None:
        """Write the resolved recipe and the origin of each of its values."""
        atomic_write(self.path / RECIPE, recipe.dump().encode())
        write_json(self.path / ORIGINS, recipe.origins)

    def clean(self) -> None:
        """Remove what interrupted writes left behind."""
        for folder in (self.path, self.checkpoints, *(self.path / "evaluation").glob("*")):
            for name in remove_stale(folder):
                _log.info("removed %s, left by an interrupted write", folder / name)


class Records:
    """`metrics.jsonl`: one JSON object a line, appended as the run goes."""

    def __init__(self, path: Path) -> None:
        self.path, self._warned = path, False

    def append(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Add a record; on a disk that takes none a warning is given once, and the training goes on."""
        plain = {name: strict_number(value) for name, value in values.items()}
        line = json.dumps({"kind": kind, "step": step, "time": round(time.time(), 3), **plain}, allow_nan=False)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            if not self._warned:
                _log.warning("%s can't be written (%s); figures are missing there from step %d on", self.path, error.strerror, step)
            self._warned = True

    def read(self) -> list[dict[str, Any]]:
        """All records that are whole."""
        records = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    records.append(json.loads(line))
        return [r for r in records if isinstance(r, dict) and "step" in r]

    def cut_after(self, step: int) -> None:
        """Drop what was recorded after `step`, and a line that a killed process left unfinished."""
        kept = [r for r in self.read() if r["step"] <= step]
        atomic_write(self.path, "".join(json.dumps(r) + "\n" for r in kept).encode())


def strict_number(value: Any) -> Any:
    """`value`, or where it is a number that strict JSON can't hold, its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def describe_environment() -> dict[str, Any]:
    """Versions, machine, command and source revision, for the report."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "command": _command(),
        "python": platform.python_version(), "versions": versions, "system": platform.platform(), "processor": _processor(),
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpus": gpus, "commit": _commit(),
    }


def _command() -> str:
    program = Path(sys.argv[0])
    return " ".join([program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]])


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The revision of saccade's own source, with a mark where it was changed; None for an installed package."""
    git, source = shutil.which("git"), Path(__file__).parent
    if git is None:
        return None
    try:
        found = subprocess.run(
            [git, "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], capture_output=True, text=True, timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
