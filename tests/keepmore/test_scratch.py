"""Scratch disk: room is made of what nobody uses, and what somebody uses stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keepmore.errors import InvalidRequest, StoreUnwritable
from keepmore.scratch import Scratch

KB = 1000


def _scratch(folder: Path, most_bytes: int | None = 10 * KB) -> Scratch:
    return Scratch(str(folder / "scratch"), most_bytes)


def _entry(scratch: Scratch, name: str, size: int, age_s: float) -> Path:
    entry = scratch.root / name
    (entry / "in").mkdir(parents=True)
    (entry / "in" / "file").write_bytes(b"x" * size)
    used = entry.stat().st_mtime - age_s
    os.utime(entry, (used, used))
    return entry


def test_room_is_made_of_what_was_longest_unused(tmp_path: Path) -> None:
    """Else the images of the training under way go, and those of last month stay."""
    scratch = _scratch(tmp_path)
    old, older, new = (_entry(scratch, name, 3 * KB, age) for name, age in (("b", 100), ("a", 1000), ("c", 10)))
    assert scratch.make_room(1 * KB)
    assert all(entry.exists() for entry in (old, older, new)), "there was room"
    assert scratch.found("a") == older, "it counts as used now"
    assert scratch.make_room(4 * KB)
    assert [entry.exists() for entry in (old, older, new)] == [False, True, True]
    assert scratch.found("b") is None


def test_what_is_held_stays(tmp_path: Path) -> None:
    """Else a fine-tuning loses its images under its hands because another one began."""
    scratch = _scratch(tmp_path)
    held, loose = _entry(scratch, "held", 4 * KB, 1000), _entry(scratch, "loose", 4 * KB, 10)
    with scratch.holding(held), scratch.holding(held):
        assert not scratch.make_room(7 * KB)
        assert loose.exists(), "nothing goes for what does not fit anyway"
        assert scratch.make_room(5 * KB)
        assert (held.exists(), loose.exists()) == (True, False)
    assert scratch.make_room(7 * KB)
    assert not held.exists()


def test_another_process_holds_until_it_dies(tmp_path: Path) -> None:
    """Else a killed training keeps its disk for ever, or a living one does not."""
    scratch = _scratch(tmp_path)
    entry = _entry(scratch, "held", 8 * KB, 0)
    program = (
        "import sys; from pathlib import Path; from keepmore.scratch import Scratch\n"
        "with Scratch(sys.argv[1]).holding(Path(sys.argv[2])):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(scratch.root), str(entry)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        assert not scratch.make_room(5 * KB)
        other.kill()
    assert scratch.make_room(5 * KB)
    assert not entry.exists()


def test_two_processes_make_room_at_once(tmp_path: Path) -> None:
    """Else what one of them removes ends the training of the other with a traceback."""
    scratch = _scratch(tmp_path, 20 * KB)
    program = (
        "import sys; from pathlib import Path; from keepmore.scratch import Scratch\n"
        "scratch = Scratch(sys.argv[1], 20_000)\n"
        "for turn in range(150):\n"
        "    entry = scratch.root / f'{sys.argv[2]}-{turn}'\n"
        "    entry.mkdir()\n"
        "    for name in range(3):\n        (entry / str(name)).write_bytes(bytes(2000))\n"
        "    assert scratch.make_room(5000)\n"
        "    scratch.found(f'other-{turn}')\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(scratch.root), name], stderr=subprocess.PIPE)
        for name in ("one", "other")
    ]
    for process in running:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said.decode()


def test_the_disk_is_never_filled(tmp_path: Path) -> None:
    """Else decoded images take the room that the store, or another program, needs."""
    scratch = _scratch(tmp_path, None)
    entry = _entry(scratch, "a", KB, 10)
    assert scratch.make_room(KB)
    assert not scratch.make_room(10**18)
    assert not _scratch(tmp_path, 10**19).make_room(10**18), "a limit above the disk is the disk's"
    assert entry.exists()


def test_the_environment_names_place_and_limit(tmp_path: Path) -> None:
    """Else the disk that an operator set apart is not used, or filled past what was allowed."""
    assert Scratch.from_environment({}) == Scratch()
    found = Scratch.from_environment({"KEEPMORE_SCRATCH": str(tmp_path / "a" / "b"), "KEEPMORE_SCRATCH_BYTES": "20GB"})
    assert found == Scratch(str(tmp_path / "a" / "b"), 20 * 10**9)
    assert found.root.stat().st_mode & 0o777 == 0o700, "images may be private"
    with pytest.raises(InvalidRequest, match="KEEPMORE_SCRATCH_BYTES: 'much' is no size; write such as 20GB"):
        Scratch.from_environment({"KEEPMORE_SCRATCH_BYTES": "much"})


def test_a_place_that_cannot_be_used_says_what_to_set(tmp_path: Path) -> None:
    """Else training ends with a traceback about a folder that the user never named."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnwritable, match=r"cannot be made .* set KEEPMORE_SCRATCH"):
        _ = Scratch(str(tmp_path / "file" / "under")).root
    if os.getuid():
        with pytest.raises(StoreUnwritable, match="belongs to another user; set KEEPMORE_SCRATCH"):
            _ = Scratch("/usr").root
