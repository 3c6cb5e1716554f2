"""One folder of a scratch disk: whether it is Keepmore's, whole, and held; its sizes and its removal."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path

# Without this file, a folder is somebody else's: it is not used, not counted and not removed.
ENTRY_MARKER = ".keepmore-entry"
GONE = ".gone"
RESERVED = ".reserved"  # a sparse file, as long as what may be written beside it
BOOKKEEPING = (ENTRY_MARKER, RESERVED)


def remove(entry: Path) -> bool:
    """Remove an entry, unless a process holds it; returns whether it is gone."""
    with ExitStack() as locks:
        try:
            descriptor = os.open(entry, os.O_RDONLY)
            locks.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not is_entry(entry):
                return False
            gone = entry
            if entry.suffix != GONE:  # nobody may find half an entry
                gone = entry.with_name(f"{entry.name}.{secrets.token_hex(8)}{GONE}")
                entry.rename(gone)
            remove_tree(gone)
            return not gone.exists()
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False


def sizes(entry: Path) -> dict[str, int]:
    """Bytes of each file of an entry, by its path in it."""
    files = (Path(folder) / name for folder, _, names in os.walk(entry) for name in names if name not in BOOKKEEPING)
    return {str(file.relative_to(entry)): size_of(file) for file in files}


def is_whole(entry: Path) -> bool:
    """Whether all files that the marker names are there, in their sizes; others do no harm."""
    try:
        wanted = json.loads((entry / ENTRY_MARKER).read_text())
        return bool(wanted.items() <= sizes(entry).items())
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def is_entry(folder: Path) -> bool:
    """Links are not: an entry that somebody moved to another disk, and linked, is that person's."""
    try:
        return not folder.is_symlink() and (folder / ENTRY_MARKER).is_file()
    except OSError:  # a folder that we may not look into is not ours
        return False


def remove_tree(folder: Path) -> None:
    """Remove what can be removed of a folder of ours, its marker last: what is left when a process dies goes later."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != ENTRY_MARKER:
            with suppress(OSError):
                path.unlink()
    with suppress(OSError):
        if os.listdir(folder) == [ENTRY_MARKER]:
            (folder / ENTRY_MARKER).unlink()
            folder.rmdir()


# Other processes make room too: an entry that is gone meanwhile was never used, takes nothing, and is not held.


def used_at(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def is_held(entry: Path) -> bool:
    try:
        folder = os.open(entry, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(folder)
    return False


def size_of(file: Path) -> int:
    try:
        return file.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
