"""The command line inside the tests' own process."""
from __future__ import annotations

from saccade.cli import main


def run(*words: object) -> int:
    """The exit code of `saccade words...`."""
    try:
        main([str(word) for word in words])
    except SystemExit as finished:
        return int(finished.code or 0)
    return 0
