"""What the folder of a staged run says: which stages are finished, and which of them made the network.

    recipe.yaml, recipe_origins.json, environment.json    of the whole; no checkpoints of its own
    STAGE/                                                the run folder of a training, or the files of a task; with done.json once it is finished
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saccade.engine.files import write_json
from saccade.errors import InputError

DONE = "done.json"
_STEP = "step"  # of the last checkpoint; trainings have one


def mark_done(folder: Path, number: int, **facts: Any) -> None:
    """Write that the stage in `folder`, the `number`-th of its run, is finished; of a training with the `step` that it ended at."""
    write_json(folder / DONE, {"stage": number, **facts})


def read_done(folder: Path) -> dict[str, Any] | None:
    """What `mark_done` wrote, or None where the stage is not finished."""
    try:
        found = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("stage"), int) else None


def network_folder(path: Path) -> Path:
    """`path` itself, or of a staged run's folder that of the last stage that has finished a training. Raises InputError where none has yet."""
    if not (path / "recipe.yaml").is_file() or (path / "checkpoints").is_dir():
        return path
    done = {folder.parent: read_done(folder.parent) for folder in path.glob(f"*/{DONE}")}
    trained = [(facts["stage"], folder) for folder, facts in done.items() if facts is not None and _STEP in facts]
    if trained:
        return max(trained)[1]
    begun = sorted(folder.parent.name for folder in path.glob("*/recipe.yaml"))
    if begun:
        raise InputError(f"{path} is a run in stages, and none of them has finished a training yet; name the folder of one: {', '.join(begun)}")
    return path
