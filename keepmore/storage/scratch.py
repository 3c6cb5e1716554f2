"""Local disk for what can be computed or fetched again: decoded images, weights."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from keepmore.errors import InvalidRequest, StoreFull, StoreUnwritable
from keepmore.spec import budget
from keepmore.storage import scratch_entry as entries
from keepmore.storage.scratch_entry import ENTRY_MARKER, GONE, RESERVED

SHARE_OF_FREE = 0.5
FOLDER = "keepmore-scratch"
# Without it, the folder is somebody else's: it is not used.
ROOT_MARKER = ".keepmore-scratch"
LOCK = ".lock"


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
                others = [entry for entry in root.iterdir() if entry.name != LOCK and not entries.is_entry(entry)]
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
                    elif not entries.is_whole(self.root / name):  # a broken one, which another process still holds
                        entry = folder
                        locks.enter_context(attempt.pop_all())
                        break
            yield entry

    def _write(self, folder: Path, write: Callable[[Path], None]) -> None:
        try:
            write(folder)
            (folder / ENTRY_MARKER).write_text(json.dumps(entries.sizes(folder)))
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
                    entries.remove_tree(folder)

    @contextmanager
    def existing(self, name: str) -> Iterator[Path | None]:
        """The entry `name` if it exists; it counts as used now, and no process removes it within the block."""
        with ExitStack() as locks:
            yield self._lock_whole(name, locks) if entries.is_entry(self.root / name) else None

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
                used_bytes -= usage.sizes[other] if entries.remove(other) else 0
            if used_bytes + bytes_ > usage.max_bytes:  # meanwhile a process began to use an entry that was not held
                return False
            with (entry / RESERVED).open("wb") as file:
                file.truncate(bytes_)
        return True

    def remove(self, name: str) -> bool:
        """Remove the entry `name`, unless a process holds it; returns whether it is gone."""
        with self._root_lock():
            return entries.remove(self.root / name)

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
            if entries.is_whole(entry):
                locks.enter_context(attempt.pop_all())
                return entry
        with self._root_lock():
            if not entries.is_whole(entry):  # else another process has made it again meanwhile
                entries.remove(entry)
        return None

    def _lock_entry(self, name: str, locks: ExitStack) -> Path | None:
        """The entry, if it exists, held until `locks` ends. Raises StoreUnwritable if something else has its name."""
        entry = self.root / name
        if entry.is_symlink():
            raise StoreUnwritable(f"{entry} is a link that Keepmore did not make; move it to another place")
        try:
            descriptor = os.open(entry, os.O_RDONLY | os.O_NONBLOCK)
            locks.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for a process that is removing it
            if os.path.samestat(os.fstat(descriptor), entry.stat()):
                if not entries.is_entry(entry):
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
        used_at = {entry: entries.used_at(entry) for entry in self.root.iterdir() if entries.is_entry(entry)}
        file_bytes = {entry: sum(entries.sizes(entry).values()) for entry in used_at}
        disk_bytes = shutil.disk_usage(self.root).free + sum(file_bytes.values())
        by_use = sorted(used_at, key=lambda entry: (entry.suffix != GONE, used_at[entry]))  # remains go first
        return _Usage(
            {entry: max(size, entries.size_of(entry / RESERVED)) for entry, size in file_bytes.items()},
            [entry for entry in by_use if not entries.is_held(entry)],
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
