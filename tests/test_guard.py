"""What a run of the tests leaves behind when it is interrupted: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guard import processes_of
from tests.tools import ROOT

# As any test of the service, but that it does not end by itself.
ENDLESS = """
import os, time
from collections.abc import Callable
from pathlib import Path
from tests.service import distributed

def test_that_never_ends(tmp_path):
    with distributed(tmp_path, workers=1):
        Path({folder_file!r}).write_text(os.environ["TESTS_OF_KEEPMORE"])
        time.sleep(300)
"""
SERVERS = {"weed", "valkey-server", "keepmore", "celery"}


@pytest.mark.parametrize(
    ("number", "processes"),
    [(signal.SIGINT, "0"), (signal.SIGTERM, "0"), (signal.SIGKILL, "0"), (signal.SIGKILL, "1")],
)
def test_an_interrupted_run_leaves_no_server(tmp_path: Path, number: signal.Signals, processes: str) -> None:
    """Else every Ctrl-C leaves a SeaweedFS that uses memory, disk and ports until somebody looks."""
    folder_file, test = tmp_path / "folder", tmp_path / "test_endless.py"
    test.write_text(ENDLESS.format(folder_file=str(folder_file)))
    command = [sys.executable, "-m", "pytest", "-p", "tests.parallel", "-n", processes, str(test)]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    # Where the tests themselves run in the background, they, and what they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, cwd=ROOT, env=own, stdout=subprocess.PIPE, start_new_session=True) as run:
        _until(folder_file.exists, 60)
        folder = folder_file.read_text()
        assert set(map(_program, processes_of(folder))) >= SERVERS
        run.send_signal(number)
        run.wait(60)  # after Ctrl-C, services end by themselves, and pytest after them
        _until(lambda: not processes_of(folder), 20)
        _until(lambda: not Path(folder).exists(), 20)


def _program(pid: int) -> str:
    """The name of what runs; of a script, the script's."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return Path(words[1] if Path(words[0]).name.startswith("python") else words[0]).name


def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
