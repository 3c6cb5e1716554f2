"""The command line as a whole."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest


def _cpu_seconds(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.alone
def test_help_is_quick() -> None:
    """Else whoever looks up an option waits for libraries that only the work needs."""
    command = (sys.executable, "-c", "from keepmore.cli.main import main; main()", "--help")
    assert min(_cpu_seconds(*command) for _ in range(3)) < 0.5
