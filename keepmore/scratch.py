"""Local disk for what can be made again: decoded images, files on their way."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from keepmore import budget
from keepmore.errors import InvalidRequest, StoreUnwritable

SHARE_OF_FREE = 0.5


@dataclass(frozen=True, slots=True)
class Scratch:
    """A folder (None: one of the user's own among temporary files) and the bytes that it may take in all (None: half
    of what is free). Entries are folders; the one that was longest unused goes first.
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
        if not entry.is_dir():
            return None
        os.utime(entry)
        return entry

    def make_room(self, bytes_: int, keep: Collection[Path] = ()) -> bool:
        """Remove entries, none of `keep`, until `bytes_` more may be written; says whether they may, and removes none
        if not."""
        entries = sorted((e for e in self.root.iterdir() if e.is_dir()), key=lambda entry: entry.stat().st_mtime)
        sizes = {entry: _size(entry) for entry in entries}
        free = shutil.disk_usage(self.root).free
        taken = sum(sizes.values())
        most = int(SHARE_OF_FREE * (free + taken)) if self.most_bytes is None else min(self.most_bytes, free + taken)
        if bytes_ + sum(size for entry, size in sizes.items() if entry in keep) > most:
            return False
        for entry in entries:
            if taken + bytes_ <= most:
                break
            if entry in keep:
                continue
            shutil.rmtree(entry, ignore_errors=True)
            taken -= sizes[entry]
        return True


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
