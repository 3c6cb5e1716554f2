"""Local disk for what can be computed or fetched again: decoded images, weights."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from keepmore.errors import InvalidRequest, StoreFull, StoreUnwritable
from keepmore.spec import budget

SHARE_OF_FREE = 0.5
FOLDER = "keepmore-scratch"
# Without these files, a folder is somebody else's: it is not used, not counted and not removed.
ROOT_MARKER = ".keepmore-scratch"
ENTRY_MARKER = ".keepmore-entry"
LOCK = ".lock"
GONE = ".gone"
RESERVED = ".reserved"  # a sparse file, as long as what may be written beside it
BOOKKEEPING = (ENTRY_MARKER, RESERVED)


@dataclass(frozen=True, slots=True)
class Scratch:
    """A place (None: among temporary files) and the limit in bytes of what is kept there (None: half of what is free).

    Entries are folders in a folder of Keepmore's own at that place. Of those that no process holds, the least recently
    used is removed first. Nothing else at the place is touched.
    """

    folder: str | None = None
    max_bytes: int | None = None

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> Scratch:
        """From KEEPMORE_SCRATCH and KEEPMORE_SCRATCH_BYTES, such as 20GB. Raises InvalidRequest."""
        size = environment.get("KEEPMORE_SCRATCH_BYTES", "")
        try:
            max_bytes = budget.parse_size(size) if size else None
        except InvalidRequest as error:
            raise InvalidRequest(f"KEEPMORE_SCRATCH_BYTES: {size!r} is not a size; write one such as 20GB") from error
        folder = environment.get("KEEPMORE_SCRATCH") or None
        path = Path(folder or "/").absolute()
        existing = next((place for place in (path, *path.parents) if os.path.exists(place)), Path("/"))
        if not existing.is_dir():
            raise InvalidRequest(f"KEEPMORE_SCRATCH: {folder} cannot be a folder, because {existing} is a file")
        return Scratch(folder, max_bytes)

    @property
    def root(self) -> Path:
        """The folder of the entries. Raises StoreUnwritable if it cannot be created, or is not Keepmore's."""
        root = Path(self.folder) / FOLDER if self.folder else Path(tempfile.gettempdir()) / f"{FOLDER}-{os.getuid()}"
        root = root.absolute()
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            if root.stat().st_uid != os.getuid():
                raise StoreUnwritable(f"{root} belongs to another user; set KEEPMORE_SCRATCH to a folder of your own")
            marker = root / ROOT_MARKER
            if not marker.exists():
                others = [entry for entry in root.iterdir() if entry.name != LOCK and not _is_entry(entry)]
                # Asked again: another process that makes the folder now writes the marker first.
                if others and not marker.exists():
                    raise StoreUnwritable(
                        f"{root} was not made by Keepmore (it lacks the file {ROOT_MARKER}), so nothing in it is "
                        "touched; set KEEPMORE_SCRATCH to another folder"
                    )
                marker.write_text(f"Keepmore removes the folders in here that hold {ENTRY_MARKER}.\n")
        except OSError as error:
            raise StoreUnwritable(f"{root} cannot be created ({error.strerror}); set KEEPMORE_SCRATCH") from error
        return root

    @contextmanager
    def entry(self, name: str, write: Callable[[Path], None]) -> Iterator[Path]:
        """The entry `name`, which `write` fills if it does not exist; no process removes it within the block.

        Raises StoreFull if the disk is full.
        """
        with ExitStack() as locks:
            while (entry := self._lock_whole(name, locks)) is None:
                with ExitStack() as attempt:
                    folder = attempt.enter_context(self.temporary(f"{name}."))
                    self._write(folder, write)
                    if self._complete(folder, name):
                        locks.enter_context(attempt.pop_all())  # held, so that it is there to be locked by its name
            yield entry

    def _write(self, folder: Path, write: Callable[[Path], None]) -> None:
        try:
            write(folder)
            (folder / ENTRY_MARKER).write_text(json.dumps(_sizes(folder)))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise self.full() from error

    def _complete(self, folder: Path, name: str) -> bool:
        """Make a folder the entry `name`; False if another process was faster."""
        with self._root_lock():  # a process that counts what is used would miss a folder that changes its name
            (folder / RESERVED).unlink(missing_ok=True)
            try:
                folder.rename(self.root / name)
            except OSError:
                if not (self.root / name).exists():
                    raise
                return False
        return True

    @contextmanager
    def temporary(self, prefix: str) -> Iterator[Path]:
        """A new folder, removed after the block."""
        with ExitStack() as locks:
            while (folder := self._lock_entry(self._new_folder(prefix), locks)) is None:
                pass  # a process that makes room was faster
            try:
                yield folder
            finally:  # what cannot be removed stays as an entry that no process holds, and goes when space is needed
                if folder.exists():  # else it has become an entry
                    _remove_tree(folder)

    @contextmanager
    def existing(self, name: str) -> Iterator[Path | None]:
        """The entry `name` if it exists; it counts as used now, and no process removes it within the block."""
        with ExitStack() as locks:
            yield self._lock_whole(name, locks) if _is_entry(self.root / name) else None

    def has_room(self, bytes_: int) -> bool:
        """Whether `make_room` could free as much."""
        with self._root_lock():
            return self._usage().could_hold(bytes_)

    def make_room(self, bytes_: int, entry: Path) -> bool:
        """Remove entries that no process holds until `bytes_` may be written to `entry`, and reserve them until the
        entry is complete. Returns whether they may be written; removes nothing where that would not be enough."""
        with self._root_lock():
            (entry / RESERVED).unlink(missing_ok=True)
            usage = self._usage()
            if not usage.could_hold(bytes_):
                return False
            used_bytes = sum(usage.sizes.values())
            for other in usage.removable:
                if used_bytes + bytes_ <= usage.max_bytes:
                    break
                used_bytes -= usage.sizes[other] if _remove(other) else 0
            if used_bytes + bytes_ > usage.max_bytes:  # meanwhile a process began to use an entry that was not held
                return False
            with (entry / RESERVED).open("wb") as file:
                file.truncate(bytes_)
        return True

    def remove(self, name: str) -> bool:
        """Remove the entry `name`, unless a process holds it; returns whether it is gone."""
        with self._root_lock():
            return _remove(self.root / name)

    def _new_folder(self, prefix: str) -> str:
        """The name of a new folder."""
        root = self.root
        try:
            folder = Path(tempfile.mkdtemp(dir=root, prefix=prefix))
            try:
                (folder / ENTRY_MARKER).touch()
            except OSError:
                folder.rmdir()
                raise
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise self.full() from error
            raise StoreUnwritable(f"{root} cannot be written ({error.strerror}); set KEEPMORE_SCRATCH") from error
        return folder.name

    def _lock_whole(self, name: str, locks: ExitStack) -> Path | None:
        """As `_lock_entry`; an entry of which a part is gone, as old temporary files go, makes way."""
        with ExitStack() as attempt:
            entry = self._lock_entry(name, attempt)
            if entry is None:
                return None
            if _is_whole(entry):
                locks.enter_context(attempt.pop_all())
                return entry
        with self._root_lock(), suppress(FileNotFoundError):  # who else holds it keeps what is left
            entry.rename(_trash(entry))
        return None

    def _lock_entry(self, name: str, locks: ExitStack) -> Path | None:
        """The entry, if it exists, held until `locks` ends. Raises StoreUnwritable if something else has its name."""
        entry = self.root / name
        if entry.is_symlink():
            raise StoreUnwritable(f"{entry} is a link that Keepmore did not make; move it to another place")
        try:
            descriptor = os.open(entry, os.O_RDONLY)
            locks.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for a process that is removing it
            if os.path.samestat(os.fstat(descriptor), entry.stat()):
                if not _is_entry(entry):
                    raise StoreUnwritable(
                        f"{entry} was not made by Keepmore (it lacks the file {ENTRY_MARKER}) and stands in the way; "
                        "move it to another place"
                    )
                for path in (entry, entry / ENTRY_MARKER, entry.parent / ROOT_MARKER):
                    os.utime(path)  # what cleans temporary folders by age leaves the markers, too
                return entry
        except FileNotFoundError:
            pass
        return None

    @contextmanager
    def _root_lock(self) -> Iterator[None]:
        """Only one process at a time frees space."""
        descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def full(self) -> StoreFull:
        return StoreFull(
            f"the scratch disk {self.root} is full; give it more room with KEEPMORE_SCRATCH and "
            "KEEPMORE_SCRATCH_BYTES, then resume the job"
        )

    def _usage(self) -> _Usage:
        used_at = {entry: _used_at(entry) for entry in self.root.iterdir() if _is_entry(entry)}
        file_bytes = {entry: sum(_sizes(entry).values()) for entry in used_at}
        disk_bytes = shutil.disk_usage(self.root).free + sum(file_bytes.values())
        return _Usage(
            {entry: max(size, _bytes(entry / RESERVED)) for entry, size in file_bytes.items()},
            [entry for entry in sorted(used_at, key=used_at.__getitem__) if not _is_held(entry)],
            int(SHARE_OF_FREE * disk_bytes) if self.max_bytes is None else min(self.max_bytes, disk_bytes),
        )


@dataclass(frozen=True, slots=True)
class _Usage:
    """Bytes that each entry takes or has reserved; entries that no process holds, least recently used first."""

    sizes: dict[Path, int]
    removable: list[Path]
    max_bytes: int

    def could_hold(self, bytes_: int) -> bool:
        return sum(self.sizes.values()) - sum(self.sizes[entry] for entry in self.removable) + bytes_ <= self.max_bytes


def _remove(entry: Path) -> bool:
    """Remove an entry, unless a process holds it; returns whether it is gone."""
    with ExitStack() as locks:
        try:
            descriptor = os.open(entry, os.O_RDONLY)
            locks.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_entry(entry):
                return False
            trash = entry
            if entry.suffix != GONE:  # nobody may find half an entry
                trash = _trash(entry)
                entry.rename(trash)
            _remove_tree(trash)
            return not trash.exists()
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False


def _trash(entry: Path) -> Path:
    return entry.with_name(f"{entry.name}.{secrets.token_hex(8)}{GONE}")


def _sizes(entry: Path) -> dict[str, int]:
    """Bytes of each file of an entry, by its path in it."""
    files = (Path(folder) / name for folder, _, names in os.walk(entry) for name in names if name not in BOOKKEEPING)
    return {str(file.relative_to(entry)): _bytes(file) for file in files}


def _is_whole(entry: Path) -> bool:
    """Whether the files are those that the marker names."""
    try:
        return bool(_sizes(entry) == json.loads((entry / ENTRY_MARKER).read_text()))
    except (OSError, ValueError):
        return False


def _is_entry(folder: Path) -> bool:
    """Links are not: an entry that somebody moved to another disk, and linked, is that person's."""
    try:
        return not folder.is_symlink() and (folder / ENTRY_MARKER).exists()
    except OSError:  # a folder that we may not look into is not ours
        return False


def _remove_tree(folder: Path) -> None:
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


def _used_at(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _is_held(entry: Path) -> bool:
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


def _bytes(file: Path) -> int:
    try:
        return file.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
