"""Local disk for what can be made again: decoded images, files on their way."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keepmore import budget
from keepmore.errors import InvalidRequest, StoreUnwritable

SHARE_OF_FREE = 0.5


@dataclass(frozen=True, slots=True)
class Scratch:
    """A folder (None: one of the user's own among temporary files) and the bytes that it may take in all (None: half
    of what is free). Entries are folders; of those that nobody holds, the one that was longest unused goes first.
    """

    folder: str | None = None
    most_bytes: int | None = None

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> Scratch:
        """From KEEPMORE_SCRATCH and KEEPMORE_SCRATCH_BYTES, such as 20GB. Raises InvalidRequest."""
        written = environment.get("KEEPMORE_SCRATCH_BYTES", "")
        try:
            most = budget.parse_size(written) if written else None
        except InvalidRequest as error:
            raise InvalidRequest(f"KEEPMORE_SCRATCH_BYTES: {written!r} is no size; write such as 20GB") from error
        return Scratch(environment.get("KEEPMORE_SCRATCH") or None, most)

    @property
    def root(self) -> Path:
        root = Path(self.folder) if self.folder else Path(tempfile.gettempdir()) / f"keepmore-{os.getuid()}"
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreUnwritable(f"{root} cannot be made ({error.strerror}); set KEEPMORE_SCRATCH") from error
        if root.stat().st_uid != os.getuid():
            raise StoreUnwritable(f"{root} belongs to another user; set KEEPMORE_SCRATCH to a folder of your own")
        return root

    def found(self, name: str) -> Path | None:
        """The entry `name`, if it is there; it counts as used now."""
        entry = self.root / name
        try:
            os.utime(entry)
        except FileNotFoundError:
            return None
        return entry

    @contextmanager
    def holding(self, entry: Path) -> Iterator[None]:
        """While it lasts, no process makes room by removing `entry`."""
        folder = os.open(entry, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_SH)
            yield
        finally:
            os.close(folder)

    def make_room(self, bytes_: int) -> bool:
        """Remove entries until `bytes_` more may be written; says whether they may, and removes none if not."""
        used_at = {entry: _used_at(entry) for entry in self.root.iterdir() if entry.is_dir()}
        entries = sorted(used_at, key=used_at.__getitem__)
        sizes = {entry: _size(entry) for entry in entries}
        loose = [entry for entry in entries if not _is_held(entry)]
        free, taken = shutil.disk_usage(self.root).free, sum(sizes.values())
        most = int(SHARE_OF_FREE * (free + taken)) if self.most_bytes is None else min(self.most_bytes, free + taken)
        if taken - sum(sizes[entry] for entry in loose) + bytes_ > most:
            return False
        for entry in loose:
            if taken + bytes_ <= most:
                break
            shutil.rmtree(entry, ignore_errors=True)
            taken -= sizes[entry]
        return True


# Other processes make room too: what is gone meanwhile was used never, takes nothing, and nobody holds it.


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


def _size(folder: Path) -> int:
    return sum(_bytes(Path(place) / name) for place, _, names in os.walk(folder) for name in names)


def _bytes(file: Path) -> int:
    try:
        return file.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
