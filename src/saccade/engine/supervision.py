"""Starting the processes of a run on this machine, and ending all of them when one ends badly.

Each rank is this very command again with the variables of torchrun's convention. The output of the first rank goes through as it is, that of the
others by lines with their rank in front. The supervisor ends with the exit code of the rank that failed first, or 128 + a signal's number.
"""
from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

from saccade.errors import InputError

_GRACE = 8.0  # seconds between asking the other ranks to end and ending them
_PARENT = "SACCADE_SUPERVISOR"  # the supervisor's process id, for its ranks
_PR_SET_PDEATHSIG = 1


def run_ranks(devices: int, nodes: int = 1, command: Sequence[str] | None = None) -> int:
    """Run `command` (default: the one this process was started with) once for each of `devices` and wait; returns the exit code.

    With several machines each calls this, with NODE_RANK, MASTER_ADDR and MASTER_PORT set; raises InputError where they are missing.
    """
    words = list(command) if command is not None else [sys.executable, *sys.orig_argv[1:]]
    shared = _rendezvous(nodes)
    node = int(shared.get("NODE_RANK", "0"))
    signals = _Forwarding()
    with signals:
        ranks = []
        for local in range(devices):
            own = {
                **os.environ, **shared, _PARENT: str(os.getpid()), "LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": str(devices),
                "RANK": str(node * devices + local), "WORLD_SIZE": str(devices * nodes),
            }
            # Its own session: a terminal's Ctrl-C reaches the supervisor alone, which passes it on once to each rank.
            ranks.append(subprocess.Popen(words, env=own, start_new_session=True, stderr=subprocess.PIPE if local else None))
        signals.ranks = ranks
        return _watch(ranks, signals)


def _rendezvous(nodes: int) -> dict[str, str]:
    if nodes == 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "NODE_RANK": "0"}
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
    if missing:
        raise InputError(
            f"--nodes {nodes} needs {', '.join(missing)} in the environment of every machine (the address and a free port of the first one, and the "
            "machine's number from 0), or start the run with torchrun"
        )
    return {name: os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")}


class _Forwarding:
    """Passes SIGTERM and SIGINT on to the ranks, each once."""

    def __init__(self) -> None:
        self.ranks: list[subprocess.Popen[bytes]] = []
        self.received = 0

    def __enter__(self) -> _Forwarding:
        self._before = {number: signal.signal(number, self._pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: object) -> None:
        self.received = number
        for rank in self.ranks:
            with contextlib.suppress(ProcessLookupError):
                rank.send_signal(number)


def _watch(ranks: Sequence[subprocess.Popen[bytes]], signals: _Forwarding) -> int:
    printers = [threading.Thread(target=_print_lines, args=(rank.stderr, number), daemon=True) for number, rank in enumerate(ranks) if rank.stderr]
    for printer in printers:
        printer.start()
    codes: dict[int, int] = {}  # of the ranks that ended by themselves
    deadline = float("inf")
    while len(codes) < len(ranks):
        codes |= {number: rank.returncode for number, rank in enumerate(ranks) if rank.poll() is not None}
        if any(codes.values()) and deadline == float("inf"):
            deadline = time.monotonic() + _GRACE
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    _end(ranks)
    for printer in printers:
        printer.join(1.0)
    if not any(codes.values()):
        return 0
    if signals.received:
        return 128 + signals.received
    # A rank that only noticed the end of another one ends with 1: the cause comes first.
    number, code = min(((n, c) for n, c in codes.items() if c), key=lambda item: (item[1] == 1, item[0]))
    if code < 0:
        name = signal.Signals(-code).name
        sys.stderr.write(f"error: process {number} of the run was ended by signal {-code} ({name}); the others were stopped.\n")
        return 128 - code
    return code


def _end(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    for rank in ranks:
        if rank.poll() is None:
            rank.kill()
            rank.wait()


def _print_lines(stream: IO[bytes], number: int) -> None:
    for line in stream:
        sys.stderr.write(f"[rank {number}] {line.decode(errors='replace')}")
        sys.stderr.flush()


def end_with_supervisor() -> None:
    """In a rank: be ended by the system when the supervisor is (Linux), so that no process is left over."""
    parent = os.environ.get(_PARENT)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it ended before the line above
        os._exit(1)
