"""Trackers as they are named on the command line: `sort`, `bytetrack:high_threshold=0.5,retain_frames=60`."""
from __future__ import annotations

import difflib
from typing import Any

import yaml

from saccade.errors import InputError
from saccade.recipes import build
from saccade.recipes.registry import TABLE
from saccade.tracking.contract import Tracker


def tracker_named(text: str) -> Tracker:
    """The tracker that `text` describes: its name, whatever the case, and after a colon settings as key=value, separated by commas.

    Raises InputError for a name or setting that does not exist, or a value of the wrong type, naming those that do.
    """
    given, _, rest = text.partition(":")
    names = {_plain(name): name for name in TABLE["trackers"]}
    name = names.get(_plain(given))
    if name is None:
        near = difflib.get_close_matches(_plain(given), names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"there is no tracker {given!r}; trackers are {', '.join(names)}.{hint}")
    settings: dict[str, Any] = {}
    for setting in filter(None, rest.split(",")):
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--tracker {text}: {setting!r} is no setting; write {name.lower()}:key=value,key=value")
        settings[key.strip()] = yaml.safe_load(value)
    tracker = build({"type": name, **settings}, where=f"--tracker {given}")
    assert isinstance(tracker, Tracker)
    return tracker


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
