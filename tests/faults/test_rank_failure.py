"""F5: when one process of a run fails or is killed, the others end soon, and what is shown first is the cause."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import losses, wait_until

SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
import tiny_run
from saccade.engine.launch import find_place, started_by_launcher
from saccade.engine.supervision import end_with_supervisor, run_ranks


def fail(step, figures):
    if {raises} and step == 5 and find_place().rank == 1:
        raise ValueError("the planted defect")


if __name__ == "__main__":
    if not started_by_launcher():
        sys.exit(run_ranks(2))
    end_with_supervisor()
    named = {{"callbacks": [fail, tiny_run.SlowSteps(0.01)], "run": {{"steps": 100000}}}}
    tiny_run._as_command(tiny_run.train, [Path({folder!r})], named, {{}}, None)
"""


def start(tmp_path: Path, raises: bool) -> tuple[subprocess.Popen[str], Path]:
    script, folder = tmp_path / "train.py", tmp_path / "run"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent), folder=str(folder), raises=raises))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True, env=environment), folder


def rank_process(parent: int, rank: int) -> int:
    """The process id of that rank below the supervisor `parent`."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"SACCADE_SUPERVISOR={parent}".encode() in variables and f"RANK={rank}".encode() in variables:
                return int(entry.name)
    raise AssertionError(f"rank {rank} is not running")


def test_the_traceback_of_the_failing_process_comes_first_and_the_others_end(tmp_path: Path) -> None:
    run, folder = start(tmp_path, raises=True)
    try:
        said = run.communicate(timeout=120)[1]
    finally:
        run.kill()
    assert run.returncode not in (0, None)
    assert "the planted defect" in said
    assert said.index("the planted defect") < said.index("another process of the run ended")
    assert max(losses(folder)) in (4, 5, 6)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the process in /proc")
def test_a_killed_process_ends_the_others_within_seconds(tmp_path: Path) -> None:
    run, folder = start(tmp_path, raises=False)
    try:
        wait_until(lambda: max(losses(folder), default=0) >= 3 or run.poll() is not None, timeout=120)
        assert run.poll() is None
        other = rank_process(run.pid, 0)
        os.kill(rank_process(run.pid, 1), signal.SIGKILL)
        begun = time.monotonic()
        said = run.communicate(timeout=60)[1]
        assert time.monotonic() - begun < 12
    finally:
        run.kill()
    assert run.returncode == 137
    assert "process 1 of the run was ended by signal 9" in said
    assert not Path(f"/proc/{other}").exists()
