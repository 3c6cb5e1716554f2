"""Scratch disk: room is made of what nobody uses, and what somebody uses stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keepmore.errors import InvalidRequest, StoreFull, StoreUnwritable
from keepmore.storage.scratch import ROOT_MARKER, Scratch
from keepmore.storage.scratch_entry import ENTRY_MARKER
from tests.keepmore.storage.rooms import makes_room

KB = 1000


def _scratch(folder: Path, max_bytes: int | None = 10 * KB) -> Scratch:
    return Scratch(str(folder / "scratch"), max_bytes)


def _entry(scratch: Scratch, name: str, size: int, age_s: float) -> Path:
    def write(folder: Path) -> None:
        (folder / "in").mkdir()
        (folder / "in" / "file").write_bytes(b"x" * size)

    with scratch.entry(name, write) as entry:
        used_at = entry.stat().st_mtime - age_s
    os.utime(entry, (used_at, used_at))
    return entry


def test_room_is_made_of_what_was_longest_unused(tmp_path: Path) -> None:
    """Else the images of the training under way go, and those of last month stay."""
    scratch = _scratch(tmp_path)
    old, older, new = (_entry(scratch, name, 3 * KB, age) for name, age in (("b", 100), ("a", 1000), ("c", 10)))
    assert makes_room(scratch, 1 * KB)
    assert all(entry.exists() for entry in (old, older, new)), "there was room"
    with scratch.existing("a") as entry:
        assert entry == older
    assert makes_room(scratch, 4 * KB)
    assert [entry.exists() for entry in (old, older, new)] == [False, True, True], "looking for it counts as use"
    with scratch.existing("b") as entry:
        assert entry is None


def test_what_is_held_stays(tmp_path: Path) -> None:
    """Else a fine-tuning loses its images while it runs because another one began."""
    scratch = _scratch(tmp_path)
    held_entry, free_entry = _entry(scratch, "held", 4 * KB, 1000), _entry(scratch, "loose", 4 * KB, 10)
    with scratch.existing("held"), scratch.existing("held"):
        os.utime(held_entry, (0, 0))
        assert not scratch.has_room(7 * KB)
        assert not makes_room(scratch, 7 * KB)
        assert free_entry.exists(), "nothing goes for what does not fit anyway"
        assert makes_room(scratch, 5 * KB)
        assert (held_entry.exists(), free_entry.exists()) == (True, False)
        assert not scratch.remove("held")
    assert scratch.has_room(7 * KB)
    assert held_entry.exists(), "asking removes nothing"
    assert makes_room(scratch, 7 * KB)
    assert not held_entry.exists()


def test_another_process_holds_until_it_dies(tmp_path: Path) -> None:
    """Else a killed training keeps its disk for ever, or a living one does not."""
    scratch = _scratch(tmp_path)
    entry = _entry(scratch, "held", 8 * KB, 0)
    program = (
        "import sys; from keepmore.storage.scratch import Scratch\n"
        "with Scratch(sys.argv[1]).existing('held'):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(scratch.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        assert not makes_room(scratch, 5 * KB)
        other.kill()
    assert makes_room(scratch, 5 * KB)
    assert not entry.exists()


def test_room_that_one_was_given_another_does_not_get(tmp_path: Path) -> None:
    """Else two trainings that begin at once take twice what the operator allowed."""
    scratch = _scratch(tmp_path)

    def write(folder: Path) -> None:
        assert scratch.make_room(6 * KB, folder)
        assert not makes_room(scratch, 5 * KB)
        (folder / "file").write_bytes(b"x" * 4 * KB)
        assert not makes_room(scratch, 5 * KB), "what it has written counts once"
        assert makes_room(scratch, 4 * KB)

    with scratch.entry("a", write) as entry:
        assert makes_room(scratch, 6 * KB), "a whole entry takes what it has"
        assert sorted(file.name for file in entry.iterdir()) == [ENTRY_MARKER, "file"]


def test_an_entry_is_whole_or_not_there(tmp_path: Path) -> None:
    """Else a training reads half of the images that another one could not finish, and fails until somebody looks."""
    scratch = _scratch(tmp_path)

    def broken(folder: Path) -> None:
        (folder / "file").write_bytes(b"half")
        with scratch.existing("a") as entry:
            assert entry is None
        raise StoreUnwritable("no")

    def full(folder: Path) -> None:
        Path("/dev/full").write_bytes(b"x")

    with pytest.raises(StoreUnwritable), scratch.entry("a", broken):
        pass
    with pytest.raises(StoreFull, match="give it more room with KEEPMORE_SCRATCH"), scratch.entry("a", full):
        pass
    assert [entry.name for entry in scratch.root.iterdir() if entry.is_dir()] == []


def test_processes_that_make_room_leave_each_other_what_they_use(tmp_path: Path) -> None:
    """Else what one of them removes ends the training of the other with a traceback."""
    scratch = _scratch(tmp_path, 20 * KB)
    program = (
        "import sys; from keepmore.storage.scratch import Scratch\n"
        "scratch, mine = Scratch(sys.argv[1], 20_000), sys.argv[2]\n"
        "def write(folder):\n"
        "    assert scratch.make_room(6000, folder)\n"
        "    for name in range(3):\n        (folder / str(name)).write_bytes(bytes(2000))\n"
        "for turn in range(120):\n"
        "    for name in (f'ours-{turn // 2}', f'{mine}-{turn}'):\n"
        "        with scratch.entry(name, write) as entry:\n"
        "            assert sum(file.stat().st_size for file in entry.glob('[0-9]')) == 6000, name\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(scratch.folder), name], stderr=subprocess.PIPE)
        for name in ("one", "other")
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    used_bytes = sum(file.stat().st_size for file in scratch.root.rglob("*") if file.is_file())
    assert used_bytes <= 20 * KB


def test_what_a_killed_process_was_removing_goes(tmp_path: Path) -> None:
    """Else it takes disk for ever, or stands in the way of the next one that goes."""
    scratch = _scratch(tmp_path)
    half_removed = _entry(scratch, "a.0123456789abcdef.gone", 8 * KB, 10)
    (half_removed / "in" / "file").rename(half_removed / "file")
    _entry(scratch, "a", KB, 1000)
    assert makes_room(scratch, 9 * KB + 500)
    assert not list(scratch.root.glob("a*"))


def _snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(file.relative_to(folder)): (file.lstat().st_mtime_ns, file.read_bytes() if file.is_file() else b"")
        for file in folder.rglob("*")
    }


def test_folders_of_others_stay(tmp_path: Path) -> None:
    """Else a dataset that lies where KEEPMORE_SCRATCH points is gone after a training."""
    scratch = _scratch(tmp_path)
    place = Path(scratch.folder or "")
    strangers = [place / "photos", place / ".lock", scratch.root / "photos", scratch.root / "photos.gone"]
    for number, stranger in enumerate(strangers):
        stranger.mkdir()
        (stranger / "0001.jpg").write_bytes(b"x" * 8 * KB)
        os.utime(stranger, (number, number))
    (scratch.root / "link").symlink_to(place / "photos")
    before = {stranger: _snapshot(stranger) for stranger in strangers}
    entry = _entry(scratch, "a", 8 * KB, 1000)
    assert makes_room(scratch, 9 * KB), "what others have there is not counted"
    assert not entry.exists()
    assert not scratch.remove("photos")
    with pytest.raises(StoreUnwritable, match=r"photos was not made by Keepmore .* move it to another place"):
        _entry(scratch, "photos", KB, 0)
    assert {stranger: _snapshot(stranger) for stranger in strangers} == before
    assert (scratch.root / "link").is_symlink()


def test_a_folder_of_others_with_our_name_is_not_used(tmp_path: Path) -> None:
    """Else what somebody keeps in a folder called keepmore-scratch is taken for ours."""
    folder = tmp_path / "scratch" / "keepmore-scratch"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(StoreUnwritable, match=rf"was not made by Keepmore .*{ROOT_MARKER}.*set KEEPMORE_SCRATCH"):
        _ = _scratch(tmp_path).root
    assert sorted(file.name for file in folder.iterdir()) == ["notes.txt"]


def test_a_lost_marker_of_the_folder_is_written_again(tmp_path: Path) -> None:
    """Else what cleans temporary folders ends all trainings until somebody looks."""
    scratch = _scratch(tmp_path)
    entry = _entry(scratch, "a", KB, 0)
    (scratch.root / ROOT_MARKER).unlink()
    with scratch.existing("a") as existing:
        assert existing == entry
    (entry / ENTRY_MARKER).unlink()
    with scratch.existing("a") as existing:
        assert existing is None, "it may be another's"
    assert (entry / "in" / "file").exists()


def test_what_cannot_be_removed_keeps_its_name(tmp_path: Path) -> None:
    """Else its name grows each time that space is needed, until no name is possible."""
    scratch = _scratch(tmp_path)
    _entry(scratch, "a", 9 * KB, 0)
    stuck = scratch.root / "a"
    if subprocess.run(["chattr", "+i", str(stuck / "in" / "file")], capture_output=True, check=False).returncode:
        pytest.skip("this user, or this file system, makes no file that cannot be removed")
    try:
        for _ in range(3):
            scratch.remove(next(iter(scratch.root.glob("a*")), stuck).name)
        assert len(max((path.name for path in scratch.root.iterdir()), key=len)) < 40
    finally:
        for file in scratch.root.rglob("file"):
            subprocess.run(["chattr", "-i", str(file)], check=False)


def test_the_disk_is_never_filled(tmp_path: Path) -> None:
    """Else decoded images take the room that the store, or another program, needs."""
    scratch = _scratch(tmp_path, None)
    entry = _entry(scratch, "a", KB, 10)
    assert makes_room(scratch, KB)
    assert not makes_room(scratch, 10**18)
    assert not makes_room(_scratch(tmp_path, 10**19), 10**18), "a limit above the disk is the disk's"
    assert entry.exists()


def test_the_environment_names_place_and_limit(tmp_path: Path) -> None:
    """Else the disk that an operator set apart is not used, or filled past what was allowed."""
    assert Scratch.from_environment({}) == Scratch()
    scratch = Scratch.from_environment(
        {"KEEPMORE_SCRATCH": str(tmp_path / "a" / "b"), "KEEPMORE_SCRATCH_BYTES": "20GB"}
    )
    assert scratch == Scratch(str(tmp_path / "a" / "b"), 20 * 10**9)
    assert scratch.root.stat().st_mode & 0o777 == 0o700, "images may be private"
    with pytest.raises(InvalidRequest, match="KEEPMORE_SCRATCH_BYTES: 'much' is not a size; write one such as 20GB"):
        Scratch.from_environment({"KEEPMORE_SCRATCH_BYTES": "much"})


def test_a_place_that_cannot_be_used_says_what_to_set(tmp_path: Path) -> None:
    """Else training ends with a traceback about a folder that the user never named."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnwritable, match=r"cannot be created .* set KEEPMORE_SCRATCH"):
        _ = Scratch(str(tmp_path / "file" / "under")).root
    if os.getuid():
        with pytest.raises(StoreUnwritable, match="belongs to another user; set KEEPMORE_SCRATCH"):
            _ = Scratch("/usr").root


def test_an_entry_that_somebody_moved_and_linked_stays(tmp_path: Path) -> None:
    """Else what that person keeps beside it on the other disk goes, too."""
    scratch = _scratch(tmp_path)
    _entry(scratch, "a", 6 * KB, 10).rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "keep.txt").write_text("mine")
    (scratch.root / "a").symlink_to(tmp_path / "elsewhere")
    assert makes_room(scratch, 9 * KB)
    assert not scratch.remove("a")
    assert (tmp_path / "elsewhere" / "keep.txt").read_text() == "mine"
    with (
        pytest.raises(StoreUnwritable, match="is a link that Keepmore did not make"),
        scratch.entry("a", lambda folder: None),
    ):
        pass


def test_what_another_process_wrote_faster_takes_no_room_twice(tmp_path: Path) -> None:
    """Else two trainings on the same images block twice their room until the last of them ends."""
    scratch = _scratch(tmp_path)

    def write(folder: Path) -> None:
        _entry(scratch, "a", 4 * KB, 0)
        (folder / "file").write_bytes(b"x" * 4 * KB)

    with scratch.entry("a", write) as entry:
        assert (entry / "in" / "file").exists()
        assert [folder.name for folder in scratch.root.iterdir() if folder.is_dir()] == ["a"]


def test_a_link_to_nothing_with_the_name_of_an_entry_is_named(tmp_path: Path) -> None:
    """Else an entry that somebody moved to a disk that is gone ends a training with a traceback."""
    scratch = _scratch(tmp_path)
    (scratch.root / "a").symlink_to(tmp_path / "nothing")
    with pytest.raises(StoreUnwritable, match="is a link that Keepmore did not make"):
        _entry(scratch, "a", KB, 0)


def test_a_place_that_is_a_file_is_named_at_once(tmp_path: Path) -> None:
    """Else it is found out after everything has been compressed."""
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidRequest, match=r"KEEPMORE_SCRATCH: .* is a file"):
            Scratch.from_environment({"KEEPMORE_SCRATCH": str(place)})


def test_a_relative_place_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a training makes folders for ever, until the disk has no room for another."""
    monkeypatch.chdir(tmp_path)
    with Scratch("scratch").temporary("new-") as folder:
        assert folder.parent == tmp_path / "scratch" / "keepmore-scratch"
        assert folder.is_dir()
    assert not folder.exists()
