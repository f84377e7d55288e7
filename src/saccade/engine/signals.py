"""Ctrl-C and SIGTERM: the step in progress is finished, one checkpoint is written, and the process ends with 128 + the signal's number."""
from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from saccade.errors import SaccadeError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SaccadeError):  # noqa: N818 - nothing went wrong
    """The run was asked to stop and did, at the point that `where` tells; `remedy` says how to go on. `exit_code` is 128 + the signal's number."""

    def __init__(self, signal_number: int, where: str, remedy: str = "Go on with --resume.") -> None:
        super().__init__(f"{where} {remedy}")
        self.signal_number, self.where = signal_number, where
        self.exit_code = 128 + signal_number


class StopRequests:
    """Within the block the first SIGTERM or SIGINT is noted in `signal_number`; a second one ends the process at once.

    Only the main thread may set handlers; elsewhere (a notebook's worker, a test) the block changes nothing.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
