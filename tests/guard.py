"""Ends whatever a run of pytest has started, however that run ends: nothing that a test starts may outlive it.

Fixtures stop their servers, but not when pytest is killed. So each run names a folder in its environment, which all
that it starts inherit, and a guard watches the run: once pytest is gone, it kills every process that has this folder
in its environment. The folder also holds what the processes of a run share.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "TESTS_OF_KEEPMORE"
LONGEST_S = 30  # of killing again: a process that starts others may be a moment ahead


def guard_this_run() -> None:
    """From now on, what this process starts ends with it."""
    os.environ.pop(VARIABLE, None)  # of a run that a test of another run has started
    folder = tempfile.mkdtemp(prefix="keepmore-tests-")
    command = [sys.executable, "-IS", __file__, str(os.getpid()), folder]
    nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(3)]
    # A session of its own: Ctrl-C is not for it. Nobody waits for it, so it is no Popen.
    os.posix_spawn(sys.executable, command, os.environ, file_actions=nowhere, setsid=True)
    os.environ[VARIABLE] = folder


def run_folder() -> Path:
    """What all processes of this run share."""
    return Path(os.environ[VARIABLE])


def processes_of(folder: str) -> list[int]:
    """The processes, but for pytest itself, of the run that has this folder."""
    entry = f"{VARIABLE}={folder}".encode()
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if entry in _environment(pid)]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return []


def _guard(run: int, folder: str) -> None:
    with suppress(ProcessLookupError):
        select.select([os.pidfd_open(run)], [], [])
    deadline = time.monotonic() + LONGEST_S
    while (pids := processes_of(folder)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _guard(int(sys.argv[1]), sys.argv[2])
