"""What metrics want said in words, such as that there was nothing to score: the `note` of an entry of their details."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def notes_in(details: Mapping[str, Any]) -> list[str]:
    """The notes of all entries of `details`, of one metric or several."""
    return [str(entry["note"]) for entry in details.values() if isinstance(entry, Mapping) and "note" in entry]
