"""What must be the same for a resumed run to be the run that was stopped, and what may differ.

Free to differ: the number of data workers, where data and weights lie (a `root`, or a path with the same last part), how often things are recorded
and saved, and loggers. Everything else is refused with the differences, unless the user permits it.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from saccade.errors import InputError
from saccade.recipes import Recipe, compare, recipe_from_values

_FREE = re.compile(
    r"data\.workers|data\.evaluation_batch_size|run\.(loggers|log_every|save_every|keep_last|strict_storage|find_unused_parameters)(\..*)?"
    r"|data\..*\broot|description(\..*)?"
)
_MAY_MOVE = ("data.", "weights.", "learner.")  # sections with paths of data and of checkpoints
_SHOWN = 12


@dataclass(frozen=True)
class Conditions:
    """What a checkpoint remembers of the circumstances of its run: plain data only. `source_samples`: of `data.source`, None without one."""

    recipe: dict[str, Any]
    world_size: int
    steps_per_epoch: int
    samples: int
    classes: list[str]
    source_samples: int | None = None

    def as_state(self) -> dict[str, Any]:
        """For `training.pt`."""
        return asdict(self)


def check_conditions(
    before: Mapping[str, Any], now: Recipe, conditions: Conditions, *, allow_changes: bool, allow_world_size_change: bool
) -> list[str]:
    """The differences that were permitted, one a line. Raises InputError with those that were not and the flag that permits them."""
    earlier = Conditions(**before)
    changes = differences(earlier.recipe, now)
    if earlier.samples != conditions.samples:
        changes.append(f"length of the training data: {earlier.samples} -> {conditions.samples}")
    if earlier.source_samples != conditions.source_samples:
        changes.append(f"length of the source data: {earlier.source_samples} -> {conditions.source_samples}")
    if earlier.classes != conditions.classes:
        changes.append(f"classes of the training data: {', '.join(earlier.classes)} -> {', '.join(conditions.classes)}")
    sizes = []
    if earlier.world_size != conditions.world_size:
        sizes.append(f"number of processes: {earlier.world_size} -> {conditions.world_size}")
    refused = ([] if allow_changes else changes) + ([] if allow_world_size_change else sizes)
    if refused:
        flags = [flag for flag, found, allowed in (
            ("--allow-changes", changes, allow_changes), ("--allow-world-size-change", sizes, allow_world_size_change)) if found and not allowed]
        raise InputError(
            f"This run can't be resumed as it was, for what decides its result has changed:\n{listed(refused)}\nUndo the changes, or permit them "
            f"with {' and '.join(flags)}; the result is then no longer that of an uninterrupted run."
        )
    return changes + sizes


def differences(before: Mapping[str, Any], now: Recipe) -> list[str]:
    """The values of a recipe that decide its result and differ from those `before`, one a line, with their origins."""
    return [
        f"{d.path}: {d.left!r} -> {d.right!r}" + (f"  ({d.right_origin})" if d.right_origin else "")
        for d in compare(recipe_from_values(dict(before), "before", ""), now)
        if not _is_free(d.path, d.left, d.right)
    ]


def listed(lines: Sequence[str]) -> str:
    """The first of `lines`, indented, and how many there are beside."""
    return "\n".join(f"  {line}" for line in lines[:_SHOWN]) + (f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else "")


def _is_free(path: str, left: Any, right: Any) -> bool:
    if _FREE.fullmatch(path):
        return True
    moved = path.startswith(_MAY_MOVE) and isinstance(left, str) and isinstance(right, str) and ("/" in left or "/" in right)
    return moved and PurePath(left).name == PurePath(right).name
