"""Local disk for what can be made again: decoded images, files on their way."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from keepmore.errors import InvalidRequest, StoreFull, StoreUnwritable
from keepmore.spec import budget

SHARE_OF_FREE = 0.5
LOCK = ".lock"
RESERVED = ".reserved"  # a file without content, as long as what may be written beside it


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

    @contextmanager
    def entry(self, name: str, write: Callable[[Path], None]) -> Iterator[Path]:
        """The entry `name`, which `write` fills if it is not there; while it lasts, no process removes it.

        Raises StoreFull if the disk is full.
        """
        with ExitStack() as held:
            while (entry := self._held(name, held)) is None:
                made = held.enter_context(self.temporary(f"{name}."))
                with self._space():
                    write(made)
                (made / RESERVED).unlink(missing_ok=True)
                try:
                    made.rename(self.root / name)
                except OSError:  # another process was faster
                    if not (self.root / name).exists():
                        raise
            yield entry

    @contextmanager
    def temporary(self, prefix: str) -> Iterator[Path]:
        """A new folder, for as long as it lasts."""
        with ExitStack() as held:
            while (made := self._held(tempfile.mkdtemp(dir=self.root, prefix=prefix), held)) is None:
                pass  # whoever makes room was faster
            try:
                yield made
            finally:  # what cannot be removed is an entry that nobody holds, and goes when room is made
                shutil.rmtree(made, ignore_errors=True)

    @contextmanager
    def found(self, name: str) -> Iterator[Path | None]:
        """The entry `name` if it is there; it counts as used now, and while it lasts, no process removes it."""
        with ExitStack() as held:
            yield self._held(name, held)

    def has_room(self, bytes_: int) -> bool:
        """Whether `make_room` could make as much."""
        with self._alone():
            return self._census().could_hold(bytes_)

    def make_room(self, bytes_: int, entry: Path) -> bool:
        """Remove what nobody holds until `bytes_` may be written to `entry`, and reserve them: until the entry is
        whole, no other process takes them. Says whether they may be written, and if not, removes nothing."""
        with self._alone():
            (entry / RESERVED).unlink(missing_ok=True)
            census = self._census()
            if not census.could_hold(bytes_):
                return False
            taken = sum(census.sizes.values())
            for other in census.loose:
                if taken + bytes_ <= census.most:
                    break
                taken -= census.sizes[other] if _removed(other) else 0
            if taken + bytes_ > census.most:  # somebody began to use what nobody held
                return False
            with (entry / RESERVED).open("wb") as file:
                file.truncate(bytes_)
        return True

    def remove(self, name: str) -> bool:
        """Remove the entry `name`, unless somebody holds it."""
        with self._alone():
            return _removed(self.root / name)

    def _held(self, name: str, held: ExitStack) -> Path | None:
        """The entry, if it is there, held until `held` ends."""
        entry = self.root / name
        try:
            place = os.open(entry, os.O_RDONLY)
            held.callback(os.close, place)
            fcntl.flock(place, fcntl.LOCK_SH)  # waits for whoever removes it just now
            if os.path.samestat(os.fstat(place), entry.stat()):
                os.utime(entry)
                return entry
        except FileNotFoundError:
            pass
        return None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time looks for room, and makes it."""
        place = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(place, fcntl.LOCK_EX)
            yield
        finally:
            os.close(place)

    @contextmanager
    def _space(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise self.full() from error

    def full(self) -> StoreFull:
        return StoreFull(
            f"the scratch disk {self.root} is full; give it more room with KEEPMORE_SCRATCH and "
            "KEEPMORE_SCRATCH_BYTES, then resume the job"
        )

    def _census(self) -> _Census:
        used_at = {entry: _used_at(entry) for entry in self.root.iterdir() if entry.is_dir()}
        written = {entry: _size(entry) for entry in used_at}
        disk = shutil.disk_usage(self.root).free + sum(written.values())
        return _Census(
            {entry: max(size, _bytes(entry / RESERVED)) for entry, size in written.items()},
            [entry for entry in sorted(used_at, key=used_at.__getitem__) if not _is_held(entry)],
            int(SHARE_OF_FREE * disk) if self.most_bytes is None else min(self.most_bytes, disk),
        )


@dataclass(frozen=True, slots=True)
class _Census:
    """What each entry takes or has reserved; those that nobody holds, longest unused first; what all may take."""

    sizes: dict[Path, int]
    loose: list[Path]
    most: int

    def could_hold(self, bytes_: int) -> bool:
        return sum(self.sizes.values()) - sum(self.sizes[entry] for entry in self.loose) + bytes_ <= self.most


def _removed(entry: Path) -> bool:
    """Remove an entry; says if it is gone, which it is not while somebody holds it."""
    with ExitStack() as held:
        try:
            place = os.open(entry, os.O_RDONLY)
            held.callback(os.close, place)
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = entry.with_name(f"{entry.name}.gone")  # else somebody could find half an entry
            shutil.rmtree(gone, ignore_errors=True)
            entry.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
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
    return sum(_bytes(Path(place) / name) for place, _, names in os.walk(folder) for name in names if name != RESERVED)


def _bytes(file: Path) -> int:
    try:
        return file.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
