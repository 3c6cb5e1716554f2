"""The command line as a whole."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from keepmore.cli.main import cli
from tests.tools import BIN


def _cpu_seconds(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.alone
def test_help_is_quick() -> None:
    """Else whoever looks up an option waits for libraries that only the work needs."""
    command = (sys.executable, "-c", "from keepmore.cli.entry import main; main()", "--help")
    assert min(_cpu_seconds(*command) for _ in range(3)) < 0.5


def test_an_early_interruption_prints_no_traceback() -> None:
    """Else whoever stops a command in its first second reads that it is broken."""
    program = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'keepmore.cli.console': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from keepmore.cli.entry import main; main()"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (130, "keepmore: interrupted\n")


def test_every_command_and_option_is_explained() -> None:
    """Else users have to read the code."""
    for name, subcommand in cli.commands.items():
        assert subcommand.help, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["run", "x" * 300, "--distances", "4"],
        ["show", "--store", "x" * 300],
        ["verify", "x" * 300],
        ["export", "loop", "loop.csv"],
    ],
)
def test_trouble_of_the_machine_prints_no_traceback(words: list[str], tmp_path: Path) -> None:
    """Else a name that is too long, or a link to itself, looks like a fault of the program."""
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    command = [str(BIN / "keepmore"), *words]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode in (1, 2)
    assert process.stderr.startswith("keepmore: ")
    assert "Traceback" not in process.stderr
    assert (tmp_path / "loop.csv").is_symlink()
