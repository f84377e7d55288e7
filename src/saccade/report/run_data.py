"""What a run folder holds, read for a report. A run that is still going or was killed is read as far as it got; what is missing is said in `notes`.

The layout is the engine's: `recipe.yaml`, `recipe_origins.json`, `environment.json`, `metrics.jsonl`, `log.txt`, `skipped.json`, `checkpoints/`, and
for each data set `evaluation/<name>/` with `figures.json`, `details.json`, `skipped.json` and `gallery/`.
"""
from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from saccade.engine.selection import selection_note
from saccade.engine.staged_folder import network_folder
from saccade.errors import InputError
from saccade.metrics.notes import notes_in

_NOT_FIGURES = ("kind", "step", "epoch", "time")
_LEVEL = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b")
_SKIPPED = re.compile(r"\bskipped (.+?) of ")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_MOST_SKIPPED = 200


@dataclass(frozen=True)
class GalleryPicture:
    """One drawn image, the `item` of its data set: truth and prediction side by side, with its quality (0..1, nan where unknown) and a caption.

    `panels`: of label maps, title and file of the image, the truth, the prediction and the entropy, instead of one picture.
    """

    path: Path
    caption: str
    quality: float
    item: str = ""
    panels: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class DataResult:
    """How the model did on one data set: `figures` by name (without the data set's), `details` for tables and curves, best and worst pictures.

    `samples`: pictures of images that are the same in every evaluation of the data set; `legend`: the colour (#rrggbb) of each class in their panels.
    """

    name: str
    figures: Mapping[str, float]
    details: Mapping[str, Any]
    best: tuple[GalleryPicture, ...] = ()
    worst: tuple[GalleryPicture, ...] = ()
    quality_name: str = ""
    samples: tuple[GalleryPicture, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Run:
    """One run: its recipe, what was recorded while it trained, and its last results by data set."""

    path: Path
    name: str
    recipe: Mapping[str, Any]
    origins: Mapping[str, str]
    environment: Mapping[str, Any]
    train: tuple[Mapping[str, Any], ...]
    evaluations: tuple[Mapping[str, Any], ...]
    events: tuple[Mapping[str, Any], ...]
    results: Mapping[str, DataResult]
    checkpoints: Mapping[str, str]
    notes: tuple[str, ...] = field(default=())

    @property
    def last_step(self) -> int:
        """The last step that left a trace (0 where none did)."""
        return max((int(r["step"]) for r in (*self.train, *self.evaluations) if "step" in r), default=0)

    @property
    def planned_steps(self) -> int | None:
        """How many steps the recipe asks for, where it counts in steps; an online run takes as many as its stream has frames."""
        if (self.path / "frames.jsonl").is_file():
            return None
        steps = (self.recipe.get("run") or {}).get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def seconds(self) -> float:
        """From the first record to the last."""
        times = [float(r["time"]) for r in (*self.train, *self.evaluations) if "time" in r]
        return max(times) - min(times) if times else 0.0

    def train_names(self) -> list[str]:
        """The figures recorded at training steps, in the order in which they first came, the loss first."""
        names = dict.fromkeys(key for record in self.train for key in record if key not in _NOT_FIGURES and _is_number(record[key]))
        return sorted(names, key=lambda name: name != "loss")

    def train_curve(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of a figure recorded at training steps; values that are not numbers are nan."""
        return [(float(r["step"]), _number(r[name])) for r in self.train if name in r and "step" in r]

    def evaluation_names(self) -> list[str]:
        """The figures of evaluations, each with its data set in front."""
        return list(dict.fromkeys(key for record in self.evaluations for key in record if key not in _NOT_FIGURES and _is_number(record[key])))

    def evaluation_curve(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of a figure over the evaluations; undefined ones (-1) are nan."""
        return [(float(r["step"]), _defined(_number(r[name]))) for r in self.evaluations if name in r and "step" in r]


def load_run(path: str | Path) -> Run:
    """Read the run folder at `path`, of a run in stages that of the last one that has finished a training. Raises InputError where it is none;
    damaged or absent parts become notes."""
    folder = network_folder(Path(path))
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; a report is made from run folders (those that hold recipe.yaml and metrics.jsonl)")
    if not any((folder / name).exists() for name in ("metrics.jsonl", "recipe.yaml", "evaluation")):
        raise InputError(f"{folder} is not a run folder: it holds neither metrics.jsonl nor recipe.yaml nor evaluation/")
    notes: list[str] = []
    records = list(_records(folder / "metrics.jsonl", notes))
    skipped = list(_skipped(folder, notes))
    records += skipped[:_MOST_SKIPPED]
    if len(skipped) > _MOST_SKIPPED:
        notes.append(f"of {len(skipped)} samples that could not be read {_MOST_SKIPPED} are shown; skipped.json has them all")
    records += _warnings(folder / "log.txt", {str(record["sample"]) for record in skipped})
    evaluations = tuple(r for r in records if r.get("kind") == "evaluation")
    recipe, results = _read_recipe(folder / "recipe.yaml", notes), _read_results(folder / "evaluation", evaluations, notes)
    chosen = selection_note(recipe)
    notes += [] if chosen is None else [chosen]
    notes += [f"{name}: {note}" for name, result in results.items() for note in notes_in(result.details)]
    return Run(
        path=folder,
        name=folder.resolve().name if folder == Path(path) else f"{Path(path).resolve().name}/{folder.name}",
        recipe=recipe,
        origins={k: str(v) for k, v in _read_json(folder / "recipe_origins.json", notes).items()},
        environment=_read_json(folder / "environment.json", notes),
        train=tuple(r for r in records if r.get("kind") == "train"),
        evaluations=evaluations,
        events=tuple(r for r in records if r.get("kind") not in ("train", "evaluation")),
        results=results,
        checkpoints=_read_checkpoints(folder / "checkpoints"),
        notes=tuple(notes),
    )


def flatten(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) for everything in nested mappings and lists; lists of scalars, and what is empty, come as themselves."""
    nested = isinstance(values, list) and any(isinstance(value, Mapping | list) for value in values)
    children = values.items() if isinstance(values, Mapping) else enumerate(values) if nested else None
    if not children:
        yield path, values
        return
    for key, child in children:
        yield from flatten(child, f"{path}.{key}" if path else str(key))


def _records(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        notes.append("there is no metrics.jsonl, so there are no curves")
        return
    except OSError as error:
        notes.append(f"metrics.jsonl can't be read ({error.strerror}), so there are no curves")
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            what = "its last line is cut off, as a killed run leaves it" if number == len(lines) else f"line {number} is not JSON and is left out"
            notes.append(f"metrics.jsonl: {what}")
            continue
        if isinstance(record, dict):
            yield record
        else:
            notes.append(f"metrics.jsonl: line {number} is not a record and is left out")


def _skipped(folder: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The samples that could not be read, in training and in the last evaluation of each data set."""
    for path in (folder / "skipped.json", *sorted((folder / "evaluation").glob("*/skipped.json"))):
        data = "training" if path.parent == folder else path.parent.name
        yield from ({"kind": "skipped", "data": data, "sample": k, "reason": v} for k, v in _read_json(path, notes, expected=False).items())


def _warnings(path: Path, known: set[str]) -> Iterator[dict[str, Any]]:
    """What the run's log says at the level of a warning or worse, but for the `known` skipped samples; no log is no warning."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        found, skipped = _LEVEL.search(line), _SKIPPED.search(line)
        if found is not None and not (skipped is not None and skipped[1] in known):
            yield {"kind": found[0].lower(), "message": line}


def _read_recipe(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        notes.append("there is no recipe.yaml")
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        notes.append(f"recipe.yaml can't be read: {' '.join(str(error).split())}")
        return {}
    return values if isinstance(values, dict) else {}


def _read_json(path: Path, notes: list[str], expected: bool = True) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if expected:
            notes.append(f"there is no {path.name}")
        return {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        notes.append(f"{path} can't be read and is left out: {error}")
        return {}
    if isinstance(values, dict):
        return values
    notes.append(f"{path} does not hold a mapping and is left out")
    return {}


def _read_checkpoints(folder: Path) -> dict[str, str]:
    found = {}
    for name in ("best", "last"):
        path = folder / name
        if path.is_file():
            found[name] = path.read_text(encoding="utf-8", errors="replace").strip()
    return found


def _read_results(folder: Path, evaluations: tuple[Mapping[str, Any], ...], notes: list[str]) -> dict[str, DataResult]:
    """By data set: the files of its folder, else the figures of the last evaluation that is recorded."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    recorded = _by_data(evaluations)
    order = {name: i for i, name in enumerate(recorded)}  # the recipe's order, which records keep
    results = {}
    for name in sorted({*names, *recorded}, key=lambda n: (order.get(n, len(order)), n)):
        own = folder / name
        figures = _read_json(own / "figures.json", notes, expected=name in names and name not in recorded)
        values = {key.removeprefix(f"{name}/"): _number(value) for key, value in figures.items() if _is_number(value)}
        details = _read_json(own / "details.json", notes, expected=False)
        results[name] = DataResult(name, values or recorded.get(name, {}), details, **_read_gallery(own / "gallery", notes))
    if not results:
        notes.append("nothing has been evaluated yet")
    return results


def _by_data(evaluations: tuple[Mapping[str, Any], ...]) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    for record in evaluations:
        for key, value in record.items():
            if key not in _NOT_FIGURES and "/" in key and _is_number(value):
                name, _, figure = key.partition("/")
                figures.setdefault(name, {})[figure] = _number(value)
    return figures


def _read_gallery(folder: Path, notes: list[str]) -> dict[str, Any]:
    """The fields of a `DataResult` that are about pictures."""
    index = _read_json(folder / "gallery.json", notes, expected=False)
    fields: dict[str, Any] = {"quality_name": str(index.get("quality", ""))}
    for kind in ("best", "worst", "samples"):
        pictures = []
        for entry in index.get(kind, []):
            file = _beside(folder, entry.get("file"))
            panels = {str(panel.get("title", "")): _beside(folder, panel.get("file")) for panel in entry.get("panels", [])}
            lost = [path for path in (file, *panels.values()) if not path.is_file()]
            notes += [f"the picture {path} is missing" for path in lost]
            if not lost:
                caption, quality = str(entry.get("caption", file.stem)), _number(entry.get("quality"))
                pictures.append(GalleryPicture(file, caption, quality, str(entry.get("id", "")), panels))
        fields[kind] = tuple(pictures)
    fields["legend"] = tuple((str(name), str(colour)) for name, colour in index.get("legend", []) if _COLOUR.fullmatch(str(colour)))
    return fields


def _beside(folder: Path, name: Any) -> Path:
    """A file beside gallery.json: its name, never a path that leads elsewhere."""
    return folder / Path(str(name or "")).name


def _is_number(value: Any) -> bool:
    # None and the words stand for values that strict JSON can't hold.
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool)) or value in ("NaN", "Infinity", "-Infinity")


def _number(value: Any) -> float:
    if value is None or not _is_number(value):
        return math.nan
    return float(value)


def _defined(value: float) -> float:
    return math.nan if value == -1 else value
