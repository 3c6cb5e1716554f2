"""What is particular to the store in a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from keepmore.errors import NotFound, StoreError, StoreUnwritable
from keepmore.storage.folder import STALE_S, TEMPORARY_NAME, FolderStore


def test_addresses_do_not_depend_on_where_a_command_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever renames the folder in which they ran a command loses all images of its manifests."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert FolderStore(Path("../store")).uri("a") == (tmp_path / "store" / "a").as_uri()
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    assert FolderStore(Path("../link/../store")).uri("a") == (tmp_path / "elsewhere" / "store" / "a").as_uri()
    assert FolderStore(Path("../work/store")).uri("a") == (tmp_path / "work" / "store" / "a").as_uri()
    assert FolderStore(Path("../link/store")).uri("a") == (tmp_path / "link" / "store" / "a").as_uri()


def test_reading_changes_nothing(tmp_path: Path) -> None:
    """Else a mistyped --store leaves a folder behind, and looking at a store changes what lies in it."""
    store = FolderStore(tmp_path / "nothing")
    assert list(store.keys("jobs/")) == []
    assert not store.exists("jobs/a.json")
    assert not (tmp_path / "nothing").exists()


def test_files_of_others_stay(tmp_path: Path) -> None:
    """Else a store in a folder that somebody uses already deletes what they keep in .tmp."""
    folder = tmp_path / ".tmp"
    (folder / "keepmore-0123456789abcdef.partial").mkdir(parents=True)
    strangers = [folder / name for name in ("notes.txt", "0123456789abcdef", "keepmore-1.partial", "a.partial")]
    for stranger in strangers:
        stranger.write_text("mine")
    (folder / TEMPORARY_NAME.format("f" * 16)).symlink_to(folder / "notes.txt")
    before = sorted(folder.iterdir())
    stale, fresh = (folder / TEMPORARY_NAME.format(letter * 16) for letter in "ab")
    for path in (stale, fresh):
        path.write_text("half")
    for path in (*strangers, stale):
        os.utime(path, (0, path.stat().st_mtime - STALE_S - 60))
    FolderStore(tmp_path).put("jobs/a.json", b"{}")
    assert sorted(folder.iterdir()) == sorted([*before, fresh])
    assert all(stranger.read_text() == "mine" for stranger in strangers)


def test_what_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    """Else a full disk is filled further by each resume, for a day."""
    store = FolderStore(tmp_path / "store")
    store.put("taken", b"")
    with pytest.raises(StoreError):
        store.put_all({"a": b"1", "b": b"2", "taken/c": b"3"})
    assert list((tmp_path / "store" / ".tmp").iterdir()) == []


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """Else a mistyped --store looks like an empty one."""
    (tmp_path / "file.txt").write_text("mine")
    with pytest.raises(StoreUnwritable, match="Not a directory"):
        FolderStore(tmp_path / "file.txt")


def test_a_place_in_which_nothing_can_be_written_is_named_before_it_is_needed() -> None:
    """Else a service over a read-only disk says that it is ready, and refuses every job."""
    with pytest.raises(StoreUnwritable, match="cannot be written"):
        FolderStore(Path("/proc/nowhere/store")).check_writable()


def test_a_store_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    """Else each question whether a service is ready leaves a file."""
    store = FolderStore(tmp_path / "store")
    store.check_writable()
    assert [path.name for path in (tmp_path / "store").rglob("*")] == [".tmp"]


def test_a_place_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    """Else a mistyped --store, or one below a folder of somebody else's, ends with a traceback."""
    with pytest.raises(StoreError, match="File name too long"):
        FolderStore(tmp_path / ("x" * 300) / "store")


def test_a_key_below_a_file_is_not_there_already(tmp_path: Path) -> None:
    """Else a new job believes that somebody has written its record, and says that there is no such job."""
    store = FolderStore(tmp_path / "store")
    store.put("jobs", b"")
    with pytest.raises(StoreError):
        store.create("jobs/1.json", b"{}")


def test_an_absolute_store_needs_no_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a command in a folder that somebody removed ends with a traceback."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert FolderStore(tmp_path / "store").root == tmp_path / "store"


def test_what_is_no_file_is_not_there(tmp_path: Path) -> None:
    """Else a named pipe that somebody left in the store is waited for, for ever."""
    store = FolderStore(tmp_path / "store")
    (tmp_path / "store" / "jobs").mkdir(parents=True)
    os.mkfifo(tmp_path / "store" / "jobs" / "pipe.json")
    (tmp_path / "store" / "jobs" / "loop.json").symlink_to("loop.json")
    for key in ("jobs/pipe.json", "jobs/loop.json", "jobs"):
        with pytest.raises(NotFound):
            store.get(key)


def test_temporary_files_may_be_cleaned_up_at_any_time(tmp_path: Path) -> None:
    """Else a service whose `.tmp` somebody removed writes nothing until it is started again."""
    store = FolderStore(tmp_path / "store")
    store.put("a", b"1")
    shutil.rmtree(tmp_path / "store" / ".tmp")
    store.put("b", b"2")
    assert store.get("b") == b"2"
