"""Entries of a scratch disk are whole, or made again."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from keepmore.storage.scratch import Scratch
from tests.keepmore.storage.rooms import makes_room

KB = 1000


def write(folder: Path) -> None:
    (folder / "file").write_bytes(b"x" * KB)


@pytest.mark.parametrize("change", ["gone", "shorter"])
@pytest.mark.parametrize("held", [False, True])
def test_an_entry_of_which_a_part_is_gone_is_made_again(tmp_path: Path, change: str, held: bool) -> None:
    """Else what cleans temporary folders by age ends every later training on these images, or with these weights."""
    scratch = Scratch(str(tmp_path), 10 * KB)
    with scratch.entry("a", write) as entry:
        broken = entry / "file"
    with scratch.existing("a") if held else nullcontext():
        if change == "gone":
            broken.unlink()
        else:
            broken.write_bytes(b"x")
        with scratch.existing("a") as entry:
            assert entry is None
        with scratch.entry("a", write) as entry:
            assert (entry / "file").stat().st_size == KB
            assert entry.name == "a" or held, "what somebody holds keeps its name"
    assert makes_room(scratch, 10 * KB), "what was left of it goes"


def test_a_file_more_does_an_entry_no_harm(tmp_path: Path) -> None:
    """Else whatever looks into a folder with a file manager takes the images from under a training."""
    scratch = Scratch(str(tmp_path), 10 * KB)
    with scratch.entry("a", write) as entry:
        pass
    (entry / ".DS_Store").write_bytes(b"")
    with scratch.existing("a") as again:
        assert again == entry


def test_processes_that_make_an_entry_again_leave_it_to_each_other(tmp_path: Path) -> None:
    """Else one of them takes the new one for the broken one, and from under the other."""
    scratch = Scratch(str(tmp_path), 100 * KB)
    program = (
        "import sys; from keepmore.storage.scratch import Scratch\n"
        "scratch = Scratch(sys.argv[1], 100_000)\n"
        "def write(folder):\n    (folder / 'file').write_bytes(bytes(1000))\n"
        "for turn in range(60):\n"
        "    with scratch.entry(f'e-{turn}', write) as entry:\n"
        "        for _ in range(200):\n            assert (entry / 'file').stat().st_size == 1000\n"
    )
    for turn in range(60):
        with scratch.entry(f"e-{turn}", write) as entry:
            (entry / "file").write_bytes(b"half")
    command = [sys.executable, "-c", program, str(scratch.folder)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
